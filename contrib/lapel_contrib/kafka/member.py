"""One member of a consumer group: takes in messages, commits what is finished, and lives through rebalances."""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError, Future, Task
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition

from lapel.delivery import Delivery, Ordering
from lapel.errors import LapelError, UnavailableError

from .consumer import KafkaConsumer
from .errors import name_of, translate
from .offsets import Committed, commit_start, fetch_committed, note_of, read_note, start_offsets
from .options import ConsumerOptions
from .partition import Partition
from .producer import KafkaProducer, start

__all__ = ["COMMIT_PAUSE", "Member"]

COMMIT_PAUSE = 0.1
"""Least seconds between two commits."""
COMMIT_SECONDS = 5.0
STOP_SECONDS = 3.0
_POLL_MS = 1000
_CHANGE_PAUSE = 0.01
_CHANGE_SECONDS = 2.0
_MEMBER_SECONDS = 1.0
_RESOLVE_SECONDS = 3.0
_RESOLVE_PAUSE = 0.05
_NEVER_MS = 2**31 - 1
_STRATEGIES = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "sticky": StickyPartitionAssignor,
}

_abandoned: set[Task[None]] = set()


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
        self._lookup: AIOKafkaConsumer | None = None
        self._consumers: set[KafkaConsumer] = set()
        self._attaching = 0
        self._partitions: dict[TopicPartition, Partition] = {}
        self._known: dict[str, set[int]] = {}
        self._subscribed: frozenset[str] = frozenset()
        self._lock = asyncio.Lock()
        self._arming = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._resubscribing = False
        self._assigned = asyncio.Event()
        self._changed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._wake: Future[None] | None = None
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
                client, lookup = await self._start()
            async with self._arming:
                missing = await self._arm(client, lookup, consumer.topics)
            if self._stopped:
                raise UnavailableError(f"{self._place}: the member has just left; subscribe again")
            self._consumers.add(consumer)
            self._note_rivals()
            self._changed.set()
            if missing:
                await self._resolved(lookup, missing)
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
        self._note_rivals()
        self.returned(consumer)
        if self._consumers and self.failure is None:
            await self.commit()
            topics = self._topics()
            for tp in [tp for tp in self._partitions if tp.topic not in topics]:
                self._drop(tp)
            self._changed.set()
        async with self._lock:
            if not self._consumers and not self._attaching:
                await self._stop()

    def _topics(self) -> frozenset[str]:
        return frozenset[str]().union(*(consumer.topics for consumer in self._consumers))

    def _note_rivals(self) -> None:
        for one in self._consumers:
            one.rivals = any(
                not one.topics.isdisjoint(other.topics)
                and (one.ordering is not Ordering.NONE or other.ordering is not Ordering.NONE)
                for other in self._consumers
                if other is not one
            )

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
        if self._wake is not None and not self._wake.done():
            half = self._options.buffer // 2
            if any(one.buffered <= half for one in self._full):
                self._wake.set_result(None)

    def settled(self, consumer: KafkaConsumer) -> None:
        """Messages were finished: commit soon, and let those look again who waited for a partition."""
        self._dirty.set()
        for other in self._consumers:
            if other.rivals:
                other.wake()

    def returned(self, consumer: KafkaConsumer) -> None:
        """Messages were handed back: others may have them now."""
        for other in self._consumers:
            if other is not consumer:
                other.wake()
        consumer.wake()

    async def lag(self, consumer: KafkaConsumer) -> int | None:
        """Return how many messages wait in our partitions of its topics; before we have any, in all of them."""
        lookup = self._lookup
        if lookup is None or self.failure is not None:
            return None
        try:
            mine = {one.tp: one for one in self.partitions_of(consumer)}
            if mine or self._assigned.is_set():
                ends = await start_offsets(lookup, mine, newest=True)
                return sum(max(0, ends[tp] - one.next_offset) + one.waiting for tp, one in mine.items())
            every = [TopicPartition(topic, n) for topic in consumer.topics for n in self._known.get(topic, ())]
            committed = await fetch_committed(lookup, every)
            ends = await start_offsets(lookup, every, newest=True)
        except KafkaError as exc:
            raise translate(exc, self._place) from None
        return sum(ends[tp] - offset for tp, (offset, _) in committed.items())

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

    @property
    def _full(self) -> list[Partition]:
        return [one for one in self._partitions.values() if not one.revoking]

    def _arguments(self) -> dict[str, Any]:
        return {
            **self._producer.access.arguments(),
            "retry_backoff_ms": int(self._options.retry_pause * 1000),
            "isolation_level": "read_committed",
        }

    async def _start(self) -> tuple[AIOKafkaConsumer, AIOKafkaConsumer]:
        """Connect: once as the member, and once to look things up, which a pending rebalance would hold up."""
        if self._client is not None and self._lookup is not None:
            return self._client, self._lookup
        options = self._options
        client = AIOKafkaConsumer(
            **self._arguments(),
            group_id=self.group,
            group_instance_id=options.instance_id,
            enable_auto_commit=False,
            # Only for offsets that the broker no longer has: where to begin is always committed first.
            auto_offset_reset="earliest",
            partition_assignment_strategy=(_STRATEGIES[options.strategy],),
            session_timeout_ms=int(options.session_timeout * 1000),
            heartbeat_interval_ms=int(options.heartbeat_interval * 1000),
            rebalance_timeout_ms=int(options.session_timeout * 1000),
            # Polling is not a sign of life: it stops when handlers have enough to do.
            max_poll_interval_ms=_NEVER_MS,
            fetch_min_bytes=options.fetch_min,
            max_partition_fetch_bytes=options.fetch_partition,
        )
        lookup = AIOKafkaConsumer(**self._arguments(), group_id=self.group, enable_auto_commit=False)
        try:
            await start(client)
            await start(lookup)
        except BaseException as exc:
            await asyncio.gather(_stop(client), _stop(lookup))
            if isinstance(exc, KafkaError):
                raise await self._producer.access.explain(exc) from None
            raise
        self._client, self._lookup = client, lookup
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._poll(client), name=f"lapel poll Kafka group {self.group}"),
            loop.create_task(self._commit_often(), name=f"lapel commit Kafka group {self.group}"),
            loop.create_task(self._subscribe_often(client), name=f"lapel subscribe Kafka group {self.group}"),
        ]
        return client, lookup

    async def _arm(
        self, client: AIOKafkaConsumer, lookup: AIOKafkaConsumer, topics: Iterable[str]
    ) -> list[TopicPartition]:
        """Commit where a new group begins. Returns the partitions for which members of the group have to do it."""
        every: list[TopicPartition] = []
        for topic in topics:
            found = await self._producer.partitions(topic)
            self._known.setdefault(topic, set()).update(found)
            every += [TopicPartition(topic, number) for number in sorted(found)]
        committed = await fetch_committed(lookup, every)
        missing = [tp for tp in every if tp not in committed]
        if not missing:
            return []
        offsets = await start_offsets(lookup, missing, newest=self._options.initial_offset == "newest")
        # Others may begin at the same time; the first one decides.
        committed = await fetch_committed(lookup, missing)
        offsets = {tp: offset for tp, offset in offsets.items() if tp not in committed}
        if not offsets or await commit_start(lookup, offsets):
            return []
        if self._assigned.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_MEMBER_SECONDS):
                    if await commit_start(client, offsets):
                        return []
        return list(offsets)

    async def _resolved(self, lookup: AIOKafkaConsumer, missing: Collection[TopicPartition]) -> None:
        """Wait until the members of the group have committed where these partitions begin."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _RESOLVE_SECONDS
        while len(await fetch_committed(lookup, missing)) < len(missing):
            if self.failure is not None:
                raise self.failure
            if loop.time() > end:
                self.logger.warning(
                    "%s: other members have not yet settled where %d new partitions begin; what is published to them "
                    "right now may be missed",
                    self._place,
                    len(missing),
                )
                return
            await asyncio.sleep(_RESOLVE_PAUSE)

    async def _subscribe_often(self, client: AIOKafkaConsumer) -> None:
        """Tell the group which topics are ours, and again when that has changed."""
        while True:
            await self._changed.wait()
            # Those that follow at once share the rebalance.
            await asyncio.sleep(_CHANGE_PAUSE)
            self._changed.clear()
            topics = self._topics()
            if topics == self._subscribed or not topics:
                continue
            await self.commit()
            self._assigned.clear()
            self._subscribed, self._resubscribing = topics, True
            client.subscribe(sorted(topics), listener=self)
            # A change in the middle of a rebalance begins it anew.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHANGE_SECONDS):
                    await self._assigned.wait()

    async def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._ended(self)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        if self.failure is None:
            await self.commit(STOP_SECONDS / 2)
        clients = [client for client in (self._client, self._lookup) if client is not None]
        await asyncio.gather(*map(_stop, clients))
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
        partition.revoking = partition.lost = True
        return partition

    # intake

    async def _poll(self, client: AIOKafkaConsumer) -> None:
        loop, limit = asyncio.get_running_loop(), self._options.buffer
        while True:
            wanted = [one.tp for one in self._partitions.values() if not one.revoking and one.buffered < limit]
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

    # commits

    async def commit(self, seconds: float = COMMIT_SECONDS) -> None:
        """Commit the finished beginning of each partition. Never raises: what was not committed comes again."""
        client = self._client
        if client is None:
            return
        async with self._committing:
            given = client.assignment()
            parts = [one for one in self._partitions.values() if one.tp in given and one.uncommitted]
            if not parts:
                return
            states = [(one, one.mark, one.finished()) for one in parts]
            try:
                async with asyncio.timeout(seconds):
                    await client.commit({one.tp: (mark, note_of(mark, beyond)) for one, mark, beyond in states})
            except (CommitFailedError, IllegalStateError):
                # Between two generations; what stays ours is committed in the next one.
                self.logger.info("%s: a commit came into a rebalance and is made up for after it", self._place)
                return
            except (KafkaError, TimeoutError) as exc:
                self.logger.warning("%s: a commit failed and is repeated: %s", self._place, name_of(exc))
                self._dirty.set()
                return
            for one, mark, beyond in states:
                one.committed, one.noted = mark, len(beyond)

    async def _commit_often(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self.commit()
            await asyncio.sleep(COMMIT_PAUSE)

    # rebalances

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Let go of everything, because the group is about to share out anew. Called by the client."""
        if self._resubscribing:
            # It is because of our own topics; what stays ours goes on undisturbed.
            self._resubscribing = False
            return
        leaving = list(self._partitions.values())
        if revoked:
            self.rebalances += 1
        for partition in leaving:
            partition.revoking = True
        await self._let_go(leaving, self._patience())
        await self.commit()
        for partition in leaving:
            if self._partitions.get(partition.tp) is partition:
                self._drop(partition.tp)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Begin with what the group gave us. Called by the client."""
        self._resubscribing = False
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
        self._assigned.set()
        self._dirty.set()
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if gone:
            await self._let_go(gone, 0.0)

    async def _starts(self, client: AIOKafkaConsumer, fresh: list[TopicPartition]) -> Committed:
        """Return where partitions begin that are new to us, and commit that for those without a committed offset."""
        found = dict(await fetch_committed(client, fresh)) if fresh else {}
        missing = [tp for tp in fresh if tp not in found]
        if missing:
            newest = self._options.initial_offset == "newest"
            # A partition that was added while we were subscribed has no message that is not for us.
            added = [tp for tp in missing if tp.topic in self._known and tp.partition not in self._known[tp.topic]]
            first = await start_offsets(client, added, newest=False)
            first |= await start_offsets(client, [tp for tp in missing if tp not in first], newest=newest)
            await client.commit(first)
            found |= {tp: (offset, "") for tp, offset in first.items()}
        for tp in fresh:
            self._known.setdefault(tp.topic, set()).add(tp.partition)
        return found

    async def _let_go(self, partitions: Iterable[Partition], seconds: float) -> None:
        """Have consumers finish or drop what they hold of partitions."""
        held: dict[KafkaConsumer, list[Delivery]] = {}
        for partition in partitions:
            for consumer, delivery in partition.held.values():
                held.setdefault(consumer, []).append(delivery)
        waits = [
            consumer.revoked(deliveries, seconds)
            for consumer, deliveries in held.items()
            if consumer.revoked is not None
        ]
        await asyncio.gather(*waits, return_exceptions=True)

    def _patience(self) -> float:
        """How many seconds handlers have in a rebalance: the group waits for us as long as a session may last."""
        options = self._options
        left = options.session_timeout - options.heartbeat_interval
        return max(0.3 * options.session_timeout, left - 2.0)


async def _stop(client: AIOKafkaConsumer) -> None:
    """Leave the group and disconnect; a client that waits for brokers that are gone is left behind."""
    stopping = asyncio.get_running_loop().create_task(client.stop(), name="lapel stop Kafka consumer")
    _abandoned.add(stopping)
    stopping.add_done_callback(_ended)
    await asyncio.wait((stopping,), timeout=STOP_SECONDS)


def _ended(task: Task[None]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()
