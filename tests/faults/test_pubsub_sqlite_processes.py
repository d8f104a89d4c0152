"""pubsub.sqlite under `kill -9`: a publisher and three consumers on one file, any of them killed at random.

Run as a script, this file is one of those processes. Each run of each process writes a log of its own, line by line,
so that what it did before it was killed is known: `time event key number attempt`, with `S`ending and `C`onfirmed for
the publisher, `B`egun, `E`nded and `A`cknowledged for consumers.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from lapel.delivery import Delivery, Ordering, Settled, Settlement
from lapel.driver import DriverContext
from lapel.pubsub.types import PublishRequest, SubscribeRequest
from lapel_contrib.sqlite.pubsub import SqlitePubSub
from lapel_contrib.sqlite.settings import SqlitePubSubSettings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

KEYS = 6
CONSUMERS = 3
LEASE = 4
KILLS_IN_FLIGHT = 4
"""Kills of consumers with a handler at work, and as many of a publisher that waits for a confirmation."""
PATIENCE = 90.0

Message = tuple[int, int]
"""Key and number."""


class Log:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, event: str, message: Message, attempt: int = 0) -> None:
        line = f"{time.monotonic_ns()} {event} {message[0]} {message[1]} {attempt}\n"
        os.write(self._file, line.encode())


# the processes


async def publish_all(driver: SqlitePubSub, log: Log, directory: Path) -> None:
    last = dict.fromkeys(range(KEYS), 0)
    for path in directory.glob("publisher-*.log"):
        for record in read(path):
            last[record.message[0]] = max(last[record.message[0]], record.message[1])
    stop = directory / "stop-publisher"

    async def publish_key(key: int) -> None:
        number = last[key]
        while not stop.exists():
            number += 1
            log.write("S", (key, number))
            await driver.publish(PublishRequest("t", str(number).encode(), key=str(key)))
            log.write("C", (key, number))
            await asyncio.sleep(random.uniform(0.04, 0.12))

    async with asyncio.TaskGroup() as tasks:
        for key in range(KEYS):
            tasks.create_task(publish_key(key))


async def consume(driver: SqlitePubSub, log: Log, directory: Path, ordering: Ordering) -> None:
    async def revoked(deliveries: Sequence[Delivery], seconds: float) -> None:
        raise AssertionError("SQLite revokes nothing")

    consumer = await driver.subscribe(SubscribeRequest("t", "g", ordering, 4, revoked))
    (directory / "subscribed").touch()
    stop = directory / "stop-consumers"
    while not stop.exists():
        batch = await consumer.receive(4, 0.2)
        for delivery in batch:
            message = (int(delivery.key or 0), int(delivery.data))
            log.write("B", message, delivery.attempt or 0)
            await asyncio.sleep(random.uniform(0.0, 0.01))
            log.write("E", message)
        await consumer.settle([Settled(delivery, Settlement.ACK) for delivery in batch])
        for delivery in batch:
            log.write("A", (int(delivery.key or 0), int(delivery.data)))
    await consumer.close()


async def work(role: str, directory: Path, name: str, ordering: Ordering) -> None:
    settings = SqlitePubSubSettings(
        connection_string=str(directory / "broker.db"),
        lease_duration=timedelta(seconds=LEASE),
        busy_timeout=timedelta(seconds=20),
    )
    driver = SqlitePubSub(settings, DriverContext(component="bus"))
    await driver.open()
    log = Log(directory / f"{name}.log")
    if role == "publisher":
        await publish_all(driver, log, directory)
    else:
        await consume(driver, log, directory, ordering)
    await driver.close()


# the one that watches them


class Record(NamedTuple):
    at: int
    event: str
    message: Message
    attempt: int


def read(path: Path) -> list[Record]:
    if not path.exists():
        return []
    complete, _, _ = path.read_text().rpartition("\n")
    fields = [line.split() for line in complete.splitlines()]
    return [Record(int(at), event, (int(key), int(number)), int(tries)) for at, event, key, number, tries in fields]


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {PATIENCE:.0f} s"
        time.sleep(0.01)


class Run:
    """One life of one of the processes. `killed` is when it was certainly dead."""

    def __init__(self, role: str, name: str, directory: Path, ordering: Ordering) -> None:
        self.role = role
        self.name = name
        self.path = directory / f"{name}.log"
        self.killed: int | None = None
        self._errors = directory / f"{name}.err"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, __file__, role, str(directory), name, ordering.value], stderr=errors
            )

    def check_alive(self) -> None:
        assert self._process.poll() is None, f"{self.name} ended: {self._errors.read_text()}"

    def kill(self) -> None:
        self.check_alive()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.killed = time.monotonic_ns()

    def in_flight(self) -> int:
        """Messages whose handler had begun and not ended, or whose publication was not confirmed."""
        begin, end = ("S", "C") if self.role == "publisher" else ("B", "E")
        events = [record.event for record in read(self.path)]
        return events.count(begin) - events.count(end)

    def wait_for_end(self) -> None:
        try:
            code = self._process.wait(PATIENCE)
        finally:
            self.stop()
        assert code == 0, self._errors.read_text()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Handled(NamedTuple):
    """One delivery of a message as its consumer logged it."""

    run: Run
    begun: int
    attempt: int
    ended: int | None
    acknowledged: bool


def rows_left(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "broker.db", timeout=20)) as connection:
        left = "SELECT (SELECT count(*) FROM pubsub_deliveries) + (SELECT count(*) FROM pubsub_messages)"
        return int(connection.execute(left).fetchone()[0])


def deliveries_of(runs: list[Run]) -> dict[Message, list[Handled]]:
    found: dict[Message, list[Handled]] = defaultdict(list)
    for run in runs:
        if run.role == "consumer":
            records = read(run.path)
            events = {(record.event, record.message): record for record in records}
            assert len(events) == len(records), f"{run.name} got a message twice"
            for (event, message), record in events.items():
                if event == "B":
                    ended = events.get(("E", message))
                    acknowledged = ("A", message) in events
                    found[message].append(
                        Handled(run, record.at, record.attempt, ended.at if ended else None, acknowledged)
                    )
    for handled in found.values():
        handled.sort(key=lambda item: item.begun)
    return found


def kill_at_random(runs: list[Run], living: dict[str, Run], start: Callable[[str], None]) -> None:
    chance = random.Random(os.environ.get("LAPEL_FAULT_SEED"))
    struck = {"publisher": 0, "consumer": 0}
    end = time.monotonic() + PATIENCE
    while struck["consumer"] < KILLS_IN_FLIGHT or struck["publisher"] < KILLS_IN_FLIGHT:
        assert time.monotonic() < end, f"kills in flight so far: {struck}"
        slot = chance.choice(list(living))
        victim = living[slot]
        # What a process killed before it had leased may leave this one without work for a while.
        latest, lines = time.monotonic() + 1.5, chance.randint(1, 20)
        while len(read(victim.path)) < lines and time.monotonic() < latest:
            victim.check_alive()
            time.sleep(0.01)
        if chance.random() < 0.8:
            while victim.in_flight() == 0 and time.monotonic() < latest:
                time.sleep(0.0005)
        victim.kill()
        struck[victim.role] += victim.in_flight() > 0
        start(slot)


@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.NONE, Ordering.ALL])
def test_killed_processes_lose_nothing_reorder_nothing_and_repeat_only_what_they_had_begun(
    tmp_path: Path, ordering: Ordering
) -> None:
    runs: list[Run] = []
    living: dict[str, Run] = {}

    def start(slot: str) -> None:
        run = Run(slot.partition("-")[0], f"{slot}-{len(runs)}", tmp_path, ordering)
        runs.append(run)
        living[slot] = run

    try:
        for number in range(CONSUMERS):
            start(f"consumer-{number}")
        wait_until((tmp_path / "subscribed").exists, "the first subscription")
        start("publisher")
        kill_at_random(runs, living, start)
        (tmp_path / "stop-publisher").touch()
        living["publisher"].wait_for_end()
        wait_until(lambda: rows_left(tmp_path) == 0, "the settlement of every message")
        (tmp_path / "stop-consumers").touch()
        for slot, run in living.items():
            if slot != "publisher":
                run.wait_for_end()
    finally:
        for run in runs:
            run.stop()

    published = [record for run in runs if run.role == "publisher" for record in read(run.path)]
    confirmed = {record.message for record in published if record.event == "C"}
    found = deliveries_of(runs)
    struck = [run for run in runs if run.killed is not None and run.role == "consumer" and run.in_flight() > 0]
    assert len(struck) >= KILLS_IN_FLIGHT

    lost = {message for message in confirmed if not any(item.ended for item in found.get(message, []))}
    assert not lost
    assert set(found) <= {record.message for record in published}

    repeated = 0
    for message, items in found.items():
        repeated += len(items) - 1
        for earlier in items[:-1]:
            assert earlier.run.killed is not None, f"{message} came again, but nobody was killed"
            assert not earlier.acknowledged, f"{message} came again after its acknowledgement"
        assert all(item.attempt > place for place, item in enumerate(items))
    assert repeated >= len(struck)
    print(f"{len(confirmed)} messages, {repeated} repeated, {sum(1 for run in runs if run.killed)} kills")

    if ordering is not Ordering.NONE:
        assert_order(found, lambda message: message[0] if ordering is Ordering.KEY else 0)


def assert_order(found: dict[Message, list[Handled]], lane_of: Callable[[Message], int]) -> None:
    """Check that a lane had one consumer at a time, and that each of them went through it without a gap."""
    lanes: dict[int, list[tuple[Message, Handled]]] = defaultdict(list)
    for message, items in found.items():
        for item in items:
            lanes[lane_of(message)].append((message, item))
    for entries in lanes.values():
        entries.sort(key=lambda entry: entry[1].begun)
        owner, free = entries[0][1].run, 0
        begun: dict[int, set[int]] = defaultdict(set)
        last: dict[tuple[Run, int], int] = {}
        for (key, number), item in entries:
            assert item.run is owner or item.begun > free, "two consumers worked on one lane at once"
            skipped = {other for other in range(1, number) if (key, other) in found} - begun[key]
            assert not skipped, f"{number} of key {key} began before {skipped}"
            assert number > last.get((item.run, key), 0), f"{item.run.name} went back to {number} of key {key}"
            begun[key].add(number)
            owner, last[item.run, key] = item.run, number
            free = max(free, item.ended or item.run.killed or 0)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Ordering(sys.argv[4])))
