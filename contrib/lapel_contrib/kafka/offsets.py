"""The committed offsets of a group, each with a note of what is finished beyond it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

__all__ = ["Committed", "commit_start", "commit_unassigned", "fetch_committed", "note_of", "read_note", "start_offsets"]

Committed = Mapping[TopicPartition, tuple[int, str]]
"""The offset where a group goes on in each partition, and the note beside it."""

_PREFIX = "lapel1"
_LONGEST_NOTE = 3500
"""Characters; brokers take 4096 bytes by default."""
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_MOST_NOTED = 100_000


async def fetch_committed(client: AIOKafkaConsumer, partitions: Iterable[TopicPartition]) -> Committed:
    """Return what the group has committed; partitions for which that is nothing are left out."""
    # The public way asks for one partition at a time, and keeps the note to itself.
    found = await client._coordinator.fetch_committed_offsets(list(partitions))
    return {tp: (committed.offset, committed.metadata or "") for tp, committed in found.items()}


async def start_offsets(
    client: AIOKafkaConsumer, partitions: Collection[TopicPartition], *, newest: bool
) -> dict[TopicPartition, int]:
    """Return the offset after the last message of each partition, or that of its first one."""
    if not partitions:
        return {}
    # By itself it would learn of topics that are new to it one after another.
    for topic in {tp.topic for tp in partitions}:
        client._client.add_topic(topic)
    found = await (client.end_offsets(list(partitions)) if newest else client.beginning_offsets(list(partitions)))
    return {tp: int(offset) for tp, offset in found.items()}


async def commit_start(client: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> bool:
    """Commit where a group begins, without having these partitions; False when it has members that we are not one of.

    A group without members takes this from anybody, one with members from any of them.
    """
    try:
        await commit_unassigned(client, {tp: (offset, "") for tp, offset in offsets.items()})
    except CommitFailedError:
        return False
    return True


async def commit_unassigned(client: AIOKafkaConsumer, offsets: Committed) -> None:
    """Commit offsets of partitions that the client has not been given, or not yet again.

    Raises `CommitFailedError` when the group does not take it from us.
    """
    # The public way commits only partitions that are assigned.
    await client._coordinator.commit_offsets(None, {tp: OffsetAndMetadata(*found) for tp, found in offsets.items()})


def note_of(mark: int, finished: Iterable[int]) -> str:
    """Return the note for offsets that are finished beyond `mark`; as many of them as it can hold."""
    parts: list[str] = []
    size = len(_PREFIX)
    for first, last in _ranges(sorted(finished)):
        part = str(first - mark) if first == last else f"{first - mark}-{last - mark}"
        size += len(part) + 1
        if size > _LONGEST_NOTE:
            break
        parts.append(part)
    return " ".join([_PREFIX, *parts]) if parts else ""


def read_note(mark: int, note: str) -> set[int]:
    """Return the offsets that a note says are finished; none for what is not a note of ours."""
    words = note.split(" ")
    if words[0] != _PREFIX:
        return set()
    found: set[int] = set()
    for word in words[1:]:
        match = _RANGE.fullmatch(word)
        if match is None or len(found) > _MOST_NOTED:
            return set()
        first = int(match[1])
        last = int(match[2] or first)
        found.update(range(mark + first, mark + min(last, first + _MOST_NOTED) + 1))
    return found


def _ranges(numbers: Iterable[int]) -> Iterable[tuple[int, int]]:
    first = last = -1
    for number in numbers:
        if first >= 0 and number == last + 1:
            last = number
            continue
        if first >= 0:
            yield first, last
        first = last = number
    if first >= 0:
        yield first, last
