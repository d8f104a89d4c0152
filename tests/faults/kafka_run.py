"""A run of publishers and consumers in processes of their own, and what can be said of it at the end."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tests.faults.kafka_worker import Terms

_WORKER = Path(__file__).with_name("kafka_worker.py")
PATIENCE = 60.0
STANDSTILL = 20.0
"""After how many seconds without a new message what is missing counts as lost."""
RESUME_SECONDS = 10.0
"""How long after the broker's return consumption may take to go on by itself."""


@dataclass(frozen=True)
class Counts:
    """What a run says of itself. `explained` are the duplicates that a failure explains."""

    sent: int
    received: int
    lost: int
    duplicates: int
    explained: int
    disordered: int
    resent: int

    def __str__(self) -> str:
        return (
            f"sent {self.sent}, received {self.received}, lost {self.lost}, duplicates {self.duplicates}, "
            f"explained {self.explained}, out of order {self.disordered}, sent again by the publisher {self.resent}"
        )


class Worker:
    """One process, and its log."""

    def __init__(self, role: str, terms: Terms) -> None:
        self.role = role
        self.log = Path(terms.log)
        self.log.touch()
        self._errors = self.log.with_suffix(".err").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER), role, msgspec.json.encode(terms).decode()],
            stdout=self._errors,
            stderr=self._errors,
            process_group=0,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def entries(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of the log that have this field; the last one of a killed process may be torn."""
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if name in entry:
                found.append(entry)
        return found

    async def ready(self) -> None:
        await until(lambda: self.entries("ready") or not self.running, f"{self.role} does not begin: {self.errors()}")
        assert self.running, self.errors()

    def send(self, number: signal.Signals) -> None:
        if self.running:
            self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 45.0) -> None:
        """Have it end, and return when it has."""
        self.send(number)
        await until(lambda: not self.running, f"{self.role} does not end", seconds)
        self._errors.close()

    def errors(self) -> str:
        return self.log.with_suffix(".err").read_text(errors="replace")[-3000:]


class Run:
    """Starts workers, notes failures, and counts."""

    def __init__(self, folder: Path, properties: dict[str, str], topic: str = "numbers", **terms: Any) -> None:
        self._folder = folder
        self._terms = {"properties": properties, "topic": topic, **terms}
        self.workers: list[Worker] = []
        self.failures: list[tuple[float, float]] = []

    async def start(self, role: str, **changes: Any) -> Worker:
        """Start a worker and return when it is at work."""
        worker = self.launch(role, **changes)
        await worker.ready()
        return worker

    def launch(self, role: str, **changes: Any) -> Worker:
        """Start a worker without waiting."""
        log = str(self._folder / f"{role}-{len(self.workers)}.log")
        worker = Worker(role, Terms(log=log, **{**self._terms, **changes}))
        self.workers.append(worker)
        return worker

    def of(self, role: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.role == role]

    def failed(self, began: float, ended: float) -> None:
        """Note when something was broken; what was handled on both sides of it may be a duplicate."""
        self.failures.append((began, ended))

    def sent(self) -> dict[str, int]:
        """Return how often each message was sent until it was known to be stored."""
        return {entry["sent"]: entry["tries"] for worker in self.of("publish") for entry in worker.entries("sent")}

    def got(self) -> list[tuple[float, str]]:
        """Return all handlings, in the order of their ends."""
        return sorted((entry["at"], entry["got"]) for one in self.of("consume") for entry in one.entries("got"))

    async def finish(self) -> Counts:
        """End the publishers, wait while messages arrive, end the consumers, and count."""
        for worker in self.of("publish"):
            await worker.end()
        sent = self.sent()
        count, since = -1, time.monotonic()
        while not sent.keys() <= (got := {one for _, one in self.got()}) and time.monotonic() < since + STANDSTILL:
            if len(got) != count:
                count, since = len(got), time.monotonic()
            await asyncio.sleep(0.3)
        await asyncio.gather(*(worker.end() for worker in self.of("consume") if worker.running))
        return self.count()

    def count(self) -> Counts:
        """Count what was sent, received, lost and received again."""
        sent, times = self.sent(), defaultdict[str, list[float]](list)
        for at, name in self.got():
            times[name].append(at)
        resent = {name for name, tries in sent.items() if tries > 1}
        # The last message of each key may have been stored without the publisher knowing.
        resent |= {entry["failed"] for worker in self.of("publish") for entry in worker.entries("failed")}
        duplicates = explained = 0
        for name, found in times.items():
            for before, after in itertools.pairwise(found):
                duplicates += 1
                explained += name in resent or any(before <= end and began <= after for began, end in self.failures)
        return Counts(
            sent=len(sent),
            received=len(times),
            lost=len(sent.keys() - times.keys()),
            duplicates=duplicates,
            explained=explained,
            disordered=_disordered(times),
            resent=len(resent),
        )

    def resumed(self, returned: float) -> float:
        """Return how many seconds after `returned` the first message was handled."""
        return min((at for at, _ in self.got() if at > returned), default=float("inf")) - returned

    def kill(self) -> None:
        for worker in self.workers:
            worker.send(signal.SIGKILL)


def _disordered(times: dict[str, list[float]]) -> int:
    """Count the messages that were handled for the first time before an earlier one of their key."""
    keys = defaultdict[str, list[tuple[int, float]]](list)
    for name, found in times.items():
        key, _, number = name.partition(":")
        keys[key].append((int(number), found[0]))
    count = 0
    for numbers in keys.values():
        ordered = [at for _, at in sorted(numbers)]
        count += sum(before > after for before, after in itertools.pairwise(ordered))
    return count


async def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Return as soon as the condition holds; `TimeoutError` when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        await asyncio.sleep(0.1)


def no_loss(counts: Counts, least: int = 200) -> None:
    """Assert what must hold for every run."""
    print(f"\n{os.environ.get('PYTEST_CURRENT_TEST', '').partition(' ')[0]}: {counts}")
    assert counts.sent >= least, "hardly anything was sent, so nothing was tried"
    assert counts.lost == 0
    assert counts.disordered == 0
    assert counts.duplicates == counts.explained


def hit(what: Iterable[object]) -> None:
    """Assert that a fault left its mark."""
    assert any(what), "the fault did not hit"
