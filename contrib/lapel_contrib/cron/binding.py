"""Events on a schedule as an input binding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from typing_extensions import override

from lapel.bindings import BindingDriver, ReadRequest
from lapel.delivery import Consumer, Delivery, Settled
from lapel.driver import DriverContext

from . import BINDING
from .settings import CronSettings
from .times import Times

__all__ = ["Clock", "CronBinding", "CronConsumer", "SystemClock"]

SHORTEST_SLEEP: Final = 0.001
"""Seconds that a sleep counts at least, so that a clock that does not move cannot hold up `receive` for ever."""


class Clock(Protocol):
    """What tells the time, so that a test can."""

    def now(self) -> datetime:
        """Return the present moment in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that time, or a little earlier."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the present moment in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop."""
        await asyncio.sleep(seconds)


class CronBinding(BindingDriver[CronSettings]):
    """`bindings.cron`: an event without data at each time of `schedule`, with metadata `timeZone` and `readTimeUTC`.

    There is no catching up: times that pass while as many handlers run as the subscription's concurrency allows (1 by
    default, so runs do not overlap), while it is paused or while the machine sleeps are skipped; of those that pass
    while the event loop is late, one is delivered. An event whose handler failed is not delivered again.
    """

    descriptor = BINDING
    clock: Clock = SystemClock()

    def __init__(self, settings: CronSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._times: Times | None = None

    async def open(self) -> None:
        self._times = await asyncio.to_thread(Times.read, self.settings.schedule)

    async def close(self) -> None:
        self._times = None

    async def ping(self) -> None:
        return

    async def read(self, request: ReadRequest) -> Consumer:
        assert self._times is not None
        return CronConsumer(self._times, self.clock, self.context.component, request.prefetch)


class CronConsumer(Consumer):
    """The ticks of one reader, at most `limit` of them handled at a time."""

    redelivers = False

    def __init__(self, times: Times, clock: Clock, name: str, limit: int) -> None:
        self._times = times
        self._clock = clock
        self._name = name
        self._limit = limit
        self._held: set[Delivery] = set()
        self._paused = False
        self._free = asyncio.Event()
        self._free.set()
        self._due = times.after(clock.now())

    @override
    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        if len(self._held) >= self._limit:
            try:
                async with asyncio.timeout(max_wait):
                    await self._free.wait()
            except TimeoutError:
                pass
            return ()
        now = self._clock.now()
        every = self._times.every
        if every is not None and self._due - now > every:
            # The clock was set back; an interval does not wait for the old time to come again.
            self._due = now + every
        while now < self._due and max_wait > 0:
            pause = min((self._due - now).total_seconds(), max_wait)
            await self._clock.sleep(pause)
            max_wait -= max(pause, SHORTEST_SLEEP)
            now = self._clock.now()
        return (self._tick(now),) if now >= self._due and not self._paused else ()

    def _tick(self, now: datetime) -> Delivery:
        self._skip_to(now)
        delivery = Delivery(None, self._name, b"", {"timeZone": self._times.zone_name, "readTimeUTC": _go_time(now)})
        self._held.add(delivery)
        if len(self._held) >= self._limit:
            self._free.clear()
        return delivery

    def _skip_to(self, now: datetime) -> None:
        """Set the next due time, the first after `now`; intervals keep their beat."""
        every = self._times.every
        if every is None:
            self._due = self._times.after(max(now, self._due))
        elif now >= self._due:
            self._due += every * ((now - self._due) // every + 1)

    def _finished(self, deliveries: Sequence[Delivery]) -> None:
        full = len(self._held) >= self._limit
        self._held.difference_update(deliveries)
        if full and len(self._held) < self._limit:
            now = self._clock.now()
            if now >= self._due:
                self._skip_to(now)
            self._free.set()

    @override
    async def settle(self, settled: Sequence[Settled]) -> None:
        self._finished([each.delivery for each in settled])

    @override
    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self._finished(deliveries)

    @override
    async def pause(self) -> None:
        self._paused = True

    @override
    async def resume(self) -> None:
        self._paused = False
        now = self._clock.now()
        if now >= self._due:
            self._skip_to(now)

    @override
    async def close(self) -> None:
        self._held.clear()


def _go_time(moment: datetime) -> str:
    """Write a time in UTC as Go prints it, which is what Dapr's cron binding sends."""
    fraction = f".{moment:%f}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"
