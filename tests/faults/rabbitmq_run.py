"""A publisher and consumers as processes of their own, and the account of what became of every message."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.rabbitmq_worker import Record, read

PATIENCE = 90.0
RESUME_SECONDS = 10.0
ROOT = Path(__file__).parents[2]


class Run:
    """Processes that work in one directory. `faults` are the times of what was done to them, from and to."""

    def __init__(self, directory: Path, settings: dict[str, str], *, ordering: str = "none") -> None:
        self.faults: list[tuple[int, int]] = []
        self.resumed: list[float] = []
        self._directory = directory
        self._settings = {"consumerID": "group", "durable": "true", "deletedWhenUnused": "false", **settings}
        self._ordering = ordering
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._consumers = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            await asyncio.to_thread(process.wait)

    # processes

    async def publisher(self) -> str:
        """Start a publisher; return its name when it works."""
        return await self._start("publisher", "publisher")

    async def consumer(self) -> str:
        """Start a further consumer; return its name when it is subscribed."""
        self._consumers += 1
        return await self._start("consumer", f"consumer-{self._consumers}")

    async def _start(self, role: str, name: str) -> str:
        worker = Path(__file__).with_name("rabbitmq_worker.py")
        command = [sys.executable, str(worker), role, str(self._directory), name]
        with (self._directory / f"{name}.err").open("wb") as errors:
            self._running[name] = subprocess.Popen(
                [*command, json.dumps(self._settings), self._ordering],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stderr=errors,
            )
        await self.until(
            lambda: (self._directory / f"{name}.ready").exists() or self._running[name].poll() is not None,
            f"{name} did not begin",
        )
        assert self._running[name].poll() is None, (self._directory / f"{name}.err").read_text()
        return name

    async def end(self, name: str) -> None:
        """Ask one to end, wait until it has, and note the time."""
        began = time.monotonic_ns()
        process = self._running.pop(name)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 45) == 0, (self._directory / f"{name}.err").read_text()[-2000:]
        self.faults.append((began, time.monotonic_ns()))

    def reconnects(self, name: str) -> int:
        """Return how often a consumer has subscribed anew."""
        return int(json.loads((self._directory / f"{name}.health").read_text())["reconnects"])

    # what they did

    def records(self, prefix: str, event: str) -> list[Record]:
        """Return all lines of this event in the logs of these processes, by time."""
        logs = self._directory.glob(f"{prefix}*.log")
        return sorted(record for log in logs for record in read(log) if record.event == event)

    async def until(self, condition: Callable[[], object], otherwise: str, seconds: float = PATIENCE) -> None:
        """Wait for a condition."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{otherwise} within {seconds:g} s"
            await asyncio.sleep(0.02)

    async def flowing(self, count: int = 300) -> None:
        """Wait until so many further messages were handled."""
        before = len(self.records("consumer", "E"))
        await self.until(lambda: len(self.records("consumer", "E")) >= before + count, "messages did not flow")

    async def back(self, names: Sequence[str], times: int) -> None:
        """Wait until each of these consumers has subscribed anew so many times."""
        await self.until(
            lambda: all(self.reconnects(name) >= times for name in names), f"{names} did not come back", 20
        )

    async def resumes(self, returned: int) -> None:
        """Wait until messages are handled that were published after the broker's return; note how long that took."""

        def fresh() -> bool:
            confirmed = {record[2:] for record in self.records("publisher", "C") if record.at > returned}
            return any(record[2:] in confirmed for record in self.records("consumer", "E") if record.at > returned)

        await self.until(fresh, "consumption did not resume", RESUME_SECONDS)
        self.resumed.append((time.monotonic_ns() - returned) / 1e9)

    async def account(self, title: str) -> dict[str, int]:
        """End the publisher, wait for the last message, end the consumers, and settle the account."""
        await self.end("publisher")
        confirmed = {record[2:] for record in self.records("publisher", "C")}

        def missing() -> set[tuple[int, int]]:
            return confirmed - {record[2:] for record in self.records("consumer", "E")}

        await self.until(lambda: not missing(), "confirmed messages did not all arrive")
        ends = len(self.faults)
        for name in list(self._running):
            await self.end(name)
        del self.faults[ends:]
        handled = self.records("consumer", "B")
        times = defaultdict(list)
        for record in handled:
            times[record[2:]].append(record.at)
        sent = {record[2:] for record in self.records("publisher", "S")}
        again = [(message, first, at) for message, found in times.items() for first, at in pairwise(found)]
        unexplained = [
            message for message, first, at in again if not any(first < to and since < at for since, to in self.faults)
        ]
        account = {
            "sent": len(sent),
            "confirmed": len(confirmed),
            "unknown": len(self.records("publisher", "U")),
            "failed": len(self.records("publisher", "F")),
            "received": len(times),
            "lost": len(confirmed - set(times)),
            "duplicates": len(again),
            "explained": len(again) - len(unexplained),
            "faults": len(self.faults),
        }
        resumed = f", resumed after {', '.join(f'{seconds:.1f}' for seconds in self.resumed)} s" if self.resumed else ""
        print(f"\n{title}: {', '.join(f'{value} {name}' for name, value in account.items())}{resumed}")
        assert account["lost"] == 0
        assert set(times) <= sent
        assert not unexplained, f"handled again without a fault: {unexplained[:10]}"
        # What certainly was not stored must not turn up.
        failed = {record[2:] for record in self.records("publisher", "F")}
        assert not failed & set(times), f"reported as not stored, but delivered: {sorted(failed & set(times))[:10]}"
        if self._ordering != "none":
            self._assert_in_order(handled)
        return account

    def _assert_in_order(self, handled: list[Record]) -> None:
        firsts: dict[int, list[int]] = defaultdict(list)
        known: set[tuple[int, int]] = set()
        for record in handled:
            if record[2:] not in known:
                known.add((record.key, record.number))
                firsts[record.key].append(record.number)
        for key, numbers in firsts.items():
            assert numbers == sorted(numbers), f"key {key} came out of order"
