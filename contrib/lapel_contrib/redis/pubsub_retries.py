"""Messages of a consumer that wait for their next attempt."""

from __future__ import annotations

import heapq

__all__ = ["Retries"]

_SLACK = 64


class Retries:
    """Ids, each with the time (of the loop) at which it is due. What a call costs hardly depends on how many wait."""

    def __init__(self) -> None:
        self._due: dict[bytes, float] = {}
        # Entries that are not in `_due` like this any more are passed over.
        self._heap: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._due

    def add(self, id_: bytes, due: float) -> None:
        """Let a message wait until `due`, in place of any time before."""
        self._due[id_] = due
        heapq.heappush(self._heap, (due, id_))
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._heap = [(time, each) for each, time in self._due.items()]
            heapq.heapify(self._heap)

    def discard(self, id_: bytes) -> None:
        """Forget a message, if it waits."""
        self._due.pop(id_, None)

    def clear(self) -> None:
        """Forget all."""
        self._due.clear()
        self._heap.clear()

    @property
    def next_due(self) -> float:
        """When the first one is due; infinity if none waits."""
        heap, due = self._heap, self._due
        while heap and due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else float("inf")

    def take(self, now: float, most: int) -> list[bytes]:
        """Remove and return up to `most` that are due, the oldest first."""
        taken: list[bytes] = []
        while len(taken) < most and self.next_due <= now:
            _, id_ = heapq.heappop(self._heap)
            del self._due[id_]
            taken.append(id_)
        return taken

    def after(self, now: float) -> list[bytes]:
        """Return those that are not due yet."""
        return [id_ for id_, due in self._due.items() if due > now]

    def ids(self) -> set[bytes]:
        """Return all that wait."""
        return {*self._due}
