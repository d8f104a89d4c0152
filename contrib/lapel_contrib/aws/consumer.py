"""Messages of a queue in the hands of the dispatcher."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from lapel.delivery import Consumer, Delivery, Settled, Settlement
from lapel.errors import ClosedError, LapelError, ThrottledError

from .queue import Queue, Refused, is_passing
from .reader import Message, QueueReader

__all__ = ["QueueConsumer"]

T = TypeVar("T")
LONGEST_VISIBILITY = 43_200
"""Seconds for which SQS keeps a message invisible at most, counted from when it was received."""
SETTLE_TRIES = 4
CLOSE_SECONDS = 3.0


class QueueConsumer(Consumer):
    """Takes messages of one topic from a reader.

    Its lease is the visibility timeout, which the dispatcher renews from receipt to settlement. Settlements that were
    refused for a passing reason are sent again, for repeating them does no harm and nobody above does it; what is not
    settled in the end comes again. `limit` is how many messages are held at most. `dead_letter` moves messages to the
    queue for those, where there is one; without it they are left to the redrive policy of the queue.
    """

    def __init__(
        self,
        reader: QueueReader,
        topic: str,
        make: Callable[[Message], Delivery],
        *,
        logger: logging.Logger,
        limit: int | None = None,
        dead_letter: Callable[[Sequence[Message]], Awaitable[Refused]] | None = None,
    ) -> None:
        self.lease_seconds = float(reader.visibility)
        self._reader = reader
        self._topic = topic
        self._make = make
        self._logger = logger
        self._limit = limit
        self._dead_letter = dead_letter
        self._loop = asyncio.get_running_loop()
        self._paused = False
        self._changed = asyncio.Event()
        self._stop: asyncio.Future[None] = self._loop.create_future()
        self._held: dict[Delivery, Message] = {}
        self._closed = False
        reader.join(topic)

    @property
    def queue(self) -> Queue:
        """The queue that it reads."""
        return self._reader.queue

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        end = self._loop.time() + max_wait
        while not self._closed and (self._paused or self._room(max_messages) <= 0):
            if (left := end - self._loop.time()) <= 0:
                return ()
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
        self._check_open()
        messages = await self._reader.take(
            self._topic, self._room(max_messages), end - self._loop.time(), stop=self._stop
        )
        if not messages:
            self._check_open()
        deliveries = []
        for message in messages:
            delivery = self._make(message)
            self._held[delivery] = message
            deliveries.append(delivery)
        return deliveries

    async def pause(self) -> None:
        self._paused = True
        self._end_receive()

    async def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._stop = self._loop.create_future()
            self._changed.set()

    async def settle(self, settled: Sequence[Settled]) -> None:
        done: list[Message] = []
        again: list[tuple[Message, int]] = []
        dead: list[Message] = []
        for each in settled:
            message = self._held.pop(each.delivery, None)
            if message is None:
                continue
            if each.settlement is Settlement.ACK:
                done.append(message)
            elif each.settlement is Settlement.DEAD_LETTER and self._dead_letter is not None:
                dead.append(message)
            else:
                again.append((message, min(math.ceil(each.delay), LONGEST_VISIBILITY)))
        results = await asyncio.gather(
            self._delete(done), self._return(again), self._bury(dead), return_exceptions=True
        )
        for message in (*done, *dead, *(each for each, _ in again)):
            self._reader.finish(message)
        self._changed.set()
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            raise errors[0]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        now = self._loop.time()
        lost: list[Delivery] = []
        held: list[tuple[Delivery, Message]] = []
        for each in deliveries:
            if (message := self._held.get(each)) is not None:
                # SQS may still take a receipt of a message that others have by now.
                (lost.append(each) if message.until <= now else held.append((each, message)))
        refused: Refused = {}
        if held:
            handles = [(message.handle, self._reader.visibility) for _, message in held]
            refused = await self.queue.set_visibility(handles)
        for number, (_, message) in enumerate(held):
            if number not in refused:
                message.until = now + self._reader.visibility
        if any(is_passing(error) for error in refused.values()):
            # Those that were renewed are renewed once more; the dispatcher asks again soon.
            raise ThrottledError(f"{self.queue.place}: {len(refused)} of {len(held)} messages were not kept")
        lost += [held[number][0] for number in refused]
        for each in lost:
            message = self._held.pop(each, None)
            if message is None:
                # Settled or released meanwhile.
                continue
            # It comes again, and what waits behind it must not overtake it.
            await self._reader.give_way(message)
            self._reader.finish(message)
        self._changed.set()
        return lost

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        messages = [message for each in deliveries if (message := self._held.pop(each, None)) is not None]
        await self._return([(message, 0) for message in messages])
        for message in messages:
            self._reader.finish(message)
        self._changed.set()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._end_receive()
        self._changed.set()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.release([*self._held])
        except (LapelError, TimeoutError) as exc:
            self._logger.warning("%s: messages were not handed back: %s", self.queue.name, exc)
        finally:
            await self._reader.leave(self._topic)

    def _room(self, wanted: int) -> int:
        return wanted if self._limit is None else min(wanted, self._limit - len(self._held))

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.queue.place}: the consumer is closed")

    def _end_receive(self) -> None:
        if not self._stop.done():
            self._stop.set_result(None)

    async def _delete(self, messages: Sequence[Message]) -> None:
        async def send(some: Sequence[Message]) -> Refused:
            return await self.queue.delete([message.handle for message in some])

        for message in await self._persist("deleted", messages, send):
            # It is in other hands by now, and so is its group.
            await self._reader.give_way(message)

    async def _return(self, messages: Sequence[tuple[Message, int]]) -> None:
        for message, _ in messages:
            await self._reader.give_way(message)

        async def send(some: Sequence[tuple[Message, int]]) -> Refused:
            return await self.queue.set_visibility([(message.handle, seconds) for message, seconds in some])

        await self._persist("handed back", messages, send)

    async def _bury(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        assert self._dead_letter is not None
        refused = await self._dead_letter(messages)
        for number, error in refused.items():
            self._logger.warning("%s: a message was not moved to the dead-letter queue: %s", self.queue.name, error)
            await self._return([(messages[number], 1)])
        await self._delete([message for number, message in enumerate(messages) if number not in refused])

    async def _persist(
        self, what: str, entries: Sequence[T], send: Callable[[Sequence[T]], Awaitable[Refused]]
    ) -> list[T]:
        """Send entries until none is refused for a passing reason, at most `SETTLE_TRIES` times.

        Returns those that were refused because they are not ours any more.
        """
        left = list(entries)
        lost: list[T] = []
        for number in range(1, SETTLE_TRIES + 1):
            if not left:
                return lost
            try:
                refused = await send(left)
            except LapelError as exc:
                if not is_passing(exc) or number == SETTLE_TRIES:
                    raise
                refused = dict.fromkeys(range(len(left)), exc)
            for index, error in refused.items():
                if not is_passing(error):
                    # The receipt has expired: somebody else has the message now, or nobody any more.
                    self._logger.info("%s: a message was not %s: %s", self.queue.name, what, error)
                    lost.append(left[index])
            left = [left[index] for index, error in refused.items() if is_passing(error)]
            if left and number < SETTLE_TRIES:
                await asyncio.sleep(0.05 * 2**number * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load only
        if left:
            self._logger.warning("%s: %d messages were not %s; they come again", self.queue.name, len(left), what)
        return lost
