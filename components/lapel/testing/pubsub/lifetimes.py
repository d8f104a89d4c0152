"""Times in a message: until when it may be delivered, and from when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from ...descriptor import Capability
from ...errors import InvalidArgumentError, UnsupportedError
from ...pubsub import Message, PublishRequest, PubSub
from ..marks import contract, lacks, needs, row
from .base import Inbox, PubSubBase, left_over, send

__all__ = ["LifetimeTests"]

SHORT = 0.2
PASSED = 0.35
"""After so many seconds a lifetime of `SHORT` is over."""
CLOCK = 0.02
"""How far two clocks, or the rounding of one, may be apart."""


class LifetimeTests(PubSubBase):
    """Lifetimes, delays and priorities."""

    @row("stricter-049")
    @needs(Capability.MESSAGE_TTL)
    @pytest.mark.parametrize("raw", [False, True], ids=["event", "raw"])
    @contract
    async def test_a_message_past_its_lifetime_is_not_handed_out(self, bus: PubSub, topic: str, raw: bool) -> None:
        inbox = Inbox()
        async with _nobody_listens(bus, topic, inbox, raw):
            for name, arguments in _LIFETIMES.items():
                await bus.publish(topic, name.encode(), raw=raw, **arguments)
            await bus.publish(topic, b"for ever", raw=raw)
            await bus.publish(topic, b"long enough", raw=raw, ttl=60)
            await bus.publish(topic, b"argument wins", raw=raw, ttl=60, metadata={"ttl": "1ms"})
            await asyncio.sleep(PASSED)
        await inbox.expect(["for ever", "long enough", "argument wins"])
        assert [subscription for subscription in bus.subscriptions if await subscription.lag()] == []

    @row("stricter-049")
    @lacks(Capability.MESSAGE_TTL)
    @contract
    async def test_a_late_message_is_dropped_by_the_receiver_to_the_dead_letter_topic(
        self, bus: PubSub, topic: str
    ) -> None:
        passed = asyncio.Event()

        async def react(message: Message) -> None:
            if message.text() == "first":
                await passed.wait()

        inbox, dead = Inbox(react), Inbox()
        await bus.subscribe(f"{topic}-dead", dead)
        subscription = await bus.subscribe(topic, inbox, concurrency=1, dead_letter_topic=f"{topic}-dead")
        await send(bus, topic, "first")
        await inbox.until(lambda: inbox.running, lambda: "the message did not arrive")
        for name, arguments in _LIFETIMES.items():
            await bus.publish(topic, name.encode(), **arguments)
        await bus.publish(topic, b"long enough", ttl=60)
        await asyncio.sleep(PASSED)
        passed.set()
        await inbox.expect(["first", "long enough"])
        await dead.expect(_LIFETIMES)
        assert await left_over(bus, subscription) == []

    @row("stricter-049", "stricter-123")
    @lacks(Capability.MESSAGE_TTL)
    async def test_a_lifetime_without_an_envelope_is_refused(self, bus: PubSub, topic: str) -> None:
        with pytest.raises(UnsupportedError):
            await bus.publish(topic, b"raw", raw=True, ttl=1)

    @row("stricter-049")
    @contract
    async def test_a_bad_lifetime_is_refused_and_nothing_is_published(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        subscription = await bus.subscribe(topic, inbox)
        bad: list[dict[str, Any]] = [{"ttl": 0}, {"ttl": -1}, {"ttl": bus.limits.ttl_seconds + 1}]
        bad += [{"metadata": {name: text}} for name in ("ttlInSeconds", "ttl", "TTLINSECONDS") for text in ("0", "abc")]
        bad += [{"metadata": {"ttlInSeconds": text}} for text in ("-1", "1.5")]
        for arguments in bad:
            with pytest.raises(InvalidArgumentError):
                await bus.publish(topic, b"bad", **arguments)
        await send(bus, topic, "good", metadata={"ttlInSeconds": "60"})
        await inbox.expect(["good"])
        assert await left_over(bus, subscription) == []

    @row("stricter-049", "stricter-123")
    @needs(Capability.DELAYED_DELIVERY)
    @contract
    async def test_a_delayed_message_comes_later_and_not_before(self, bus: PubSub, topic: str) -> None:
        loop = asyncio.get_running_loop()
        arrived: dict[str, float] = {}

        async def react(message: Message) -> None:
            arrived[message.text()] = loop.time()

        inbox = Inbox(react)
        subscription = await bus.subscribe(topic, inbox)
        began = loop.time()
        await send(bus, topic, "delayed", delay=0.4)
        await send(bus, topic, "a little", delay=timedelta(milliseconds=200))
        await send(bus, topic, "at once", delay=0)
        await inbox.expect(["at once", "a little", "delayed"])
        assert inbox.done == ["at once", "a little", "delayed"]
        assert arrived["delayed"] - began >= 0.4 - CLOCK
        assert arrived["a little"] - began >= 0.2 - CLOCK
        assert await left_over(bus, subscription) == []

    @row("stricter-049")
    @needs(Capability.DELAYED_DELIVERY)
    async def test_a_bad_delay_is_refused(self, bus: PubSub, topic: str) -> None:
        for delay in (-1, float("nan"), float("inf")):
            with pytest.raises(InvalidArgumentError):
                await bus.publish(topic, b"bad", delay=delay)
        if (longest := bus.limits.delay_seconds) is not None:
            with pytest.raises(InvalidArgumentError):
                await bus.publish(topic, b"bad", delay=longest + 1)

    @row("stricter-049", "stricter-123")
    @lacks(Capability.DELAYED_DELIVERY)
    async def test_a_delay_is_refused(self, bus: PubSub, topic: str) -> None:
        for delay in (1, 0):
            with pytest.raises(UnsupportedError):
                await bus.publish(topic, b"later", delay=delay)

    @row("stricter-123")
    @needs(Capability.PRIORITY)
    @contract
    async def test_the_more_urgent_message_comes_first(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        async with _nobody_listens(bus, topic, inbox, raw=False):
            for priority in ("1", "3", "2"):
                await send(bus, topic, priority, metadata={"priority": priority})
        await inbox.expect(["1", "2", "3"])
        assert inbox.done == ["3", "2", "1"]

    @row("stricter-049")
    @needs(Capability.MESSAGE_TTL)
    async def test_the_driver_gets_the_lifetime_and_the_event_no_expiration(
        self, bus: PubSub, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        requests: list[PublishRequest] = []
        publish = bus.driver.publish

        async def recording(request: PublishRequest) -> None:
            requests.append(request)
            await publish(request)

        monkeypatch.setattr(bus.driver, "publish", recording)
        await bus.publish(topic, b"x", ttl=timedelta(minutes=1))
        await bus.publish(topic, b"x", metadata={"ttlInSeconds": "30"})
        await bus.publish(topic, b"x")
        assert [request.ttl for request in requests] == [60.0, 30.0, None]
        assert not [request for request in requests if b'"expiration"' in request.data]


_LIFETIMES: dict[str, dict[str, Any]] = {
    "by argument": {"ttl": SHORT},
    "by timedelta": {"ttl": timedelta(seconds=SHORT)},
    "by metadata": {"metadata": {"ttl": "200ms"}},
}


@asynccontextmanager
async def _nobody_listens(bus: PubSub, topic: str, inbox: Inbox, raw: bool) -> AsyncIterator[None]:
    """Run the body while the group exists and takes no messages; they are delivered to `inbox` after it."""
    subscription = await bus.subscribe(topic, inbox, raw=raw, concurrency=1)
    if Capability.DURABLE in bus.capabilities:
        await subscription.aclose()
        yield
        await bus.subscribe(topic, inbox, raw=raw, concurrency=1)
    elif Capability.PAUSE not in bus.capabilities:
        await subscription.aclose()
        pytest.skip("no message can be made to wait while nobody takes it")
    else:
        await subscription.pause()
        yield
        await subscription.resume()
