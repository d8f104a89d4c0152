"""A stand-in for aiokafka's consumer and the group it joins, whose answers a test decides."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition

from lapel.delivery import Ordering
from lapel_contrib.kafka import member as module
from lapel_contrib.kafka.consumer import KafkaConsumer
from lapel_contrib.kafka.groups import Groups
from lapel_contrib.kafka.member import Member
from lapel_contrib.kafka.options import ConsumerOptions

OPTIONS = ConsumerOptions(
    initial_offset="newest",
    strategy="range",
    instance_id=None,
    session_timeout=10.0,
    heartbeat_interval=3.0,
    retry_pause=0.1,
    fetch_min=1,
    fetch_partition=1,
    buffer=256,
    escape_headers=False,
)


def tp(topic: str) -> TopicPartition:
    return TopicPartition(topic, 0)


def record(topic: str, offset: int) -> ConsumerRecord:
    return ConsumerRecord(topic, 0, offset, 0, 0, None, str(offset).encode(), None, -1, 1, ())


class FakeClient:
    """Both clients of a member: every topic has one partition, and it is ours when the group has answered.

    `answers` is cleared to keep the group from answering. `committed`, `begins` and `ends` are what the broker knows;
    `refused` are topics of which no commit is taken, `fetched` is what polls give next: records, or an error.
    """

    def __init__(self) -> None:
        self._coordinator = self
        self._client = self
        self.answers = asyncio.Event()
        self.answers.set()
        self.subscribed: list[frozenset[str]] = []
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.refused: set[str] = set()
        self.begins: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}
        self.positions: dict[TopicPartition, int] = {}
        self.fetched: deque[dict[TopicPartition, list[ConsumerRecord]] | Exception] = deque()
        self._given: set[TopicPartition] = set()
        self._joining: asyncio.Task[None] | None = None

    def add_topic(self, topic: str) -> None:
        pass

    def subscription(self) -> frozenset[str]:
        return self.subscribed[-1] if self.subscribed else frozenset()

    def assignment(self) -> set[TopicPartition]:
        return self._given

    def subscribe(self, topics: Iterable[str], listener: Any) -> None:
        self.subscribed.append(frozenset(topics))
        self._given = set()
        self._joining = asyncio.create_task(self._join(listener))

    async def _join(self, listener: Any) -> None:
        await listener.on_partitions_revoked(set())
        await self.answers.wait()
        self._given = {tp(topic) for topic in self.subscribed[-1]}
        await listener.on_partitions_assigned(self._given)

    async def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        if not offsets.keys() <= self._given:
            raise IllegalStateError("not assigned")
        found = {one: given if isinstance(given, tuple) else (given, "") for one, given in offsets.items()}
        await self.commit_offsets(None, {one: OffsetAndMetadata(*given) for one, given in found.items()})

    async def commit_offsets(self, assignment: Any, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        await asyncio.sleep(0)
        if any(one.topic in self.refused for one in offsets):
            raise CommitFailedError
        self.committed.update(offsets)

    async def fetch_committed_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, Any]:
        await asyncio.sleep(0)
        return {one: self.committed[one] for one in partitions if one in self.committed}

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {one: self.begins.get(one, 0) for one in partitions}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {one: self.ends.get(one, 0) for one in partitions}

    def seek(self, one: TopicPartition, offset: int) -> None:
        if one not in self._given:
            raise IllegalStateError("not assigned")
        self.positions[one] = offset

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int) -> Any:
        await asyncio.sleep(0.001)
        found = self.fetched.popleft() if self.fetched else {}
        if isinstance(found, Exception):
            raise found
        return found


class FakeProducer:
    """What a member needs of the producer."""

    access = None
    place = "Kafka at fake"

    async def partitions(self, topic: str) -> set[int]:
        return {0}


class Group:
    """The subscriptions of a component in one group, with a client whose answers a test decides."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = FakeClient()
        self._groups = Groups(OPTIONS, logging.getLogger("lapel.test"))
        self._stopped = False

        async def start_clients(*_: Any) -> tuple[FakeClient, FakeClient]:
            return self.client, self.client

        async def stop_clients(*_: Any) -> None:
            self._stopped = True

        monkeypatch.setattr(module, "start_clients", start_clients)
        monkeypatch.setattr(module, "stop_clients", stop_clients)

    @property
    def member(self) -> Member:
        """The one member there is."""
        (member,) = self._groups._members.values()
        return member

    async def subscribe(self, topic: str) -> KafkaConsumer:
        producer: Any = FakeProducer()
        return await self._groups.subscribe(
            producer, "group", frozenset((topic,)), ordering=Ordering.NONE, revoked=None
        )

    async def has(self, *topics: str) -> None:
        """Wait until the partitions of exactly these topics are ours, and the group has answered."""
        async with asyncio.timeout(10):
            while {one.topic for one in self.member._partitions} != set(topics) or not self.client.assignment():
                await asyncio.sleep(0.001)

    def commit(self, topic: str) -> int | None:
        """Return what the group has committed."""
        found = self.client.committed.get(tp(topic))
        return None if found is None else int(found.offset)

    async def close(self) -> None:
        await self._groups.close()
