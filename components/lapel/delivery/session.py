"""One consumer at work: its receive loop, its settlements in batches, its leases, and the watch over all of them."""

from __future__ import annotations

import asyncio
import time
from asyncio import Future, Task
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any

from ..errors import LapelError, UnavailableError
from .consumer import Consumer
from .dispatcher import Dispatcher
from .schedule import RUNNING, Held
from .types import Delivery, Settled

__all__ = ["CLOSE_SECONDS", "Session", "describe"]

CLOSE_SECONDS = 5.0
"""How long releasing, flushing and closing may take, each."""

SETTLE_SECONDS = 10.0
_EMPTY_PAUSE = 0.01


class Session:
    """The time during which one consumer feeds the dispatcher.

    `ended` is done when it cannot go on: with the error, or None when the source came to its end. `max_wait` is how
    long one `receive` may find nothing; one that takes `margin` seconds longer is a stall and ends the session.
    `on_tick` is called every `max_wait` seconds.
    """

    def __init__(
        self,
        consumer: Consumer,
        dispatcher: Dispatcher,
        *,
        max_wait: float,
        margin: float,
        on_tick: Callable[[], None] | None = None,
    ) -> None:
        self.consumer = consumer
        self.redelivers = consumer.redelivers
        self.held: dict[Delivery, Held] = {}
        self.progress: float | None = None
        self.ended: Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._dispatcher = dispatcher
        self._loop = asyncio.get_running_loop()
        self._logger = dispatcher.logger
        self._lease = consumer.lease_seconds
        self._max_wait = max_wait
        self._margin = margin
        self._on_tick = on_tick
        self._receiving_since: float | None = None
        self._settling_since: float | None = None
        self._outbox: list[Settled] = []
        self._outbox_waiter: Future[None] | None = None
        self._sending = 0
        self._closed = False
        self._stopping = False
        self._tasks: list[Task[Any]] = []
        self._receiver: Task[None] | None = None
        self._next_tick = 0.0
        self._timer: asyncio.TimerHandle | None = None

    clock = staticmethod(time.time)

    def lease_until(self) -> float:
        """Return when the lease of a delivery that arrives now ends, in the loop's time."""
        return self._loop.time() + self._lease if self._lease else 0.0

    def start(self) -> None:
        """Begin to receive."""
        self._receiver = self._task(self._receive(), "receive")
        self._tasks = [self._receiver, self._task(self._send(), "settle")]
        if self._lease:
            self._tasks.append(self._task(self._keep(self._lease), "lease"))
        for task in self._tasks:
            task.add_done_callback(self._task_ended)
        self._schedule_tick()

    def settle(self, settled: Settled) -> None:
        """Hand over the end of a delivery. It is sent with all others of this turn of the event loop."""
        self.held.pop(settled.delivery, None)
        self._outbox.append(settled)
        waiter = self._outbox_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the session with an error."""
        if not self.ended.done():
            self.ended.set_result(error)

    async def stop_receiving(self) -> None:
        """Take in nothing further."""
        self._stopping = True
        if self._receiver is not None and not self._receiver.done():
            self._receiver.cancel()
            await asyncio.wait((self._receiver,), timeout=CLOSE_SECONDS)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand deliveries back; a failure is logged only, for the broker takes them back anyway in the end."""
        if not deliveries:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.consumer.release(deliveries)
        except Exception as exc:
            self._logger.warning("%s: could not hand back messages: %s", self._dispatcher.name, describe(exc))

    async def flush(self, seconds: float) -> None:
        """Wait until the settlements so far have been sent, at most this long."""
        end = self._loop.time() + seconds
        while (self._outbox or self._sending) and not self.ended.done() and self._loop.time() < end:
            watcher = self._dispatcher.watcher()
            await asyncio.wait((watcher,), timeout=end - self._loop.time())

    async def close(self) -> None:
        """Close the consumer. Nothing is settled after that. Bounded, never raises."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.consumer.close()
        except Exception as exc:
            self._logger.warning("%s: closing the consumer failed: %s", self._dispatcher.name, describe(exc))

    def _task(self, work: Coroutine[Any, Any, None], what: str) -> Task[None]:
        # An empty context, for what a consumer does belongs to no single caller's trace.
        return self._loop.create_task(work, name=f"lapel {what} {self._dispatcher.name}", context=Context())

    # the loops

    async def _receive(self) -> None:
        dispatcher, loop, consumer = self._dispatcher, self._loop, self.consumer
        receive, max_wait = consumer.receive, self._max_wait
        while True:
            while not dispatcher.ready_for_more() or len(self._outbox) + self._sending > dispatcher.capacity:
                dispatcher.room_waiter = loop.create_future()
                try:
                    await dispatcher.room_waiter
                finally:
                    dispatcher.room_waiter = None
            began = self._receiving_since = loop.time()
            deliveries = await receive(dispatcher.room(), max_wait)
            if self._closed:
                return
            self._receiving_since = None
            self.progress = loop.time()
            if deliveries:
                dispatcher.accept(self, deliveries)
            elif consumer.ends:
                return
            elif self.progress - began < max_wait / 2:
                # A source that returns nothing at once would keep the processor busy.
                await asyncio.sleep(_EMPTY_PAUSE)

    async def _send(self) -> None:
        loop, consumer, dispatcher = self._loop, self.consumer, self._dispatcher
        while True:
            if not self._outbox:
                self._outbox_waiter = loop.create_future()
                await self._outbox_waiter
                self._outbox_waiter = None
            batch, self._outbox = self._outbox, []
            self._sending = len(batch)
            self._settling_since = loop.time()
            try:
                await consumer.settle(batch)
            except Exception as exc:
                self._logger.warning(
                    "%s: %d settlements failed, the messages will come again: %s",
                    dispatcher.name,
                    len(batch),
                    describe(exc),
                )
                if self._lease is None:
                    # Without a lease only a new consumer brings them back.
                    self.fail(exc)
            finally:
                self._sending = 0
                self._settling_since = None
                dispatcher.make_room()

    async def _keep(self, lease: float) -> None:
        dispatcher, loop = self._dispatcher, self._loop
        pause = lease / 3
        while True:
            await asyncio.sleep(pause)
            if not self.held:
                continue
            began = loop.time()
            lost: Sequence[Delivery] = ()
            held = list(self.held.values())
            try:
                async with asyncio.timeout(pause):
                    lost = await self.consumer.extend([item.delivery for item in held])
                for item in held:
                    item.lease_until = began + lease
                pause = lease / 3
            except Exception as exc:
                self._logger.warning("%s: leases could not be extended: %s", dispatcher.name, describe(exc))
                pause = lease / 12
                lost = [item.delivery for item in held if item.lease_until <= loop.time()]
            back: list[Delivery] = []
            for item in filter(None, map(self.held.get, lost)):
                self._logger.warning(
                    "%s: the lease of a message ran out or was taken away, it will be delivered again%s",
                    dispatcher.name,
                    "; its handler is running" if item.phase == RUNNING else "",
                )
                back += dispatcher.lose(item)
            await self.release(back)

    # the watch

    def _task_ended(self, task: Task[None]) -> None:
        if task.cancelled():
            if not self._closed and not (self._stopping and task is self._receiver):
                self.fail(UnavailableError("a task of the subscription was cancelled"))
            return
        error = task.exception()
        if error is None:
            if not self.ended.done():
                self.ended.set_result(None)
        elif isinstance(error, Exception):
            self.fail(error)
        else:
            self.fail(UnavailableError(f"the consumer raised {type(error).__name__}"))

    def _schedule_tick(self) -> None:
        self._next_tick = self._loop.time() + self._max_wait
        self._timer = self._loop.call_at(self._next_tick, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        late = now - self._next_tick
        if self._on_tick is not None:
            self._on_tick()
        # When the loop itself was blocked, nobody had a chance to make progress.
        if late < self._margin / 2:
            since = self._receiving_since
            if since is not None and now - since > self._max_wait + self._margin:
                self.fail(UnavailableError(f"receive did not return for {now - since:.3g} s"))
            since = self._settling_since
            if since is not None and now - since > SETTLE_SECONDS:
                self.fail(UnavailableError(f"settle did not return for {now - since:.3g} s"))
        self._schedule_tick()


def describe(error: BaseException) -> str:
    """Return an error in words for logs and health: its text if it is one of ours, else only its class.

    What an SDK writes into its own errors may hold a secret.
    """
    return str(error) if isinstance(error, LapelError) else f"the driver raised {type(error).__name__}"
