"""Where a group begins: offsets are committed before a subscription counts as armed, so that nothing can slip by."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from lapel.coalesce import Coalescer
from lapel.errors import LapelError

from .errors import translate
from .offsets import commit_start, fetch_committed, start_offsets
from .producer import KafkaProducer

__all__ = ["Arming"]

MEMBER_SECONDS = 1.0
"""How long to try to commit as a member while the group is being shared out."""
CLOSE_SECONDS = 0.3
_PAUSE = 0.05
_TOGETHER = 1000


class Arming:
    """Commits where a group begins in topics that are new to it. Topics that come together share requests.

    `lookup` is a client beside the member's own, whose requests a pending rebalance would hold up. `known` are the
    partitions that topics had when they were armed.
    """

    def __init__(
        self, producer: KafkaProducer, member: AIOKafkaConsumer, lookup: AIOKafkaConsumer, place: str, *, newest: bool
    ) -> None:
        self.lookup = lookup
        self.known: dict[str, set[int]] = {}
        self._producer = producer
        self._member = member
        self._place = place
        self._newest = newest
        self._topics: Coalescer[str, Sequence[TopicPartition]] = Coalescer(
            self._arm, max_items=_TOGETHER, name=f"lapel arm {place}"
        )

    async def arm(self, topics: Collection[str]) -> list[TopicPartition]:
        """Commit where the group begins in these topics. Returns partitions for which other members have to do it."""
        found = await asyncio.gather(*(self._topics.submit(topic) for topic in topics))
        return [tp for part in found for tp in part]

    async def close(self) -> None:
        """Give up on what is under way."""
        await self._topics.close(CLOSE_SECONDS)

    async def is_settled(self, partitions: Collection[TopicPartition]) -> bool:
        """Tell whether all of these have a committed offset by now."""
        return len(await fetch_committed(self.lookup, partitions)) == len(partitions)

    async def starts(self, client: AIOKafkaConsumer, missing: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where a member begins in partitions that were given to it and have no committed offset."""
        # A partition that was added while we were subscribed has no message that is not for us.
        added = {tp for tp in missing if tp.topic in self.known and tp.partition not in self.known[tp.topic]}
        first = await start_offsets(client, added, newest=False)
        return first | await start_offsets(client, [tp for tp in missing if tp not in added], newest=self._newest)

    def note(self, partitions: Iterable[TopicPartition]) -> None:
        """Remember that the group has begun in these."""
        for tp in partitions:
            self.known.setdefault(tp.topic, set()).add(tp.partition)

    async def _arm(self, topics: list[str]) -> Sequence[Sequence[TopicPartition] | BaseException]:
        found = await asyncio.gather(*(self._producer.partitions(topic) for topic in topics), return_exceptions=True)
        errors: dict[str, LapelError] = {}
        every: list[TopicPartition] = []
        for topic, numbers in zip(topics, found, strict=True):
            if isinstance(numbers, BaseException):
                errors[topic] = translate(numbers, self._place)
            else:
                every += [TopicPartition(topic, number) for number in sorted(numbers)]
        self.note(every)
        try:
            left = await self._begin(list(dict.fromkeys(every)))
        except KafkaError as exc:
            raise translate(exc, self._place) from None
        return [errors.get(topic) or [tp for tp in left if tp.topic == topic] for topic in topics]

    async def _begin(self, every: list[TopicPartition]) -> Collection[TopicPartition]:
        committed = await fetch_committed(self.lookup, every)
        missing = [tp for tp in every if tp not in committed]
        if not missing:
            return ()
        offsets: Mapping[TopicPartition, int] = await start_offsets(self.lookup, missing, newest=self._newest)
        # Others may begin at the same time; the first one decides.
        committed = await fetch_committed(self.lookup, missing)
        offsets = {tp: offset for tp, offset in offsets.items() if tp not in committed}
        if not offsets:
            return ()
        if not self._member.subscription():
            return () if await commit_start(self.lookup, offsets) else offsets
        with suppress(TimeoutError):
            async with asyncio.timeout(MEMBER_SECONDS):
                while not await commit_start(self._member, offsets):  # noqa: ASYNC110 - nobody tells when it may
                    await asyncio.sleep(_PAUSE)
                return ()
        return offsets
