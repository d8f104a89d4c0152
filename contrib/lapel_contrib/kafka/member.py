"""One member of a consumer group: takes in messages, commits what is finished, and lives through rebalances."""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError, Future, Task
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import TopicPartition

from lapel.delivery import Delivery
from lapel.errors import LapelError, UnavailableError

from .arming import Arming
from .clients import start_clients, stop_clients
from .commits import REBALANCE_COMMIT_SECONDS, Commits
from .consumer import KafkaConsumer, note_rivals
from .errors import name_of, translate
from .offsets import Committed, fetch_committed, read_note, start_offsets
from .options import ConsumerOptions
from .partition import Partition
from .producer import KafkaProducer
from .ranges import go_on
from .topics import Topics

__all__ = ["Member"]

_LAST_COMMIT_SECONDS = 1.0
_POLL_MS = 1000
_RANGE_PAUSE = 0.05


class Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """What this component is in one group, for all of its subscriptions there.

    One task polls and never waits for handlers, so that a slow one costs no membership. A rebalance stops the intake,
    leaves handlers some seconds to finish, commits, and drops the rest; a change of our own topics stops nothing.
    `failure` is why nothing more will come; `failed` is then called, and each consumer raises it.
    """

    def __init__(
        self,
        producer: KafkaProducer,
        options: ConsumerOptions,
        group: str,
        *,
        logger: logging.Logger,
        ended: Callable[[Member], None],
    ) -> None:
        self.group = group
        self.logger = logger
        self.failure: LapelError | None = None
        self.rebalances = 0
        self._producer = producer
        self._options = options
        self._ended = ended
        self._client: AIOKafkaConsumer | None = None
        self._arming: Arming | None = None
        self._consumers: set[KafkaConsumer] = set()
        self._attaching = 0
        self._partitions: dict[TopicPartition, Partition] = {}
        self._topics = Topics(self._wanted, self._release)
        self._lock = asyncio.Lock()
        self._commits: Commits | None = None
        self._wake: Future[None] | None = None
        self._full: list[Partition] = []
        self._tasks: list[Task[None]] = []
        self._stopped = False

    # consumers

    async def attach(self, consumer: KafkaConsumer) -> None:
        """Arm a consumer: what is published to its topics from now on reaches the group.

        Does not wait for the group to share out partitions, which may take as long as its slowest handler. Raises
        `UnavailableError` or `PermissionDeniedError`; the consumer must then be detached.
        """
        self._attaching += 1
        try:
            async with self._lock:
                arming = await self._start()
            missing = await arming.arm(consumer.topics)
            if self._stopped or consumer.closing:
                raise UnavailableError(f"{self._place}: the subscription was closed while it was made")
            self._consumers.add(consumer)
            note_rivals(self._consumers)
            self._topics.changed()
            if missing:
                await arming.resolved(missing, lambda: self.failure)
        except KafkaError as exc:
            raise translate(exc, self._place) from None
        finally:
            self._attaching -= 1

    async def detach(self, consumer: KafkaConsumer) -> None:
        """Take a consumer out; what it did not finish is for the others. The last one leaves the group. Bounded."""
        for partition in self._partitions.values():
            for holder, delivery in list(partition.held.values()):
                if holder is consumer:
                    partition.give_back(delivery.handle.record)
        self._consumers.discard(consumer)
        note_rivals(self._consumers)
        self.returned(consumer)
        if self._consumers and self.failure is None and self._commits is not None:
            await self._commits.now(_LAST_COMMIT_SECONDS, joining=True)
            self._topics.changed()
        await self.leave_if_alone()

    async def leave_if_alone(self) -> None:
        """Leave the group when there is no consumer, and none is being attached."""
        async with self._lock:
            if not self._consumers and not self._attaching:
                await self._stop()

    def _wanted(self) -> frozenset[str]:
        return frozenset[str]().union(*(consumer.topics for consumer in self._consumers))

    def _release(self, topics: frozenset[str]) -> frozenset[str]:
        """Let go of topics, but for those of which more is finished than is committed, which are returned."""
        kept = topics.intersection(one.tp.topic for one in self._partitions.values() if one.uncommitted)
        for tp in [tp for tp in self._partitions if tp.topic in topics - kept]:
            self._drop(tp)
        if self._arming is not None:
            self._arming.forget(topics - kept)
        return kept

    def partitions_of(self, consumer: KafkaConsumer) -> Iterable[Partition]:
        """Return the partitions of its topics that we were given, another one first each time."""
        found = [one for tp, one in self._partitions.items() if tp.topic in consumer.topics]
        if len(found) > 1:
            # The order of the dictionary is the turn.
            first = found[0]
            self._partitions[first.tp] = self._partitions.pop(first.tp)
        return found

    def taken(self) -> None:
        """Messages were taken from the buffers: fetch again if there is much room."""
        if self._full and self._wake is not None and not self._wake.done():
            half = self._options.buffer // 2
            if any(one.buffered <= half for one in self._full):
                self._wake.set_result(None)

    def settled(self, consumer: KafkaConsumer) -> None:
        """Messages were finished: commit soon, and let those look again who waited for a partition."""
        if self._commits is not None:
            self._commits.soon()
        for other in self._consumers:
            if other.rivals:
                other.wake()

    def returned(self, consumer: KafkaConsumer) -> None:
        """Messages were handed back: others may have them now."""
        for other in self._consumers | {consumer}:
            other.wake()

    async def lag(self, consumer: KafkaConsumer) -> int | None:
        """Return how many messages wait in our partitions of its topics; before we have any, in all of them."""
        if self._arming is None or self.failure is not None:
            return None
        lookup, known = self._arming.lookup, self._arming.known
        try:
            mine = {one.tp: one for one in self.partitions_of(consumer)}
            if mine or self._topics.assigned.is_set():
                ends = await start_offsets(lookup, mine, newest=True)
                return sum(max(0, ends[tp] - one.next_offset) + one.waiting for tp, one in mine.items())
            every = [TopicPartition(topic, n) for topic in consumer.topics for n in known.get(topic, ())]
            committed = await fetch_committed(lookup, every)
            ends = await start_offsets(lookup, every, newest=True)
        except KafkaError as exc:
            raise translate(exc, self._place) from None
        return sum(max(0, ends[tp] - offset) for tp, (offset, _) in committed.items())

    def measurements(self, consumer: KafkaConsumer) -> Mapping[str, int]:
        """Return the numbers of the last fetch: the lag in our partitions, how many these are, and the rebalances."""
        client, lag, count = self._client, 0, 0
        for one in self.partitions_of(consumer):
            count += 1
            try:
                end = None if client is None else client.highwater(one.tp)
            except (IllegalStateError, AssertionError):
                end = None
            lag += one.waiting + max(0, (end or one.position) - one.next_offset)
        return {"lag": lag, "partitions": count, "rebalances": self.rebalances}

    # the client

    @property
    def _place(self) -> str:
        return f"{self._producer.place}, group {self.group!r}"

    async def _start(self) -> Arming:
        """Connect: once as the member, and once to look things up, which a pending rebalance would hold up."""
        if self._arming is not None:
            return self._arming
        options = self._options
        client, lookup = await start_clients(self._producer.access, options, self.group)
        commits = self._commits = Commits(client, self._partitions, place=self._place, logger=self.logger)
        newest = options.initial_offset == "newest"
        self._client = client
        self._arming = Arming(self._producer, client, lookup, self._place, newest=newest, logger=self.logger)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._poll(client), name=f"lapel poll Kafka group {self.group}"),
            loop.create_task(commits.run(), name=f"lapel commit Kafka group {self.group}"),
            loop.create_task(self._topics.tell(client, commits, self), name=f"lapel join Kafka group {self.group}"),
        ]
        return self._arming

    async def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._ended(self)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=0.5)
        if self.failure is None and self._commits is not None:
            await self._commits.now(_LAST_COMMIT_SECONDS, joining=True)
        if self._client is not None and self._arming is not None:
            await self._arming.close()
            await stop_clients(self._client, self._arming.lookup)
        for tp in list(self._partitions):
            self._drop(tp)

    def _fail(self, error: LapelError) -> None:
        if self.failure is None:
            self.failure = error
            self._ended(self)
            for consumer in self._consumers:
                consumer.wake()

    def _drop(self, tp: TopicPartition) -> Partition:
        partition = self._partitions.pop(tp)
        partition.lose()
        return partition

    # intake

    async def _poll(self, client: AIOKafkaConsumer) -> None:
        loop, limit = asyncio.get_running_loop(), self._options.buffer
        while True:
            ours = [one for one in self._partitions.values() if not one.revoking]
            wanted = [one.tp for one in ours if one.buffered < limit]
            self._full = [one for one in ours if one.buffered >= limit]
            wake = self._wake = loop.create_future()
            if self._partitions and not wanted:
                await asyncio.wait((wake,), timeout=1.0)
                continue
            getting = loop.create_task(client.getmany(*wanted, timeout_ms=_POLL_MS, max_records=limit))
            try:
                await asyncio.wait((getting, wake), return_when=asyncio.FIRST_COMPLETED)
            finally:
                # Nothing is lost by this: records leave the client's buffers in one step with their return.
                getting.cancel()
                self._wake = None
            if not getting.done():
                await asyncio.wait((getting,))
            try:
                fetched = getting.result()
            except CancelledError:
                continue
            except ConsumerStoppedError:
                return
            except NoOffsetForPartitionError:
                # It was given to us a moment ago; where it begins is committed next.
                await asyncio.sleep(_RANGE_PAUSE)
                continue
            except OffsetOutOfRangeError as exc:
                await self._out_of_range(client, exc.args[0])
                continue
            except Exception as exc:
                self._fail(translate(exc, self._place))
                return
            if fetched:
                self._distribute(fetched)

    def _distribute(self, fetched: Mapping[TopicPartition, Sequence[Any]]) -> None:
        topics = set()
        for tp, records in fetched.items():
            partition = self._partitions.get(tp)
            if partition is not None and not partition.revoking:
                partition.buffer(records)
                topics.add(tp.topic)
        for consumer in self._consumers:
            if not topics.isdisjoint(consumer.topics):
                consumer.wake()

    async def _out_of_range(self, client: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> None:
        """Go on where the log begins, in partitions that have no message at these offsets."""
        # Others are not ours any more, or go on elsewhere by now.
        asked = {tp: one for tp, one in self._partitions.items() if offsets.get(tp, -1) >= one.position}
        assert self._arming is not None
        try:
            begins = await start_offsets(self._arming.lookup, asked, newest=False)
        except KafkaError as exc:
            self.logger.warning("%s: cannot find out where partitions begin: %s", self._place, name_of(exc))
            begins = {}
        if not begins:
            await asyncio.sleep(_RANGE_PAUSE)
        gone: list[Partition] = []
        for tp, begin in begins.items():
            one = self._partitions.get(tp)
            if one is None or one is not asked[tp] or one.revoking:
                continue
            again = self._partitions[tp] = go_on(one, offsets[tp], begin, place=self._place, logger=self.logger)
            if again is not one:
                gone.append(one)
            # Without an assignment the next one has us go on there.
            with suppress(IllegalStateError):
                client.seek(tp, again.position)
        if gone and self._commits is not None:
            self._commits.soon()
            await self._let_go(gone, 0.0)

    # rebalances

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Let go of everything, because the group is about to share out anew. Called by the client."""
        if self._topics.is_ours():
            # What stays ours goes on undisturbed.
            return
        leaving = list(self._partitions.values())
        if revoked:
            self.rebalances += 1
        for one in leaving:
            one.revoking = True
        committing = min(REBALANCE_COMMIT_SECONDS, 0.3 * self._options.session_timeout)
        await self._let_go(leaving, self._options.patience(committing))
        if self._commits is not None:
            await self._commits.now(committing)
        for one in leaving:
            if self._partitions.get(one.tp) is one:
                self._drop(one.tp)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Begin with what the group gave us. Called by the client."""
        self._topics.answered()
        client = self._client
        assert client is not None
        gone = [self._drop(tp) for tp in list(self._partitions) if tp not in assigned]
        try:
            async with asyncio.timeout(self._options.session_timeout / 2):
                starts = await self._starts(client, [tp for tp in assigned if tp not in self._partitions])
        except Exception as exc:
            self._fail(translate(exc, self._place))
            return
        for tp, (offset, note) in starts.items():
            self._partitions[tp] = Partition(tp, offset, read_note(offset, note))
        try:
            for tp, partition in self._partitions.items():
                client.seek(tp, partition.position)
        except IllegalStateError:
            # Our topics changed again meanwhile; the next assignment follows at once.
            return
        self._topics.assigned.set()
        if self._commits is not None:
            self._commits.soon()
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if gone:
            await self._let_go(gone, 0.0)

    async def _starts(self, client: AIOKafkaConsumer, fresh: list[TopicPartition]) -> Committed:
        """Return where partitions begin that are new to us, and commit that for those without a committed offset."""
        found = dict(await fetch_committed(client, fresh)) if fresh else {}
        missing = [tp for tp in fresh if tp not in found]
        arming = self._arming
        assert arming is not None
        if missing:
            first = await arming.starts(client, missing)
            await client.commit(first)
            found |= {tp: (offset, "") for tp, offset in first.items()}
        arming.begun(fresh)
        return found

    async def _let_go(self, partitions: Iterable[Partition], seconds: float) -> None:
        """Have consumers finish or drop what they hold of partitions."""
        held: dict[KafkaConsumer, list[Delivery]] = {}
        for partition in partitions:
            for consumer, delivery in partition.held.values():
                held.setdefault(consumer, []).append(delivery)
        waits = [
            consumer.on_revoked(deliveries, seconds)
            for consumer, deliveries in held.items()
            if consumer.on_revoked is not None
        ]
        await asyncio.gather(*waits, return_exceptions=True)
