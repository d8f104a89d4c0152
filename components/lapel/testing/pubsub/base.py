"""What the tests of pub/sub have in common."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar, cast

import pytest
import pytest_asyncio

from ...component import Component, HealthState
from ...descriptor import Capability, Kind
from ...errors import ClosedError
from ...pubsub import Backoff, Message, Outcome, PubSub, PubSubDriver, Subscription
from ..harness import ComponentHooks, Operations
from ..subject import Subject

__all__ = ["QUICK", "Inbox", "PubSubBase", "for_ever", "left_over", "send", "send_all", "texts"]

QUICK = Backoff(initial=0.02, maximum=0.02, jitter=0.0)
"""Retries soon, so that tests do not wait for them."""

END = "the end"
WAIT_SECONDS = 20.0
"""How long messages may take to arrive."""


class PubSubBase(ComponentHooks):
    """Fixtures and hooks of the pub/sub suite."""

    kind = Kind.PUBSUB
    front = PubSub
    driver_base = PubSubDriver
    options: ClassVar[Mapping[str, Any]] = {
        **ComponentHooks.options,
        "shared": "false",
        "newGroup": "now",
        "contentType": "true",
        "pendingLimit": "",
        "wildcards": (),
        "oneActive": "false",
    }
    methods = {Capability.BULK_PUBSUB: ("bulk_publish",)}  # noqa: RUF012  # declared as a ClassVar by the base class

    @pytest_asyncio.fixture(loop_scope="function")
    async def bus(self, opened: Component[Any]) -> AsyncIterator[PubSub]:
        """Provide an open component; its subscriptions end before it closes."""
        bus = cast("PubSub", opened)
        yield bus
        await asyncio.gather(*(subscription.aclose() for subscription in bus.subscriptions))

    @pytest_asyncio.fixture(loop_scope="function")
    async def second(self, subject: Subject, bus: PubSub) -> AsyncIterator[PubSub]:
        """Provide a further component on the same broker, where the file says that there is such a thing."""
        if self.option(subject, "shared") != "true":
            pytest.skip("two components have no messages in common (option `shared`)")
        async with self.build(subject) as other:
            yield cast("PubSub", other)

    @pytest.fixture
    def topic(self, base: str) -> str:
        """Return a topic that no other test uses, of letters, digits and hyphens."""
        return f"t-{base.strip('{}')}"

    async def exercise(self, component: Component[Any], payload: str) -> None:
        """Publish a message to a topic of its own and receive it."""
        bus = cast("PubSub", component)
        topic, inbox = _topic("exercise", payload), Inbox()
        async with await bus.subscribe(topic, inbox) as subscription:
            await send(bus, topic, payload)
            await inbox.expect([payload], subscription)

    def operations(self, component: Component[Any], payload: str) -> Operations:
        """Return all operations of the component."""
        bus = cast("PubSub", component)
        topic = _topic("operations", payload)

        async def subscribe() -> None:
            async with await bus.subscribe(topic, Inbox()):
                pass

        async def bulk_subscribe() -> None:
            async def handle(messages: list[Message]) -> None:
                pass

            async with await bus.bulk_subscribe(f"{topic}-bulk", handle):
                pass

        return {
            "publish": lambda: bus.publish(topic, payload),
            "bulk_publish": lambda: bus.bulk_publish(topic, [payload, payload]),
            "subscribe": subscribe,
            "bulk_subscribe": bulk_subscribe,
        }


class Inbox:
    """A handler that keeps its messages. `react` is what it does with each; it returns what that returns.

    `messages` has an entry for each call, `done` the text of each that ended in success, in the order of the ends.
    `most` is how many calls were under way at once.
    """

    def __init__(self, react: Callable[[Message], Awaitable[Any]] | None = None) -> None:
        self.messages: list[Message] = []
        self.done: list[str] = []
        self.running = 0
        self.most = 0
        self._react = react
        self._changed = asyncio.Event()

    async def __call__(self, message: Message) -> Any:
        self.messages.append(message)
        self.running += 1
        self.most = max(self.most, self.running)
        self._changed.set()
        try:
            outcome = None if self._react is None else await self._react(message)
            if outcome is None or (isinstance(outcome, str) and outcome == Outcome.SUCCESS):
                self.done.append(_text(message))
            return outcome
        finally:
            self.running -= 1
            self._changed.set()

    @property
    def seen(self) -> list[str]:
        """The text of each call, in their order."""
        return [_text(message) for message in self.messages]

    async def until(
        self,
        condition: Callable[[], object],
        message: Callable[[], str],
        subscription: Subscription | None = None,
    ) -> None:
        """Return as soon as `condition` holds. Raises `ClosedError` when `subscription` has ended before that."""
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT_SECONDS
        while not condition():
            if loop.time() > end:
                pytest.fail(message())
            if subscription is not None and subscription.health().state is HealthState.CLOSED:
                raise ClosedError("the subscription has ended")
            self._changed.clear()
            try:
                async with asyncio.timeout(0.2):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def calls(self, count: int) -> None:
        """Wait until it was called that often."""
        await self.until(
            lambda: len(self.messages) >= count, lambda: f"{len(self.messages)} calls instead of {count}: {self.seen}"
        )

    async def expect(self, expected: Iterable[str], subscription: Subscription | None = None) -> None:
        """Wait until these texts were handled with success, and assert that there were no others."""
        wanted = Counter(list(expected))
        await self.until(lambda: not wanted - Counter(self.done), lambda: _difference(wanted, self.done), subscription)
        assert Counter(self.done) == wanted, _difference(wanted, self.done)


async def send(bus: PubSub, topic: str, text: str, **arguments: Any) -> None:
    """Publish a text."""
    await bus.publish(topic, text.encode(), content_type="text/plain", **arguments)


async def send_all(bus: PubSub, topic: str, messages: Iterable[str], **arguments: Any) -> None:
    """Publish texts one after another."""
    for text in messages:
        await send(bus, topic, text, **arguments)


async def left_over(bus: PubSub, subscription: Subscription, **terms: Any) -> list[str]:
    """End a subscription and return what a successor of its group gets that it should have settled."""
    successor = Inbox()
    topic = subscription.topic
    async with await bus.subscribe(topic, successor, group=subscription.group, concurrency=1, **terms) as following:
        await subscription.aclose()
        await send(bus, topic, END)
        await successor.until(lambda: END in successor.done, lambda: "a successor of the group gets nothing")
        lag = await following.lag()
        assert lag in (None, 0), f"{lag} messages still wait"
    return [text for text in successor.seen if text != END]


async def for_ever(message: Message) -> None:
    """Handle a message without end."""
    await asyncio.Event().wait()


def texts(base: str, numbers: Iterable[int]) -> list[str]:
    """Return messages that no other test uses."""
    return [f"message-{base}-{number}" for number in numbers]


def _text(message: Message) -> str:
    return message.data.decode("utf-8", "backslashreplace")


def _topic(purpose: str, payload: str) -> str:
    return f"{purpose}-{hash(payload) & 0xFFFFFFFFFFFF:x}"


def _difference(wanted: Counter[str], got: list[str]) -> str:
    missing, surplus = wanted - Counter(got), Counter(got) - wanted
    return f"missing: {sorted(missing)[:10]}; not expected: {sorted(surplus.elements())[:10]}"
