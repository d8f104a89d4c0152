"""The consumer of one queue, on a channel of its own."""

from __future__ import annotations

import asyncio
from asyncio import Future, Task, TimerHandle
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from uuid import uuid4

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.commands import Basic
from typing_extensions import override

from lapel.delivery import Consumer, Delivery, Settled, Settlement
from lapel.errors import ClosedError, LapelError, UnavailableError

from .connection import Connection
from .errors import translating
from .ledger import Ledger

__all__ = ["GROWTH", "QueueTerms", "RabbitConsumer"]

STUCK_SECONDS = 0.2
"""How long a consumer whose handlers have room waits for a message before it asks for more than it holds."""

_LONGEST_TAG = 255
GROWTH = 12
"""How many times its prefetch a consumer may hold, counting messages that wait for a retry."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class QueueTerms:
    """How a queue is consumed. `make` turns what came into a delivery, whose handle must be the delivery tag.

    `prefetch` is how many messages the broker hands out before some are settled; with `grows` more when messages that
    wait for a retry use it up. With `counted` the broker counts returns, so a retry goes back to it. `place` names the
    broker.

    `auto_delete`: the queue goes with its last consumer, so leaving would destroy it. `single_active`: as soon as this
    consumer leaves another one begins, so it must first have finished; what it hands back goes all at once, in order,
    when it closes.
    """

    queue: str
    place: str
    prefetch: int
    make: Callable[[DeliveredMessage], Delivery]
    grows: bool = True
    counted: bool = False
    auto_delete: bool = False
    single_active: bool = False
    auto_ack: bool = False

    @property
    def stays(self) -> bool:
        """Whether it remains a consumer of the queue until it closes."""
        return self.auto_delete or self.single_active


class RabbitConsumer(Consumer):
    """Takes messages while somebody receives, and no more than there is room for.

    The queue and its bindings are there from the beginning, so nothing is missed; it is consumed from the first
    `receive` on, or from `arm` on where it goes with its last consumer. To pause, and to hand back, this one leaves the
    queue's consumers, so that others get the messages. What is wrong with the channel ends it: closing a channel is
    what surely removes a consumer.
    """

    def __init__(
        self,
        connection: Connection,
        channel: Channel,
        terms: QueueTerms,
        *,
        closed: Callable[[RabbitConsumer], None],
    ) -> None:
        self.redelivers = terms.counted and not terms.auto_ack
        self._connection = connection
        self._channel = channel
        self._terms = terms
        self._on_closed = closed
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Delivery] = deque()
        self._unsettled = Ledger()
        self._timers: dict[int, TimerHandle] = {}
        self._expiries: dict[int, float] = {}
        self._waiter: Future[None] | None = None
        self._tag: str | None = None
        self._changing: Task[None] | None = None
        self._wanted = False
        self._paused = False
        self._error: LapelError | None = None
        self._closing: Task[None] | None = None
        self._looking: Task[None] | None = None
        channel.on_consumer_cancel_callbacks.add(self._cancelled)
        channel.closing.add_done_callback(self._channel_ended)

    async def arm(self) -> None:
        """Become one of the queue's consumers now where the queue would not outlive the others.

        Raises what `receive` would.
        """
        if self._terms.auto_delete:
            self._join()
            while self._is_changing():
                await asyncio.shield(cast("Task[None]", self._changing))
            if self._error is not None:
                raise self._error

    @override
    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        if self._error is not None:
            raise self._error
        if not self._ready or self._paused:
            await self._wait(max_wait)
            if self._error is not None:
                raise self._error
            if self._paused:
                return ()
        # From here on nothing waits: what is taken must reach the caller.
        count = min(max_messages, len(self._ready))
        taken = [self._ready.popleft() for _ in range(count)]
        if self._expiries:
            taken = await self._without_late(taken)
        if taken and self._terms.auto_ack:
            await self._acknowledge({delivery.handle for delivery in taken}, wait=False)
        return taken

    @override
    async def settle(self, settled: Sequence[Settled]) -> None:
        if self._terms.auto_ack:
            return
        if self._error is not None:
            raise self._error
        done: set[int] = set()
        for each in settled:
            tag = each.delivery.handle
            if tag not in self._unsettled:
                continue
            if each.settlement is Settlement.ACK:
                done.add(tag)
            elif each.settlement is Settlement.DEAD_LETTER:
                await self._return([tag], requeue=False)
            elif each.delay > 0:
                self._timers[tag] = self._loop.call_later(each.delay, self._due, tag)
            else:
                await self._return([tag], requeue=True)
        if done:
            await self._acknowledge(done, wait=True)

    @override
    async def release(self, deliveries: Sequence[Delivery]) -> None:
        if self._terms.auto_ack or self._error is not None or self._terms.single_active:
            return
        await self._leave()
        await self._return([delivery.handle for delivery in deliveries], requeue=True)
        self._join_if_awaited()

    @override
    async def pause(self) -> None:
        self._paused = True
        await self._leave()

    @override
    async def resume(self) -> None:
        self._paused = False
        if self._ready:
            self._wake()
        self._join_if_awaited()

    @override
    async def lag(self) -> int | None:
        if self._error is not None:
            raise self._error
        return await self._uninterrupted(self._count()) + len(self._ready)

    @override
    async def close(self) -> None:
        if self._closing is None:
            self._closing = self._connection.spawn(self._close())
        await asyncio.shield(self._closing)

    # messages

    async def _deliver(self, message: DeliveredMessage) -> None:
        delivery = self._terms.make(message)
        self._unsettled.add(delivery.handle, message.consumer_tag)
        self._ready.append(delivery)
        lifetime = message.header.properties.expiration
        if lifetime and self._terms.stays:
            self._expiries[delivery.handle] = self._loop.time() + int(lifetime) / 1000
        self._wake()

    async def _without_late(self, taken: list[Delivery]) -> list[Delivery]:
        """Leave out what expired while it waited here, where the broker cannot see it."""
        now = self._loop.time()
        late = [delivery.handle for delivery in taken if self._expiries.pop(delivery.handle, now + 1) <= now]
        if not late:
            return taken
        await self._return(late, requeue=False, wait=False)
        return [delivery for delivery in taken if delivery.handle not in late]

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, seconds: float) -> None:
        """Return when something came, when there is an error, or after that time."""
        loop = self._loop
        end = loop.time() + seconds
        self._join()
        while not (self._ready and not self._paused) and self._error is None and (left := end - loop.time()) > 0:
            stuck = self._is_stuck()
            waiter = self._waiter = loop.create_future()
            timer = loop.call_later(min(left, STUCK_SECONDS) if stuck else left, self._wake)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
            if stuck and not self._ready and self._is_stuck():
                self._grow()
        if not self._ready and self._error is None and not self._paused and self._looking is None:
            self._looking = self._connection.spawn(self._look())

    def _is_stuck(self) -> bool:
        """Tell whether all that the broker hands out at once is in the hands of handlers, or waits for a retry."""
        prefetch = self._terms.prefetch
        most = prefetch * GROWTH
        may = self._terms.grows and self._tag is not None
        return may and self._unsettled.current >= prefetch and len(self._unsettled) < most

    async def _acknowledge(self, tags: Collection[int], *, wait: bool) -> None:
        """Settle messages; all up to the first that is still held with one frame."""
        last, count, rest = self._unsettled.settle(tags)
        channel = self._channel
        async with translating(self._terms.place, "acknowledging"):
            if count:
                await channel.basic_ack(last, multiple=count > 1, wait=wait and not rest)
            for tag in rest:
                await channel.basic_ack(tag, wait=wait and tag == rest[-1])

    async def _return(self, tags: Sequence[int], *, requeue: bool, wait: bool = True) -> None:
        held = [tag for tag in tags if tag in self._unsettled]
        async with translating(self._terms.place, "handing back"):
            for tag in held:
                self._unsettled.remove(tag)
                timer = self._timers.pop(tag, None)
                if timer is not None:
                    timer.cancel()
                await self._channel.basic_nack(tag, requeue=requeue, wait=wait and tag == held[-1])

    def _due(self, tag: int) -> None:
        del self._timers[tag]
        self._connection.spawn(self._quietly(self._return([tag], requeue=True)))

    # being one of the queue's consumers

    def _join(self) -> None:
        """Begin to consume, unless that is so or must not be."""
        if not self._paused and self._closing is None:
            self._wanted = True
            self._change()

    def _join_if_awaited(self) -> None:
        if self._waiter is not None:
            self._join()

    async def _leave(self) -> None:
        """Stop consuming, and give back what nobody has asked for yet.

        Some queues are not left. What they hand out stays here until this consumer is closed. Nor is one left that
        somebody joins again meanwhile.
        """
        if self._terms.stays:
            return
        self._wanted = False
        while self._error is None and (self._tag is not None or self._is_changing()):
            self._change()
            if self._changing is not None:
                await asyncio.shield(self._changing)
            if self._wanted:
                return
        waiting = [delivery.handle for delivery in self._ready]
        self._ready.clear()
        await self._return(waiting, requeue=True)

    def _is_changing(self) -> bool:
        return self._changing is not None and not self._changing.done()

    def _grow(self) -> None:
        if not self._is_changing() and self._error is None:
            self._changing = self._connection.spawn(self._quietly(self._regrow()))

    def _change(self) -> None:
        if not self._is_changing() and self._error is None and self._wanted != (self._tag is not None):
            self._changing = self._connection.spawn(self._quietly(self._adjust()))

    async def _adjust(self) -> None:
        """Consume or not, as was wanted last."""
        async with translating(self._terms.place, f"consuming queue {self._terms.queue!r}"):
            while self._wanted != (self._tag is not None):
                if self._tag is None:
                    self._tag = await self._consume()
                else:
                    tag, self._tag = self._tag, None
                    await self._channel.basic_cancel(tag)

    async def _regrow(self) -> None:
        """Replace the consumer by a fresh one, which is handed as much again: the limit of a consumer is fixed."""
        async with translating(self._terms.place, f"consuming queue {self._terms.queue!r}"):
            old = self._tag
            self._tag = await self._consume()
            if old is not None:
                await self._channel.basic_cancel(old)

    async def _consume(self) -> str:
        channel, queue = self._channel, self._terms.queue
        await channel.basic_qos(prefetch_count=self._terms.prefetch)
        # A new name each time. Long ones lose their beginning.
        tag = (f"{queue}-{uuid4()}").encode()[-_LONGEST_TAG:].decode(errors="ignore")
        # Messages may come before the answer does.
        self._unsettled.begin(tag)
        await channel.basic_consume(queue, self._deliver, consumer_tag=tag)
        return tag

    # the watch

    async def _look(self) -> None:
        """Ask, after some silence, whether the queue is there and still knows a consumer."""
        try:
            await self._quietly(self._check())
        finally:
            self._looking = None

    async def _check(self) -> None:
        tag = self._tag
        found = await self._declared()
        if tag is not None and tag == self._tag and not found.consumer_count:
            raise UnavailableError(f"{self._terms.place}: queue {self._terms.queue!r} does not know its consumer")

    async def _count(self) -> int:
        return (await self._declared()).message_count or 0

    async def _declared(self) -> Any:
        async with translating(self._terms.place, f"looking at queue {self._terms.queue!r}"):
            return await self._channel.queue_declare(self._terms.queue, passive=True)

    def _cancelled(self, frame: Basic.CancelOk | Basic.Cancel) -> None:
        self._fail(UnavailableError(f"{self._terms.place}: queue {self._terms.queue!r} was deleted or moved"))

    def _channel_ended(self, future: Future[Any]) -> None:
        if self._closing is None:
            reason = None if future.cancelled() else future.exception()
            text = " ".join(part for part in getattr(reason, "args", ()) if isinstance(part, str))
            self._fail(UnavailableError(f"{self._terms.place}: the channel was closed{f' ({text})' if text else ''}"))

    def _fail(self, error: LapelError) -> None:
        if self._error is None:
            self._error = error
            self._ready.clear()
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
        self._wake()

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except LapelError as exc:
            self._fail(exc)

    async def _uninterrupted(self, work: Coroutine[Any, Any, T]) -> T:
        """Await a call to its end also when the caller does not: a call that is cut short costs the channel."""
        task = self._loop.create_task(work)
        task.add_done_callback(_retrieved)
        return await asyncio.shield(task)

    async def _close(self) -> None:
        self._fail(ClosedError("the consumer is closed"))
        self._on_closed(self)
        self._unsettled.clear()
        await self._connection.discard(self._channel)


def _retrieved(task: Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
