"""What one member of a group holds of one partition, and how far it is finished."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from aiokafka.structs import ConsumerRecord, TopicPartition

from lapel.delivery import Delivery

if TYPE_CHECKING:
    from .consumer import KafkaConsumer

__all__ = ["LONGEST_GAP", "Partition"]

LONGEST_GAP = 5000
"""How many messages may be taken beyond the first unfinished one. They may come again when this program dies."""


class Partition:
    """The messages of a partition on their way: fetched, in the hands of consumers, finished.

    `mark` is where the group would go on: all messages below it are finished, and never one above it is committed;
    `beyond` are finished ones above it. `position` is the offset of the next message to fetch, `committed` the offset
    that the broker knows. Messages that were handed back come first again, in their order. `finished` are offsets that
    need not be handled any more, `count` is how many were finished here, `noted` how many of these the broker knows.
    Knows nothing of tasks, time or the network.
    """

    __slots__ = (
        "_queue",
        "_returned",
        "_skip",
        "_window",
        "beyond",
        "committed",
        "count",
        "held",
        "lost",
        "mark",
        "noted",
        "position",
        "revoking",
        "tp",
    )

    def __init__(self, tp: TopicPartition, start: int, finished: Iterable[int] = ()) -> None:
        self.tp = tp
        self.position = self.mark = self.committed = start
        self.count = self.noted = 0
        self.beyond: set[int] = set()
        self.held: dict[int, tuple[KafkaConsumer, Delivery]] = {}
        self.revoking = False
        """Nothing may be taken any more; what is held may still be finished."""
        self.lost = False
        """It is someone else's."""
        self._queue: deque[ConsumerRecord] = deque()
        self._returned: list[tuple[int, ConsumerRecord]] = []
        self._window: deque[int] = deque()
        self._skip = deque(sorted(finished))

    @property
    def uncommitted(self) -> bool:
        """Whether more is finished than the broker knows."""
        return self.mark != self.committed or self.count != self.noted

    @property
    def buffered(self) -> int:
        """How many fetched messages nobody has taken yet."""
        return len(self._queue)

    @property
    def unfinished(self) -> int:
        """How many messages were taken and are not below `mark`."""
        return len(self._window)

    @property
    def next_offset(self) -> int:
        """The offset of the next message that nobody has had in hand."""
        return self._queue[0].offset if self._queue else self.position

    @property
    def waiting(self) -> int:
        """How many messages were handed back, or passed over, and not taken again."""
        return len(self._returned)

    def buffer(self, records: Iterable[ConsumerRecord]) -> None:
        """Add what was fetched; what was fetched before is passed over."""
        for record in records:
            if record.offset >= self.position:
                self._queue.append(record)
                self.position = record.offset + 1

    def take(self, most: int, blocked: Collection[bytes] = ()) -> list[ConsumerRecord]:
        """Take up to `most` messages, in the order of their offsets. Each must be held, and finished or handed back.

        Those with a key of `blocked` stay, for others.
        """
        found: list[ConsumerRecord] = []
        kept: list[tuple[int, ConsumerRecord]] = []
        while self._returned and len(found) < most:
            entry = heapq.heappop(self._returned)
            if entry[1].key in blocked:
                kept.append(entry)
            else:
                found.append(entry[1])
        queue, window, skip = self._queue, self._window, self._skip
        while queue and len(found) < most and len(window) < LONGEST_GAP:
            record = queue.popleft()
            window.append(record.offset)
            while skip and skip[0] < record.offset:
                # The log does not have it any more: it was compacted away.
                skip.popleft()
            if skip and skip[0] == record.offset:
                skip.popleft()
                self._end(record.offset)
            elif blocked and record.key in blocked:
                kept.append((record.offset, record))
            else:
                found.append(record)
        for entry in kept:
            heapq.heappush(self._returned, entry)
        return found

    def finish(self, offset: int) -> bool:
        """Note that a message is done; False when it is not held."""
        if self.held.pop(offset, None) is None:
            return False
        self.count += 1
        self._end(offset)
        return True

    def give_back(self, record: ConsumerRecord) -> bool:
        """Let a message that was taken be taken again; False when it is not held."""
        if self.held.pop(record.offset, None) is None:
            return False
        heapq.heappush(self._returned, (record.offset, record))
        return True

    def finished(self) -> set[int]:
        """Return all offsets above `mark` that need not be handled any more."""
        return self.beyond.union(self._skip) if self._skip else self.beyond

    def skip_to(self, begin: int) -> None:
        """Go on with the message at `begin`, because the log has none between the last one fetched and that."""
        self.position = max(self.position, begin)

    def begin_again(self, begin: int) -> Partition:
        """Return the partition from `begin` on, because its log is another one; this one is lost."""
        again = Partition(self.tp, begin)
        # What the broker knows is of the former log and has to be replaced, whatever it is.
        again.committed = -1
        self.lose()
        return again

    def lose(self) -> None:
        """Let go of it, and of all that nobody has in hand: nothing may be taken or finished any more."""
        self.revoking = self.lost = True
        self._queue.clear()
        self._returned.clear()

    def _end(self, offset: int) -> None:
        window, beyond = self._window, self.beyond
        if window[0] != offset:
            beyond.add(offset)
            return
        window.popleft()
        self.mark = offset + 1
        while beyond and window and window[0] in beyond:
            offset = window.popleft()
            beyond.remove(offset)
            self.mark = offset + 1
