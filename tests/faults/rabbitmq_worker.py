"""One process of the fault tests: a publisher of numbered messages, or a consumer. Run as a script.

It writes what it does to a log of its own, line by line, so that it is known also when the process is killed:
`time event key number`. Publishers write `S`ending, `C`onfirmed, `U`nknown and `F`ailed, consumers `B`egun and `E`nded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

from lapel.driver import DriverContext
from lapel.errors import LapelError, OutcomeUnknownError
from lapel.pubsub import Message, PubSub
from lapel_contrib.rabbitmq.pubsub import RabbitPubSub
from lapel_contrib.rabbitmq.pubsub_settings import RabbitPubSubSettings

KEYS = 6
TOPIC = "numbers"


class Record(NamedTuple):
    """One line: when, in nanoseconds of the machine's clock, what, and which message."""

    at: int
    event: str
    key: int
    number: int


def read(path: Path) -> list[Record]:
    """Return the complete lines of a log."""
    complete, _, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
    fields = [line.split() for line in complete.splitlines()]
    return [Record(int(at), event, int(key), int(number)) for at, event, key, number in fields]


class _Log:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, event: str, key: int, number: int) -> None:
        os.write(self._file, f"{time.monotonic_ns()} {event} {key} {number}\n".encode())


async def _publish(bus: PubSub, log: _Log, stop: asyncio.Event) -> None:
    async def one_key(key: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            log.write("S", key, number)
            try:
                await bus.publish(TOPIC, f"{key} {number}", key=str(key))
            except OutcomeUnknownError:
                log.write("U", key, number)
            except LapelError:
                log.write("F", key, number)
                await asyncio.sleep(0.05)
            else:
                log.write("C", key, number)
            await asyncio.sleep(random.uniform(0.005, 0.02))

    async with asyncio.TaskGroup() as tasks:
        for key in range(KEYS):
            tasks.create_task(one_key(key))


async def _consume(bus: PubSub, log: _Log, stop: asyncio.Event, ordering: str, ready: Path) -> None:
    async def handle(message: Message) -> None:
        key, number = map(int, message.json().split())
        log.write("B", key, number)
        await asyncio.sleep(random.uniform(0.0, 0.01))
        log.write("E", key, number)

    async with await bus.subscribe(TOPIC, handle, ordering=ordering, concurrency=8) as subscription:
        ready.touch()
        while not stop.is_set():
            found = subscription.health()
            draft = ready.with_suffix(".draft")
            draft.write_text(json.dumps({"state": found.state.value, **found.details}))
            draft.replace(ready.with_suffix(".health"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await stop.wait()


async def _work(role: str, directory: Path, name: str, settings: dict[str, str], ordering: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    driver = RabbitPubSub(RabbitPubSubSettings.parse(settings), DriverContext(component="bus"))
    log = _Log(directory / f"{name}.log")
    async with await PubSub(driver).open() as bus:
        if role == "publisher":
            (directory / f"{name}.ready").touch()
            await _publish(bus, log, stop)
        else:
            await _consume(bus, log, stop, ordering, directory / f"{name}.ready")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_work(sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]), sys.argv[5]))
