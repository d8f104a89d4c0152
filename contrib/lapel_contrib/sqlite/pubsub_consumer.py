"""One subscription of pubsub.sqlite."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from lapel.delivery import Consumer, Delivery, Ordering, Settled, Settlement
from lapel.errors import ClosedError, LapelError, UnavailableError, UnsupportedError

from .engine import SqliteEngine
from .pubsub_queue import Queue, Verdict
from .pubsub_schema import now_ms

__all__ = ["SqliteConsumer"]

CLOSE_SECONDS = 2.0
"""How long each of the two steps of `close` may take."""
GRACE = 3.0
"""How long `receive` waits at least for the end of a transaction that takes messages."""


class SqliteConsumer(Consumer):
    """Takes messages of one group by leasing them, one transaction for each batch.

    A batch that was taken while its `receive` was cancelled is returned by the next one, or handed back. An idle
    consumer writes nothing: it waits for a change of the database, or for the time of the next retry or delay.
    `receive` raises `UnavailableError` when the file was locked by others for half the time of a lease.
    `closed` is called once, when this consumer closes.
    """

    def __init__(
        self, engine: SqliteEngine, queue: Queue, *, logger: logging.Logger, closed: Callable[[SqliteConsumer], None]
    ) -> None:
        self.group = queue.group
        self.lease_seconds = self._lease = queue.lease / 1000
        self._engine = engine
        self._queue = queue
        self._logger = logger
        self._on_close = closed
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, Delivery] = {}
        self._taking: asyncio.Task[list[Delivery]] | None = None
        self._taken_at = 0.0
        self._locked_since: float | None = None
        self._buffer: list[Delivery] = []
        self._eager = True
        self._running = asyncio.Event()
        self._running.set()
        self._failure: LapelError | None = None
        self._closing: asyncio.Task[None] | None = None

    def fail(self, error: LapelError) -> None:
        """Let `receive` raise this error from now on."""
        self._failure = error

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        end = self._loop.time() + max_wait
        while True:
            if self._closing is not None:
                raise ClosedError("the subscription is closed")
            if self._failure is not None:
                raise self._failure
            if not self._running.is_set():
                if not await self._resumed(end):
                    return ()
                continue
            if self._buffer and (batch := await self._unload(max_messages)):
                return batch
            seen, due = self._engine.version(), None
            if self._taking is None:
                found, due = (True, None) if self._eager else await self._look()
                if self._closing is not None or not self._running.is_set():
                    continue
                if found:
                    self._take(max_messages)
            if self._taking is not None:
                if not await self._finish_taking(max(GRACE, end - self._loop.time())):
                    return ()
                continue
            left = end - self._loop.time()
            if left <= 0:
                return ()
            await self._engine.wait_for_change(seen, left if due is None else min(left, due))

    async def settle(self, settled: Sequence[Settled]) -> None:
        verdicts = []
        for item in settled:
            if item.settlement is Settlement.DEAD_LETTER:
                raise UnsupportedError("lapel publishes dead letters; the database has no place of its own for them")
            retry = math.ceil(item.delay * 1000) if item.settlement is Settlement.RETRY else None
            verdicts.append(Verdict(item.delivery.handle, item.delivery.key, retry))
        late = await self._engine.write(partial(self._queue.settle, verdicts=verdicts))
        self._forget(item.delivery for item in settled)
        if late:
            self._logger.info(
                "topic %r: %d of %d messages were settled after their lease had passed on; they are delivered again",
                self._queue.topic,
                late,
                len(settled),
            )

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        by_handle = {delivery.handle: delivery for delivery in deliveries}
        lost = await self._engine.write(partial(self._queue.extend, taken=list(by_handle)))
        gone = [by_handle[handle] for handle in lost]
        self._forget(gone)
        return gone

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._engine.write(partial(self._queue.hand_back, unstarted=_verdicts(deliveries)))
        self._forget(deliveries)

    async def pause(self) -> None:
        self._running.clear()
        await self._stop_taking()
        unstarted, self._buffer = self._buffer, []
        if unstarted:
            await self.release(unstarted)

    async def resume(self) -> None:
        self._running.set()

    async def lag(self) -> int | None:
        return await self._engine.read(self._queue.lag, scan=True)

    async def close(self) -> None:
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(), name=f"lapel close {self._queue.topic}")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._on_close(self)
        await self._stop_taking()
        unstarted, self._buffer = self._buffer, []
        self._forget(unstarted)
        started = list(self._held.values())
        self._held.clear()
        if not unstarted and not started:
            return
        back = partial(self._queue.hand_back, unstarted=_verdicts(unstarted), started=_verdicts(started))
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._engine.write(back)
        except (LapelError, TimeoutError) as exc:
            # Their leases end by themselves.
            self._logger.info("topic %r: messages could not be handed back: %s", self._queue.topic, exc)

    async def _resumed(self, end: float) -> bool:
        try:
            async with asyncio.timeout_at(end):
                await self._running.wait()
        except TimeoutError:
            return False
        return True

    async def _look(self) -> tuple[bool, float | None]:
        """Return whether there is something to take, and if not, in how many seconds time alone may change that."""
        found, due = await self._engine.read(partial(self._queue.look, lanes=self._lanes()))
        return found, None if due is None else max(0.001, (due - now_ms()) / 1000)

    def _take(self, count: int) -> None:
        # A task of its own: once its transaction is under way it ends, whatever becomes of the caller.
        self._taken_at = self._loop.time()
        take = partial(self._queue.take, count=count, lanes=self._lanes())
        self._taking = self._loop.create_task(self._engine.write(take), name=f"lapel take {self._queue.topic}")

    async def _finish_taking(self, timeout: float) -> bool:
        """Wait for the transaction and keep what it took; False when it has not ended in time, or was not possible.

        Raises what went wrong. That another process keeps the file locked is not yet wrong: a new subscription would
        not help, and would disturb the handlers at work.
        """
        task = self._taking
        if task is None:
            return True
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            return False
        if self._taking is task:
            self._taking = None
            try:
                self._buffer = task.result()
            except UnavailableError as exc:
                self._eager = False
                now = self._loop.time()
                if self._locked_since is None:
                    self._locked_since = now
                if now - self._locked_since > self._lease / 2:
                    raise
                self._logger.warning("topic %r: no messages could be taken, trying again: %s", self._queue.topic, exc)
                return False
            self._locked_since = None
            self._held.update((delivery.handle.message, delivery) for delivery in self._buffer)
            self._eager = bool(self._buffer)
        return True

    async def _stop_taking(self) -> None:
        try:
            await self._finish_taking(CLOSE_SECONDS)
        except LapelError as exc:
            self._logger.debug("topic %r: %s", self._queue.topic, exc)

    async def _unload(self, count: int) -> list[Delivery]:
        """Return messages taken earlier, each with most of its lease ahead."""
        now = self._loop.time()
        if now - self._taken_at > self._lease / 4:
            await self.extend(self._buffer)
            self._taken_at = now
            self._buffer = [item for item in self._buffer if self._held.get(item.handle.message) is item]
        batch, self._buffer = self._buffer[:count], self._buffer[count:]
        return batch

    def _lanes(self) -> set[str]:
        if self._queue.ordering is not Ordering.KEY:
            return set()
        return {delivery.key for delivery in self._held.values() if delivery.key is not None}

    def _forget(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            if self._held.get(delivery.handle.message) is delivery:
                del self._held[delivery.handle.message]


def _verdicts(deliveries: Iterable[Delivery]) -> list[Verdict]:
    return [Verdict(delivery.handle, delivery.key) for delivery in deliveries]
