"""What waits in a reader of SQS keeps the order of its group, also when messages are lost to other consumers."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from lapel.delivery import Delivery, Settled, Settlement
from lapel.errors import InvalidArgumentError
from lapel_contrib.aws.consumer import QueueConsumer
from lapel_contrib.aws.queue import Queue, Refused
from lapel_contrib.aws.reader import Message, QueueReader

EXPIRED = InvalidArgumentError("the receipt handle has expired")


class ScriptedQueue:
    """Hands out `ready`, refuses the receipts in `expired`, and notes what was handed back and deleted."""

    def __init__(self, *, fifo: bool = True) -> None:
        self.name = "orders.fifo" if fifo else "orders"
        self.place = f"SQS queue {self.name!r}"
        self.fifo = fifo
        self.ready: deque[list[dict[str, Any]]] = deque()
        self.expired: set[str] = set()
        self.renewed = 0
        self.back: list[str] = []
        self.deleted: list[str] = []
        self.silent = False

    async def receive(self, count: int, *, wait: int, visibility: int) -> list[dict[str, Any]]:
        if self.ready:
            return self.ready.popleft()
        await asyncio.sleep(0.01)
        return []

    async def set_visibility(self, handles: Sequence[tuple[str, int]]) -> Refused:
        if self.silent:
            await asyncio.Event().wait()
        self.renewed += any(seconds for _, seconds in handles)
        self.back += [handle for handle, seconds in handles if not seconds]
        return self._refused([handle for handle, _ in handles])

    async def delete(self, handles: Sequence[str]) -> Refused:
        self.deleted += [handle for handle in handles if handle not in self.expired]
        return self._refused(handles)

    def _refused(self, handles: Sequence[str]) -> Refused:
        return {number: EXPIRED for number, handle in enumerate(handles) if handle in self.expired}


def message(text: str) -> dict[str, Any]:
    return {"ReceiptHandle": text, "Body": text, "Attributes": {"MessageGroupId": text.partition("-")[0]}}


@asynccontextmanager
async def reading(queue: ScriptedQueue, *, visibility: int = 30) -> AsyncIterator[tuple[QueueReader, QueueConsumer]]:
    reader = QueueReader(
        cast("Queue", queue),
        visibility=visibility,
        wait=1,
        most=10,
        topic_of=lambda _: "orders",
        pause_after=lambda _: 0.01,
        logger=logging.getLogger("lapel.test"),
        unused=lambda _: None,
    )
    consumer = QueueConsumer(
        reader,
        "orders",
        lambda each: Delivery(handle=each, topic="orders", data=each.body.encode(), metadata={}, attempt=each.attempt),
        logger=logging.getLogger("lapel.test"),
    )
    try:
        yield reader, consumer
    finally:
        await consumer.close()
        await reader.close()


async def texts(consumer: QueueConsumer, count: int, wait: float = 1.0) -> list[str]:
    return [each.data.decode() for each in await consumer.receive(count, wait)]


async def test_a_group_gives_one_message_at_a_time() -> None:
    queue = ScriptedQueue()
    queue.ready.append([message(text) for text in ("a-1", "a-2", "b-1", "a-3")])
    async with reading(queue) as (_, consumer):
        first = await consumer.receive(10, 1.0)
        assert [each.data for each in first] == [b"a-1", b"b-1"]
        assert await texts(consumer, 10, 0.05) == []
        await consumer.settle([Settled(first[0], Settlement.ACK)])
        assert await texts(consumer, 10) == ["a-2"]


async def test_a_queue_without_an_order_gives_all() -> None:
    queue = ScriptedQueue(fifo=False)
    queue.ready.append([message(text) for text in ("a-1", "a-2", "b-1")])
    async with reading(queue) as (_, consumer):
        assert await texts(consumer, 10) == ["a-1", "a-2", "b-1"]


@pytest.mark.parametrize("settlement", [Settlement.ACK, Settlement.RETRY])
async def test_a_message_that_others_have_takes_those_behind_it_along(settlement: Settlement) -> None:
    queue = ScriptedQueue()
    queue.ready.append([message(text) for text in ("a-1", "a-2", "b-1", "b-2", "a-3")])
    async with reading(queue) as (_, consumer):
        first, other = await consumer.receive(2, 1.0)
        queue.expired.add("a-1")
        await consumer.settle([Settled(first, settlement), Settled(other, Settlement.ACK)])
        assert queue.back[:2] == ["a-2", "a-3"]
        assert await texts(consumer, 10) == ["b-2"]
        assert queue.deleted == ["b-1"]


async def test_a_waiting_message_that_others_have_takes_those_behind_it_along() -> None:
    queue = ScriptedQueue()
    queue.ready.append([message(text) for text in ("a-1", "a-2", "a-3", "b-1", "b-2")])
    async with reading(queue, visibility=1) as (_, consumer):
        first, other = await consumer.receive(2, 1.0)
        queue.expired.add("a-2")
        async with asyncio.timeout(5):
            while "a-3" not in queue.back:
                await asyncio.sleep(0.01)
        await consumer.settle([Settled(first, Settlement.ACK), Settled(other, Settlement.ACK)])
        assert await texts(consumer, 10) == ["b-2"]
        assert queue.renewed
        assert "a-2" not in queue.back


async def test_closing_ends_also_when_the_queue_does_not_answer() -> None:
    queue = ScriptedQueue()
    queue.ready.append([message("a-1"), message("a-2")])
    before = asyncio.all_tasks()
    async with reading(queue) as (reader, consumer):
        assert await texts(consumer, 1) == ["a-1"]
        queue.silent = True
        async with asyncio.timeout(10):
            await reader.close()
        assert asyncio.all_tasks() == before
        queue.silent = False


def test_a_message_knows_its_group_and_attempt() -> None:
    raw = message("a-1")
    raw["Attributes"]["ApproximateReceiveCount"] = "3"
    made = Message(raw, 10.0, 30)
    assert (made.group, made.attempt, made.until) == ("a", 3, 40.0)
