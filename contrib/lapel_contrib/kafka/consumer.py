"""One subscription: its share of the messages that a member of the group takes in."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence, Set
from typing import TYPE_CHECKING

import msgspec
from aiokafka.structs import ConsumerRecord
from typing_extensions import override

from lapel.delivery import Consumer, Delivery, Ordering, Revoked, Settled, Settlement
from lapel.errors import UnavailableError

from .partition import Partition
from .records import NULL, Reading, RecordMetadata, content_type_of

if TYPE_CHECKING:
    from .member import Member

__all__ = ["Handle", "KafkaConsumer", "note_rivals"]


class Handle(msgspec.Struct, frozen=True):
    """What a delivery refers to."""

    partition: Partition
    record: ConsumerRecord


class KafkaConsumer(Consumer):
    """Receives from the partitions of `topics` that the member of the group was given.

    Settling returns at once: the finished beginning of each partition is committed soon after, at the latest when the
    partition is taken away or this consumer closes. Consumers of one member share its messages; with an order kept, a
    partition is one consumer's until nothing of it is in hand.
    """

    redelivers = False

    def __init__(
        self, member: Member, topics: frozenset[str], *, ordering: Ordering, revoked: Revoked | None, reading: Reading
    ) -> None:
        self.topics = topics
        self.ordering = ordering
        self.rivals = False
        """Whether others take from the same topics, and an order is to be kept by them or by us."""
        self.on_revoked = revoked
        self._member = member
        self._reading = reading
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._closing is not None

    @property
    def gone(self) -> bool:
        """Whether all of `close` is done."""
        return self._closing is not None and self._closing.done()

    @override
    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        end = loop.time() + max_wait
        while True:
            if self._closing is not None:
                raise UnavailableError("the consumer is closed")
            if self._member.failure is not None:
                raise self._member.failure
            if not self._paused and (found := self._take(max_messages)):
                return found
            left = end - loop.time()
            if left <= 0:
                return ()
            self._waiter = loop.create_future()
            try:
                await asyncio.wait((self._waiter,), timeout=left)
            finally:
                self._waiter = None

    def _take(self, most: int) -> list[Delivery]:
        found: list[Delivery] = []
        for partition in self._member.partitions_of(self):
            if partition.revoking:
                continue
            blocked = self._blocked(partition) if self.rivals and partition.held else ()
            if blocked is None:
                continue
            records = partition.take(most - len(found), blocked)
            if records:
                held = partition.held
                for record in records:
                    delivery = self._delivery(partition, record)
                    held[record.offset] = (self, delivery)
                    found.append(delivery)
            if len(found) >= most:
                break
        if found:
            self._member.taken()
        return found

    def _blocked(self, partition: Partition) -> Collection[bytes] | None:
        """Return the keys that others have in hand and that we must not mix in; None when all of it is theirs."""
        keys: set[bytes] = set()
        for holder, delivery in partition.held.values():
            if holder is not self:
                if Ordering.ALL in (self.ordering, holder.ordering):
                    return None
                if Ordering.KEY in (self.ordering, holder.ordering) and delivery.handle.record.key is not None:
                    keys.add(delivery.handle.record.key)
        return keys

    def _delivery(self, partition: Partition, record: ConsumerRecord) -> Delivery:
        value, key = record.value, record.key
        return Delivery(
            Handle(partition, record),
            record.topic,
            NULL if value is None else value,
            RecordMetadata(record, self._reading),
            content_type_of(record) if record.headers else None,
            None if key is None else key.decode("utf-8", "replace"),
        )

    def wake(self) -> None:
        """Look again for messages."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @override
    async def settle(self, settled: Sequence[Settled]) -> None:
        late = 0
        for one in settled:
            handle: Handle = one.delivery.handle
            partition = handle.partition
            if partition.lost:
                late += 1
            elif one.settlement is Settlement.ACK:
                partition.finish(handle.record.offset)
            else:
                partition.give_back(handle.record)
        if late:
            self._member.logger.info(
                "%d messages were finished after their partitions had gone to another member of group %r; they are "
                "delivered there again",
                late,
                self._member.group,
            )
        self._member.settled(self)

    @override
    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            handle: Handle = delivery.handle
            if not handle.partition.lost:
                handle.partition.give_back(handle.record)
        self._member.returned(self)

    @override
    async def pause(self) -> None:
        self._paused = True

    @override
    async def resume(self) -> None:
        self._paused = False
        self.wake()

    @override
    async def lag(self) -> int | None:
        return await self._member.lag(self)

    @override
    def measurements(self) -> Mapping[str, int]:
        return self._member.measurements(self)

    @override
    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._member.detach(self), name="lapel leave Kafka group")
            self.wake()
        await asyncio.shield(self._closing)


def note_rivals(consumers: Set[KafkaConsumer]) -> None:
    """Tell each consumer of a member whether it has to look at what others hold."""
    for one in consumers:
        one.rivals = any(
            not one.topics.isdisjoint(other.topics)
            and (one.ordering is not Ordering.NONE or other.ordering is not Ordering.NONE)
            for other in consumers
            if other is not one
        )
