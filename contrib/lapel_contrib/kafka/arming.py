"""Where a group begins: offsets are committed before a subscription counts as armed, so that nothing can slip by."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
RESOLVE_SECONDS = 3.0
"""How long to wait for members of the group to commit where it begins."""
_PAUSE = 0.05
_TOGETHER = 1000


class Arming:
    """Commits where a group begins in topics that are new to it. Topics that come together share requests.

    `lookup` is a client beside the member's own, whose requests a pending rebalance would hold up. `known` are the
    partitions that topics had when they were armed.
    """

    def __init__(
        self,
        producer: KafkaProducer,
        member: AIOKafkaConsumer,
        lookup: AIOKafkaConsumer,
        place: str,
        *,
        newest: bool,
        logger: logging.Logger,
    ) -> None:
        self.lookup = lookup
        self.known: dict[str, set[int]] = {}
        self._begun: set[TopicPartition] = set()
        self._producer = producer
        self._member = member
        self._place = place
        self._newest = newest
        self._logger = logger
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

    async def resolved(self, missing: Collection[TopicPartition], failure: Callable[[], LapelError | None]) -> None:
        """Wait until the members of the group have committed where these partitions begin. Raises `failure`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + RESOLVE_SECONDS
        while len(await fetch_committed(self.lookup, missing)) < len(missing):
            if (error := failure()) is not None:
                raise error
            if loop.time() > end:
                self._logger.warning(
                    "%s: other members have not yet settled where %d new partitions begin; what is published to them "
                    "right now may be missed",
                    self._place,
                    len(missing),
                )
                return
            await asyncio.sleep(_PAUSE)
        self._begun.update(missing)

    async def starts(self, client: AIOKafkaConsumer, missing: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where a member begins in partitions that were given to it and have no committed offset."""
        added = {tp for tp in missing if tp.topic in self.known and tp.partition not in self.known[tp.topic]}
        return await self._first(client, missing, added)

    def begun(self, partitions: Iterable[TopicPartition]) -> None:
        """Remember that the group has begun in these."""
        for tp in partitions:
            self._note(tp)
            self._begun.add(tp)

    def forget(self, topics: Collection[str]) -> None:
        """Take these for topics that are new to the group, should its offsets there be gone when they come back."""
        self._begun = {tp for tp in self._begun if tp.topic not in topics}

    def _note(self, tp: TopicPartition) -> None:
        self.known.setdefault(tp.topic, set()).add(tp.partition)

    async def _first(
        self, client: AIOKafkaConsumer, missing: Iterable[TopicPartition], added: Collection[TopicPartition] = ()
    ) -> dict[TopicPartition, int]:
        """Return where the group begins in partitions without a committed offset, of which some were added lately."""
        anew = self._begun.intersection(missing)
        if anew:
            self._logger.warning(
                "%s: the committed offsets of %d partitions of %s are gone: the topic was made anew, or they were "
                "deleted; reading begins at the first message",
                self._place,
                len(anew),
                ", ".join(sorted({repr(tp.topic) for tp in anew})),
            )
        # These have no message that is not for us: they were added, or made anew, while we were subscribed.
        whole = anew.union(added)
        first = await start_offsets(client, whole, newest=False)
        return first | await start_offsets(client, [tp for tp in missing if tp not in whole], newest=self._newest)

    async def _arm(self, topics: list[str]) -> Sequence[Sequence[TopicPartition] | BaseException]:
        found = await asyncio.gather(*(self._producer.partitions(topic) for topic in topics), return_exceptions=True)
        errors: dict[str, LapelError] = {}
        every: list[TopicPartition] = []
        for topic, numbers in zip(topics, found, strict=True):
            if isinstance(numbers, BaseException):
                errors[topic] = translate(numbers, self._place)
            else:
                every += [TopicPartition(topic, number) for number in sorted(numbers)]
        for tp in every:
            self._note(tp)
        try:
            left = await self._begin(list(dict.fromkeys(every)))
        except KafkaError as exc:
            raise translate(exc, self._place) from None
        self.begun(tp for tp in every if tp not in left)
        return [errors.get(topic) or [tp for tp in left if tp.topic == topic] for topic in topics]

    async def _begin(self, every: list[TopicPartition]) -> Collection[TopicPartition]:
        committed = await fetch_committed(self.lookup, every)
        missing = [tp for tp in every if tp not in committed]
        if not missing:
            return ()
        offsets: Mapping[TopicPartition, int] = await self._first(self.lookup, missing)
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
