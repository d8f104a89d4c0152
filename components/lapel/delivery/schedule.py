"""Which of the held deliveries may start now. Knows nothing of tasks or time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from .types import Delivery, Ordering

if TYPE_CHECKING:
    from .session import Session

__all__ = ["DONE", "PARKED", "QUEUED", "RUNNING", "Held", "Lane", "Schedule"]

# Plain numbers: they are compared for every message.
QUEUED = 0
RUNNING = 1
PARKED = 2
DONE = 3


class Lane:
    """The deliveries of one key: one of them is at the head, `queue` waits behind it."""

    __slots__ = ("key", "parked", "queue")

    def __init__(self, key: str) -> None:
        self.key = key
        self.queue: deque[Held] = deque()
        self.parked = False


class Held(msgspec.Struct, eq=False):
    """One delivery in the hands of the dispatcher.

    `attempt` counts from 1: the broker's count plus the retries made here. `first_seen` is the wall clock at its
    arrival. `lost` means that it is no longer ours and must not be settled, `leaving` that it soon will not be, so that
    there is no retry here. `reason` is set once it is given up and only its dead letter is still to be published.
    `lease_until` is a time of the loop, and matters only with leases.
    """

    delivery: Delivery
    session: Any
    attempt: int
    first_seen: float
    lease_until: float = 0.0
    lane: Any = None
    phase: int = QUEUED
    lost: bool = False
    leaving: bool = False
    worker: Any = None
    timer: Any = None
    reason: str | None = None


class Schedule:
    """The queue of deliveries that may start, and the lanes that keep order.

    `active` counts deliveries that run, may start, or wait behind one that does; `waiting` those that are parked for
    a retry, or wait behind a parked one. A retry so never uses up the room of deliveries that could go on.
    """

    __slots__ = ("_lanes", "_ordering", "active", "ready", "waiting")

    def __init__(self, ordering: Ordering) -> None:
        self.ready: deque[Held] = deque()
        self.active = 0
        self.waiting = 0
        self._ordering = ordering
        self._lanes: dict[str, Lane] = {}

    @property
    def ordered(self) -> bool:
        """Whether deliveries wait for each other."""
        return self._ordering is not Ordering.NONE

    def add(self, held: Held) -> None:
        """Take in a new delivery, behind the others of its key."""
        key = self._key(held.delivery)
        if key is not None:
            lane = self._lanes.get(key)
            if lane is not None:
                held.lane = lane
                lane.queue.append(held)
                if lane.parked:
                    self.waiting += 1
                else:
                    self.active += 1
                return
            held.lane = self._lanes[key] = Lane(key)
        self.active += 1
        self.ready.append(held)

    def finish(self, held: Held) -> None:
        """Let go of a running delivery; the next one of its key may start."""
        held.phase = DONE
        self.active -= 1
        if held.lane is not None:
            self.advance(held.lane)

    def park(self, held: Held) -> None:
        """Put a running delivery aside for a retry; its key waits with it."""
        held.phase = PARKED
        self._shift(held.lane, parked=True)

    def unpark(self, held: Held) -> None:
        """Let a parked delivery start again."""
        held.phase = QUEUED
        held.timer = None
        self._shift(held.lane, parked=False)
        self.ready.append(held)

    def remove(self, held: Held) -> None:
        """Take out a delivery that is not running. A timer of it is cancelled."""
        lane: Lane | None = held.lane
        if held.phase == PARKED:
            if held.timer is not None:
                held.timer.cancel()
                held.timer = None
            self._shift(lane, parked=False)
            self.finish(held)
        elif lane is not None and held in lane.queue:
            lane.queue.remove(held)
            held.phase = DONE
            if lane.parked:
                self.waiting -= 1
            else:
                self.active -= 1
        elif held.phase == QUEUED:
            self.ready.remove(held)
            self.finish(held)

    def behind(self, held: Held) -> list[Held]:
        """Return what waits behind a delivery, in order."""
        if held.lane is None:
            return []
        queue = list(held.lane.queue)
        return queue[queue.index(held) + 1 :] if held in queue else queue

    def take_unstarted(self, session: Session) -> list[Held]:
        """Take out the deliveries of a session that no handler has begun, each key's in order."""
        found = [held for held in self._unstarted() if held.session is session]
        for held in found:
            self.remove(held)
        return found

    def advance(self, lane: Lane) -> None:
        """Move up the next delivery of a lane whose head is done."""
        if lane.queue:
            self.ready.append(lane.queue.popleft())
        elif self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]

    def _unstarted(self) -> Iterator[Held]:
        yield from self.ready
        for lane in self._lanes.values():
            yield from lane.queue

    def _key(self, delivery: Delivery) -> str | None:
        if self._ordering is Ordering.KEY:
            return delivery.key
        return "" if self._ordering is Ordering.ALL else None

    def _shift(self, lane: Lane | None, *, parked: bool) -> None:
        count = 1
        if lane is not None:
            lane.parked = parked
            count += len(lane.queue)
        if not parked:
            count = -count
        self.active -= count
        self.waiting += count
