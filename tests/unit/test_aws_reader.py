"""What waits in a reader of SQS keeps the order of its group, also when messages are lost to other consumers.

A topic that is slow or paused makes the others of its queue wait, and its messages are received once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from lapel.delivery import Delivery, Settled, Settlement
from lapel.errors import InvalidArgumentError
from lapel_contrib.aws.consumer import QueueConsumer
from lapel_contrib.aws.queue import Queue, Refused
from lapel_contrib.aws.reader import SHELF_FULL, Message, QueueReader

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
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.asked = 0

    async def receive(self, count: int, *, wait: int, visibility: int) -> list[dict[str, Any]]:
        self.asked += 1
        if self.ready:
            return self.ready.popleft()
        await asyncio.sleep(0.01)
        return []

    async def set_visibility(self, handles: Sequence[tuple[str, int]]) -> Refused:
        if self.silent:
            await asyncio.Event().wait()
        if self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            await work()
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
        topic_of=lambda each: "bills" if each.body.startswith("bill") else "orders",
        pause_after=lambda _: 0.01,
        logger=logging.getLogger("lapel.test"),
        unused=lambda _: None,
    )
    consumer = consumer_of(reader, "orders")
    try:
        yield reader, consumer
    finally:
        await consumer.close()
        await reader.close()


def consumer_of(reader: QueueReader, topic: str) -> QueueConsumer:
    return QueueConsumer(
        reader,
        topic,
        lambda each: Delivery(handle=each, topic=topic, data=each.body.encode(), metadata={}, attempt=each.attempt),
        logger=logging.getLogger("lapel.test"),
    )


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


async def test_a_message_settled_while_its_lease_is_refused_is_no_loss() -> None:
    queue = ScriptedQueue()
    queue.ready.append([message("a-1"), message("b-1")])
    async with reading(queue) as (_, consumer):
        first, other = await consumer.receive(2, 1.0)
        queue.expired.update(("a-1", "b-1"))
        queue.meanwhile = lambda: consumer.settle([Settled(each, Settlement.ACK) for each in (first, other)])
        assert await consumer.extend([first, other]) == [first, other]
        assert await consumer.extend([first, other]) == []


def test_a_message_knows_its_group_and_attempt() -> None:
    raw = message("a-1")
    raw["Attributes"]["ApproximateReceiveCount"] = "3"
    made = Message(raw, 10.0, 30)
    assert (made.group, made.attempt, made.until) == ("a", 3, 40.0)


def batches(name: str, count: int) -> list[list[dict[str, Any]]]:
    """Return so many replies of ten messages each, every message in a group of its own."""
    return [[message(f"{name}{10 * batch + number}-1") for number in range(10)] for batch in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("fifo", [False, True])
async def test_what_a_slow_topic_has_not_taken_is_kept_for_it_and_received_once(fifo: bool) -> None:
    queue = ScriptedQueue(fifo=fifo)
    queue.ready.extend(batches("order", 30))
    async with reading(queue, visibility=1) as (reader, consumer):
        other = consumer_of(reader, "bills")
        waiting = asyncio.create_task(other.receive(10, 60.0))
        # As long as a message has to be kept so that any bound on that would show.
        await until(lambda: queue.renewed >= 12)
        received = 300 - 10 * len(queue.ready)
        assert SHELF_FULL <= received <= SHELF_FULL + 40
        assert queue.asked == received // 10
        assert queue.back == []
        taken: list[str] = []
        while len(taken) < 300:
            found = await consumer.receive(7, 1.0)
            taken += [each.data.decode() for each in found]
            await consumer.settle([Settled(each, Settlement.ACK) for each in found])
        assert len(set(taken)) == 300
        assert queue.back == []
        queue.ready.append([message("bill-1")])
        assert [each.data for each in await waiting] == [b"bill-1"]
        await other.close()


async def test_the_others_go_on_when_a_slow_topic_has_taken_some_or_leaves() -> None:
    queue = ScriptedQueue(fifo=False)
    queue.ready.extend(batches("order", 2))
    async with reading(queue) as (reader, consumer):
        other = consumer_of(reader, "bills")
        assert await texts(other, 10, 0.1) == []
        asked = queue.asked
        queue.ready.extend([[message("bill-1")], *batches("order", 2), [message("bill-2")]])
        assert await texts(other, 1, 0.1) == []
        assert queue.asked == asked
        waiting = asyncio.create_task(texts(other, 1, 10.0))
        assert len(await texts(consumer, 5)) == 5
        assert await waiting == ["bill-1"]
        waiting = asyncio.create_task(texts(other, 1, 10.0))
        await until(lambda: len(queue.ready) == 2)
        await consumer.close()
        assert await waiting == ["bill-2"]
        await other.close()


async def test_what_waits_behind_a_message_in_hand_makes_nobody_else_wait() -> None:
    queue = ScriptedQueue()
    queue.ready.append([message(f"a-{number}") for number in range(SHELF_FULL + 10)])
    async with reading(queue) as (_, consumer):
        assert await texts(consumer, 1) == ["a-0"]
        queue.ready.append([message("b-1")])
        assert await texts(consumer, 10) == ["b-1"]
