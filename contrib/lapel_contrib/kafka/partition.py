"""What one member of a group holds of one partition, and how far it is finished."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiokafka.structs import ConsumerRecord, TopicPartition

from lapel.delivery import Delivery

if TYPE_CHECKING:
    from .consumer import KafkaConsumer

__all__ = ["LONGEST_GAP", "Partition"]

LONGEST_GAP = 5000
"""How many messages may be taken beyond the first unfinished one. They come again when this program dies."""


class Partition:
    """The messages of a partition on their way: fetched, in the hands of consumers, finished.

    `mark` is where the group would go on: all messages below it are finished, and never one above it is committed.
    `position` is the offset of the next message to fetch, `committed` the offset that the broker knows. Messages that
    were handed back come first again, in their order. Knows nothing of tasks, time or the network.
    """

    __slots__ = (
        "_done",
        "_queue",
        "_returned",
        "_window",
        "committed",
        "held",
        "lost",
        "mark",
        "owner",
        "position",
        "revoking",
        "tp",
    )

    def __init__(self, tp: TopicPartition, start: int) -> None:
        self.tp = tp
        self.position = self.mark = self.committed = start
        self.held: dict[int, tuple[KafkaConsumer, Delivery]] = {}
        self.owner: KafkaConsumer | None = None
        """The consumer that took from here last."""
        self.revoking = False
        """Nothing may be taken any more; what is held may still be finished."""
        self.lost = False
        """It is someone else's."""
        self._queue: deque[ConsumerRecord] = deque()
        self._returned: list[tuple[int, ConsumerRecord]] = []
        self._window: deque[int] = deque()
        self._done: set[int] = set()

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
        """How many messages were handed back and not taken again."""
        return len(self._returned)

    def buffer(self, records: Iterable[ConsumerRecord]) -> None:
        """Add what was fetched; what was fetched before is passed over."""
        for record in records:
            if record.offset >= self.position:
                self._queue.append(record)
                self.position = record.offset + 1

    def take(self, most: int) -> list[ConsumerRecord]:
        """Take up to `most` messages, in the order of their offsets. Each must be finished or handed back later."""
        found: list[ConsumerRecord] = []
        while self._returned and len(found) < most:
            found.append(heapq.heappop(self._returned)[1])
        queue, window = self._queue, self._window
        for _ in range(min(most - len(found), len(queue), LONGEST_GAP - len(window))):
            record = queue.popleft()
            window.append(record.offset)
            found.append(record)
        return found

    def finish(self, offset: int) -> bool:
        """Note that a message is done; False when it is not held."""
        if self.held.pop(offset, None) is None:
            return False
        window, done = self._window, self._done
        if window[0] != offset:
            done.add(offset)
            return True
        window.popleft()
        self.mark = offset + 1
        while done and window and window[0] in done:
            self.mark = window.popleft() + 1
            done.remove(self.mark - 1)
        return True

    def give_back(self, record: ConsumerRecord) -> bool:
        """Let a message that was taken be taken again; False when it is not held."""
        if self.held.pop(record.offset, None) is None:
            return False
        heapq.heappush(self._returned, (record.offset, record))
        return True
