"""The queues behind pubsub.in-memory: one for each topic (or pattern) and consumer group."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from asyncio import Future, TimerHandle
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Protocol

from lapel.pubsub import Delivery, PublishRequest

__all__ = ["Group", "KeyedGroup", "Lane", "Member", "PlainGroup"]

_numbers = count(1)


class Lane:
    """The messages of one key. While `out` of them are in a member's hands, that member, the `owner`, gets the next."""

    __slots__ = ("blocked", "key", "out", "owner", "queue")

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.queue: deque[Delivery] = deque()
        self.owner: Member | None = None
        self.out = 0
        self.blocked = False


class Member(Protocol):
    """What a group knows of a consumer. `lanes` are hints at lanes of its own that have messages."""

    lanes: deque[Lane]
    outstanding: dict[Delivery, Lane | None]

    def wake(self) -> None:
        """Look for messages again."""


class Group(ABC):
    """Messages for the members of one group, at most `limit` waiting.

    The handle of a delivery is its number, by which order is restored, and the loop's time at which it expires.
    """

    def __init__(self, pattern: str, limit: int) -> None:
        self.pattern = pattern
        self.members: set[Member] = set()
        self.waiting: dict[Member, None] = {}
        """Members whose `receive` found nothing, first come first served."""
        self.held = 0
        """Messages that wait: in queues and on timers."""
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._prefix = pattern[:-1] if pattern.endswith("*") else None
        self._space: deque[Future[None]] = deque()
        self._reserved = 0
        self._timers: set[TimerHandle] = set()
        self._mortal = False

    def matches(self, topic: str) -> bool:
        """Tell whether a topic is meant. A pattern `abc*` means longer names only."""
        if self._prefix is None:
            return topic == self.pattern
        return len(topic) > len(self._prefix) and topic.startswith(self._prefix)

    @abstractmethod
    def add(self, delivery: Delivery) -> None:
        """Queue a message at the end."""

    @abstractmethod
    def take(self, member: Member, most: int) -> list[Delivery]:
        """Hand out up to `most` messages that this member may have now."""

    @abstractmethod
    def done(self, member: Member, delivery: Delivery) -> None:
        """Forget a message that a member has."""

    @abstractmethod
    def give_back(self, member: Member, delivery: Delivery, delay: float, *, counted: bool) -> None:
        """Queue a message that a member has again: where it was if order is kept, not before `delay` seconds."""

    @abstractmethod
    def _purge(self, now: float) -> None:
        """Drop what has expired."""

    def publish(self, request: PublishRequest) -> None:
        """Store a message; the caller has made sure that there is room."""
        expires = 0.0
        if request.ttl is not None:
            expires = self._loop.time() + request.ttl
            self._mortal = True
        delivery = Delivery(
            (next(_numbers), expires),
            request.topic,
            request.data,
            dict(request.metadata) if request.metadata else request.metadata,
            request.content_type,
            request.key,
            1,
        )
        self.held += 1
        if request.delay:
            self._later(request.delay, delivery)
        else:
            self.add(delivery)

    def leave(self, member: Member) -> None:
        """Let a member go; what it has not settled is for the others."""
        for delivery in list(member.outstanding):
            self.give_back(member, delivery, 0.0, counted=True)
        self.members.discard(member)
        self.waiting.pop(member, None)
        self.wake_another()

    def close(self) -> None:
        """Drop everything."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for waiter in self._space:
            if not waiter.done():
                waiter.set_result(None)
                self._reserved += 1
        self._space.clear()

    # room

    def full(self) -> bool:
        """Tell whether a publisher must wait: for room, or behind others that do."""
        return bool(self._space) or self.at_limit()

    def at_limit(self) -> bool:
        """Tell whether there is no room."""
        if self.held + self._reserved < self._limit:
            return False
        if self._mortal:
            self._purge(self._loop.time())
        return self.held + self._reserved >= self._limit

    async def reserve(self) -> None:
        """Wait for room and keep it until `unreserve`. Cancelled, it has kept nothing."""
        if not self.full():
            self._reserved += 1
            return
        waiter = self._loop.create_future()
        self._space.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.unreserve(used=False)
            else:
                self._space.remove(waiter)
            raise

    def unreserve(self, *, used: bool) -> None:
        """Give up the room that `reserve` kept, to put a message there or to let somebody else in."""
        self._reserved -= 1
        if not used:
            self._grant()

    def _grant(self) -> None:
        # Publishers are let in when half is free: one wake-up for many messages.
        if not self._space or self.held > self._limit // 2:
            return
        while self._space and self.held + self._reserved < self._limit:
            waiter = self._space.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._reserved += 1

    # for the two kinds

    def wake_another(self) -> None:
        """Have a waiting member look for messages."""
        if self.waiting:
            member = next(iter(self.waiting))
            del self.waiting[member]
            member.wake()

    def _later(self, delay: float, delivery: Delivery) -> None:
        def due() -> None:
            self._timers.discard(timer)
            self.add(delivery)

        timer = self._loop.call_later(delay, due)
        self._timers.add(timer)


class PlainGroup(Group):
    """First in, first out, each message for whoever asks first."""

    def __init__(self, pattern: str, limit: int) -> None:
        super().__init__(pattern, limit)
        self._queue: deque[Delivery] = deque()

    def add(self, delivery: Delivery) -> None:
        self._queue.append(delivery)
        if self.waiting:
            self.wake_another()

    def take(self, member: Member, most: int) -> list[Delivery]:
        queue, outstanding = self._queue, member.outstanding
        taken: list[Delivery] = []
        while queue and len(taken) < most:
            delivery = queue.popleft()
            self.held -= 1
            if delivery.handle[1] and delivery.handle[1] <= self._loop.time():
                continue
            outstanding[delivery] = None
            taken.append(delivery)
        if self._space:
            self._grant()
        return taken

    def done(self, member: Member, delivery: Delivery) -> None:
        member.outstanding.pop(delivery, None)

    def give_back(self, member: Member, delivery: Delivery, delay: float, *, counted: bool) -> None:
        if member.outstanding.pop(delivery, self) is self:
            return
        self.held += 1
        again = _again(delivery, counted=counted)
        if delay > 0:
            self._later(delay, again)
            return
        self._queue.insert(_place(self._queue, again), again)
        if self.waiting:
            self.wake_another()

    def _purge(self, now: float) -> None:
        before = len(self._queue)
        self._queue = _living(self._queue, now)
        self.held -= before - len(self._queue)


class KeyedGroup(Group):
    """The messages of one key to one member at a time, in order; with `whole`, all messages are of one key.

    A lane that has messages and is not blocked has a hint in `_free` if it has no owner, else with its owner. Hints
    may be stale or double and are checked when they are used.
    """

    def __init__(self, pattern: str, limit: int, *, whole: bool) -> None:
        super().__init__(pattern, limit)
        self._whole = whole
        self._lanes: dict[str, Lane] = {}
        self._free: deque[Lane] = deque()

    def add(self, delivery: Delivery) -> None:
        lane = self._lane(delivery)
        lane.queue.append(delivery)
        if len(lane.queue) == 1:
            self._hint(lane)

    def take(self, member: Member, most: int) -> list[Delivery]:
        taken: list[Delivery] = []
        while len(taken) < most:
            if member.lanes:
                lane = member.lanes.popleft()
                mine = lane.owner is member
            elif self._free:
                lane = self._free.popleft()
                mine = lane.owner is None
            else:
                break
            if not mine or lane.blocked or not lane.queue:
                continue
            delivery = lane.queue.popleft()
            self.held -= 1
            if delivery.handle[1] and delivery.handle[1] <= self._loop.time():
                self._settle_lane(lane)
                continue
            lane.owner = member
            lane.out += 1
            member.outstanding[delivery] = lane
            taken.append(delivery)
            if lane.queue:
                member.lanes.append(lane)
        self._grant()
        return taken

    def done(self, member: Member, delivery: Delivery) -> None:
        lane = member.outstanding.pop(delivery, None)
        if lane is not None:
            lane.out -= 1
            self._settle_lane(lane)

    def give_back(self, member: Member, delivery: Delivery, delay: float, *, counted: bool) -> None:
        lane = member.outstanding.pop(delivery, None)
        if lane is None:
            return
        again = _again(delivery, counted=counted)
        lane.queue.insert(_place(lane.queue, again), again)
        self.held += 1
        lane.out -= 1
        if delay > 0:
            lane.blocked = True
            self._unblock_later(delay, lane)
        self._settle_lane(lane)

    def _lane(self, delivery: Delivery) -> Lane:
        key = "" if self._whole else delivery.key
        if key is None:
            return Lane(None)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
        return lane

    def _settle_lane(self, lane: Lane) -> None:
        """Restore the promises about a lane that has changed."""
        if lane.out == 0:
            lane.owner = None
            if not lane.queue:
                if lane.key is not None and self._lanes.get(lane.key) is lane:
                    del self._lanes[lane.key]
                return
        self._hint(lane)

    def _hint(self, lane: Lane) -> None:
        if lane.blocked or not lane.queue:
            return
        if lane.owner is None:
            self._free.append(lane)
            self.wake_another()
        else:
            lane.owner.lanes.append(lane)
            if lane.owner in self.waiting:
                del self.waiting[lane.owner]
                lane.owner.wake()

    def _unblock_later(self, delay: float, lane: Lane) -> None:
        def due() -> None:
            self._timers.discard(timer)
            lane.blocked = False
            self._hint(lane)

        timer = self._loop.call_later(delay, due)
        self._timers.add(timer)

    def _purge(self, now: float) -> None:
        for lane in list(self._lanes.values()):
            before = len(lane.queue)
            lane.queue = _living(lane.queue, now)
            self.held -= before - len(lane.queue)
            if not lane.queue:
                self._settle_lane(lane)


def _again(delivery: Delivery, *, counted: bool) -> Delivery:
    return Delivery(
        delivery.handle,
        delivery.topic,
        delivery.data,
        delivery.metadata,
        delivery.content_type,
        delivery.key,
        (delivery.attempt or 0) + counted,
    )


def _place(queue: deque[Delivery], delivery: Delivery) -> int:
    """Return where a returned message belongs: behind those that are older."""
    place = 0
    while place < len(queue) and queue[place].handle[0] < delivery.handle[0]:
        place += 1
    return place


def _living(queue: Iterable[Delivery], now: float) -> deque[Delivery]:
    return deque(item for item in queue if not item.handle[1] or item.handle[1] > now)
