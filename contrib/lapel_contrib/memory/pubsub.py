"""pubsub.in-memory."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Future
from collections import deque
from collections.abc import Sequence

from lapel.coalesce import mark_not_sent
from lapel.delivery import inside_handler
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, ThrottledError, UnavailableError
from lapel.pubsub import (
    Consumer,
    Delivery,
    Ordering,
    PublishRequest,
    PubSubDriver,
    Settled,
    Settlement,
    SubscribeRequest,
)

from . import PUBSUB
from .groups import Group, KeyedGroup, Lane, PlainGroup
from .settings import MemoryPubSubSettings

__all__ = ["MemoryPubSub"]

_ROUTES = 4096
_BURST = 64
"""After this many messages a publisher lets others run, so that one that never waits does not stop the event loop."""


class MemoryPubSub(PubSubDriver[MemoryPubSubSettings]):
    """A broker in the memory of the process: one component is one bus.

    A message goes to every group that exists at that moment; a group ends with its last member, and what it had not
    delivered with it. A topic that ends in `*` subscribes to all longer names. At `maxPendingMessages` for one
    group, publishing waits; inside a handler of the same component, where waiting could be for ever, it raises
    `ThrottledError`. Lifetimes count from publishing, also with a delay.
    """

    descriptor = PUBSUB

    def __init__(self, settings: MemoryPubSubSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._groups: dict[tuple[str, str], tuple[Ordering, Group]] = {}
        self._routes: dict[str, list[Group]] = {}
        self._burst = 0
        self._closed = False

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self._closed = True
        for _, group in self._groups.values():
            group.close()
        self._groups.clear()
        self._routes.clear()

    async def ping(self) -> None:
        pass

    async def publish(self, request: PublishRequest) -> None:
        self._burst += 1
        groups = self._route(request.topic)
        busy = self._burst >= _BURST
        for group in groups:
            busy = busy or group.full()
        if busy:
            try:
                await self._wait(groups)
            except CancelledError as exc:
                mark_not_sent(exc)
                raise
            groups = self._route(request.topic)
        for group in groups:
            group.publish(request)

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        if self._closed:
            raise UnavailableError("the component is closed")
        name = (request.topic, request.group)
        known = self._groups.get(name)
        if known is None:
            known = self._groups[name] = (request.ordering, self._group(request))
            self._routes.clear()
        elif known[0] is not request.ordering:
            raise InvalidArgumentError(
                f"group {request.group!r} already reads topic {request.topic!r} with ordering {known[0].value!r}; "
                "all its members need the same"
            )
        return _Consumer(self, name, known[1])

    def left(self, name: tuple[str, str], group: Group) -> None:
        """End a group without members."""
        if not group.members and name in self._groups:
            del self._groups[name]
            self._routes.clear()
            group.close()

    def _group(self, request: SubscribeRequest) -> Group:
        limit = self.settings.max_pending
        if request.ordering is Ordering.NONE:
            return PlainGroup(request.topic, limit)
        return KeyedGroup(request.topic, limit, whole=request.ordering is Ordering.ALL)

    def _route(self, topic: str) -> list[Group]:
        groups = self._routes.get(topic)
        if groups is None:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            groups = self._routes[topic] = [group for _, group in self._groups.values() if group.matches(topic)]
        return groups

    async def _wait(self, groups: Sequence[Group]) -> None:
        """Let others run, and wait for room in all groups."""
        if inside_handler(self):
            for group in groups:
                if group.at_limit():
                    raise ThrottledError(
                        f"{self.settings.max_pending} messages wait already (maxPendingMessages), and waiting for room "
                        "inside a handler could be for ever; publish less, or return Outcome.RETRY"
                    )
            return
        self._burst = 0
        await asyncio.sleep(0)
        reserved: list[Group] = []
        try:
            # Everybody reserves in the order in which the groups were made, so nobody waits in a circle.
            for group in groups:
                await group.reserve()
                reserved.append(group)
        except BaseException:
            for group in reserved:
                group.unreserve(used=False)
            raise
        for group in reserved:
            group.unreserve(used=True)
        if self._closed:
            raise UnavailableError("the component was closed while publishing waited for room")


class _Consumer(Consumer):
    """A member of a group."""

    def __init__(self, driver: MemoryPubSub, name: tuple[str, str], group: Group) -> None:
        self.lanes: deque[Lane] = deque()
        self.outstanding: dict[Delivery, Lane | None] = {}
        self._driver = driver
        self._name = name
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._waiter: Future[None] | None = None
        self._paused = False
        self._closed = False
        group.members.add(self)

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        end = 0.0
        while True:
            if self._closed:
                raise UnavailableError("the consumer is closed")
            if not self._paused:
                taken = self._group.take(self, max_messages)
                if taken:
                    return taken
            now = self._loop.time()
            end = end or now + max_wait
            if now >= end:
                return ()
            await self._wait(end)

    async def settle(self, settled: Sequence[Settled]) -> None:
        group = self._group
        for item in settled:
            if item.settlement is Settlement.RETRY:
                group.give_back(self, item.delivery, item.delay, counted=True)
            else:
                group.done(self, item.delivery)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._group.give_back(self, delivery, 0.0, counted=False)

    async def pause(self) -> None:
        self._paused = True
        self.wake()
        # It may have been woken for a message that it does not take now.
        self._group.wake_another()

    async def resume(self) -> None:
        self._paused = False
        self.wake()

    async def lag(self) -> int:
        return self._group.held

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._group.leave(self)
            self._driver.left(self._name, self._group)
            self.wake()

    def wake(self) -> None:
        """Look for messages again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, end: float) -> None:
        self._waiter = self._loop.create_future()
        if not self._paused:
            self._group.waiting[self] = None
        timer = self._loop.call_at(end, self.wake)
        try:
            await self._waiter
        except CancelledError:
            if self not in self._group.waiting:
                # It was woken for a message that it will not take.
                self._group.wake_another()
            raise
        finally:
            self._waiter = None
            self._group.waiting.pop(self, None)
            timer.cancel()
