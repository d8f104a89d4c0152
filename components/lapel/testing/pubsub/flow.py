"""Too fast, too slow, paused and closed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from ...component import CLOSE_SECONDS
from ...descriptor import Capability
from ...errors import ClosedError, InvalidArgumentError, ThrottledError, UnsupportedError
from ...pubsub import Message, Ordering, PublishEntry, PubSub, SubscribeRequest
from ..lifecycle import wait_until
from ..marks import contract, lacks, needs, row
from ..subject import Subject
from .base import QUICK, Inbox, PubSubBase, for_ever, left_over, send, send_all, texts

__all__ = ["FlowTests"]

FLOOD = 10_000
CONCURRENCY = 50
LONGEST_LEASE = 3.0


class FlowTests(PubSubBase):
    """Back-pressure, pause, leases and the end."""

    @row("stricter-042")
    async def test_a_slow_handler_bounds_what_is_held_and_nothing_is_lost(self, bus: PubSub, topic: str) -> None:
        gate = asyncio.Event()
        count: dict[bytes, int] = {}
        published = most = 0

        async def handle(message: Message) -> None:
            nonlocal most
            await gate.wait()
            most = max(most, subscription.in_flight)
            count[message.data] = count.get(message.data, 0) + 1

        async def publish() -> None:
            nonlocal published
            for start in range(0, FLOOD, 250):
                entries = [PublishEntry(data=b"%d" % number) for number in range(start, start + 250)]
                outcomes = await bus.bulk_publish(topic, entries)
                assert not [outcome for outcome in outcomes if outcome.error is not None]
                published = start + 250

        subscription = await bus.subscribe(topic, handle, concurrency=CONCURRENCY)
        publishing = asyncio.create_task(publish())
        before = -1
        while not publishing.done() and before < published:
            before = published
            await asyncio.wait((publishing,), timeout=0.3)
        assert subscription.in_flight <= 4 * CONCURRENCY
        gate.set()
        await publishing

        async def complete() -> bool:
            return len(count) == FLOOD

        await wait_until(complete, lambda: f"{len(count)} of {FLOOD} messages arrived", seconds=90)
        assert most <= 4 * CONCURRENCY
        assert set(count.values()) == {1}
        assert await left_over(bus, subscription) == []

    @row("stricter-042", "stricter-053")
    @contract
    async def test_publish_waits_at_the_bound_and_can_be_cancelled(
        self, subject: Subject, bus: PubSub, topic: str
    ) -> None:
        limit = self._limit(subject)
        gate = asyncio.Event()

        async def react(message: Message) -> None:
            await gate.wait()

        inbox = Inbox(react)
        await bus.subscribe(topic, inbox, concurrency=1)
        stored: list[str] = []

        async def publish(text: str) -> None:
            await send(bus, topic, text)
            stored.append(text)

        waiting: set[asyncio.Task[None]] = set()
        for number in range(limit + 20):
            task = asyncio.create_task(publish(f"{number}"))
            _, late = await asyncio.wait((task,), timeout=0.3 if number >= limit else None)
            waiting |= late
            if len(waiting) == 3:
                break
        assert len(waiting) == 3, "publish never waits"
        cancelled = waiting.pop()
        cancelled.cancel()
        assert isinstance((await asyncio.gather(cancelled, return_exceptions=True))[0], asyncio.CancelledError)
        gate.set()
        await asyncio.gather(*waiting)
        await send(bus, topic, "last")
        await inbox.expect([*stored, "last"])

    @row("stricter-041", "stricter-042", "stricter-053")
    async def test_at_the_bound_a_handler_is_refused_instead_of_waiting_for_itself(
        self, subject: Subject, bus: PubSub, topic: str
    ) -> None:
        limit = self._limit(subject)
        stored = ["first"]
        refused: list[ThrottledError] = []

        async def react(message: Message) -> None:
            if message.text() != "first":
                return
            for number in range(limit + 20):
                try:
                    await send(bus, topic, str(number))
                except ThrottledError as exc:
                    refused.append(exc)
                else:
                    stored.append(str(number))

        inbox = Inbox(react)
        await bus.subscribe(topic, inbox, concurrency=1)
        await send(bus, topic, "first")
        await inbox.until(lambda: "first" in inbox.done, lambda: "the handler waits for itself")
        await inbox.expect(stored)
        assert refused
        assert refused[0].retryable

    @row("stricter-056")
    @lacks(Capability.PAUSE)
    async def test_pause_is_refused(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        subscription = await bus.subscribe(topic, inbox)
        with pytest.raises(UnsupportedError):
            await subscription.pause()
        await send(bus, topic, "goes on")
        await inbox.expect(["goes on"])

    @row("stricter-056")
    @needs(Capability.PAUSE)
    @contract
    async def test_pause_stops_calls_and_resume_brings_the_backlog(self, bus: PubSub, topic: str) -> None:
        paused, witness = Inbox(), Inbox()
        subscription = await bus.subscribe(topic, paused)
        grouped = Capability.CONSUMER_GROUPS in bus.capabilities
        if grouped:
            await bus.subscribe(topic, witness, group=f"{topic}-witness")
        sent: list[str] = []
        for number in range(2):
            for _ in range(2):
                await subscription.pause()
            assert subscription.paused is True
            before = list(paused.seen)
            news = texts(str(number), range(5))
            for text in news:
                await send(bus, topic, text)
                sent.append(text)
                if grouped:
                    await witness.expect(sent)
            assert paused.seen == before
            for _ in range(2):
                await subscription.resume()
            assert subscription.health().details["paused"] is False
            await paused.expect(sent)
        assert await left_over(bus, subscription) == []

    @row("stricter-056")
    @needs(Capability.PAUSE)
    @contract
    async def test_a_paused_subscription_can_be_closed_and_loses_nothing(self, bus: PubSub, topic: str) -> None:
        running, finish = Inbox(for_ever), Inbox()
        subscription = await bus.subscribe(topic, running, concurrency=1, drain_timeout=0)
        await send_all(bus, topic, texts("", range(4)))
        await running.until(lambda: running.running, lambda: "the message did not arrive")
        await subscription.pause()
        following = await bus.subscribe(topic, finish, group=subscription.group)
        await subscription.aclose()
        await finish.expect(texts("", range(4)))
        assert await left_over(bus, following) == []

    @row("stricter-057")
    @needs(Capability.CONSUMER_GROUPS)
    @contract
    async def test_a_handler_slower_than_the_lease_keeps_its_message(self, bus: PubSub, topic: str) -> None:
        async def revoked(*_: object) -> None:
            pass

        consumer = await bus.driver.subscribe(SubscribeRequest(topic, "lease", Ordering.NONE, 1, revoked))
        lease = consumer.lease_seconds
        await consumer.close()
        if lease is None or lease > LONGEST_LEASE:
            pytest.skip("the broker takes no message back, or leaves it longer than a test can wait")

        async def react(message: Message) -> None:
            await asyncio.sleep(2.2 * lease)

        inbox = Inbox(react)
        first = await bus.subscribe(topic, inbox, concurrency=1)
        second = await bus.subscribe(topic, inbox, concurrency=1)
        await send(bus, topic, "long")
        await inbox.expect(["long"])
        assert inbox.most == 1
        assert inbox.seen == ["long"]
        await first.aclose()
        assert await left_over(bus, second) == []

    @row("stricter-052")
    @contract
    async def test_a_closing_subscription_waits_for_its_handlers_and_settles(self, bus: PubSub, topic: str) -> None:
        release = asyncio.Event()

        async def react(message: Message) -> None:
            await release.wait()

        inbox, later = Inbox(react), Inbox()
        subscription = await bus.subscribe(topic, inbox, concurrency=2)
        await send_all(bus, topic, texts("", range(2)))
        await inbox.until(lambda: inbox.running == 2, lambda: "the messages did not arrive")
        following = await bus.subscribe(topic, later, group=subscription.group, concurrency=1)
        closing = [asyncio.create_task(subscription.aclose()) for _ in range(3)]
        done, _ = await asyncio.wait(closing, timeout=0.1)
        assert not done
        release.set()
        await asyncio.gather(*closing)
        assert sorted(inbox.done) == texts("", range(2))
        assert await left_over(bus, following) == []
        assert later.seen == []

    @row("stricter-052")
    @pytest.mark.parametrize("patience", [0.0, 30.0], ids=["cancels", "waits"])
    async def test_a_closing_component_settles_what_ended_and_calls_nobody_after(
        self, subject: Subject, topic: str, patience: float, stack: AsyncExitStack
    ) -> None:
        bus = cast("PubSub", await self.build(subject).open())
        release = asyncio.Event()

        async def react(message: Message) -> None:
            await release.wait()

        inbox = Inbox(react)
        await bus.subscribe(topic, inbox, concurrency=1, drain_timeout=patience)
        await send_all(bus, topic, texts("", range(3)))
        await inbox.until(lambda: inbox.running, lambda: "the message did not arrive")
        closing = [asyncio.create_task(bus.aclose()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ClosedError):
            await bus.subscribe(topic, Inbox())
        if patience:
            release.set()
        async with asyncio.timeout(CLOSE_SECONDS * 3):
            await asyncio.gather(*closing)
            await bus.aclose()
        assert (len(inbox.messages), len(inbox.done), inbox.running) == (1, 1 if patience else 0, 0)
        with pytest.raises(ClosedError):
            await send(bus, topic, "late")
        if Capability.DURABLE in subject.flags:
            after = Inbox()
            other = cast("PubSub", await stack.enter_async_context(self.build(subject)))
            await other.subscribe(topic, after)
            await after.expect([text for text in texts("", range(3)) if text not in inbox.done])
            assert len(inbox.messages) == 1

    @row("stricter-052")
    @contract
    async def test_a_handler_can_end_its_own_subscription(self, bus: PubSub, topic: str) -> None:
        async def react(message: Message) -> None:
            await subscription.aclose()

        inbox, later = Inbox(react), Inbox()
        subscription = await bus.subscribe(topic, inbox, concurrency=1)
        following = await bus.subscribe(f"{topic}-other", later)
        await send(bus, topic, "the last one")
        await inbox.expect(["the last one"])
        await subscription.aclose()
        await send(bus, f"{topic}-other", "goes on")
        await later.expect(["goes on"])
        assert await left_over(bus, following) == []

    @row("stricter-052")
    async def test_a_handler_can_close_its_component(self, subject: Subject, topic: str) -> None:
        bus = cast("PubSub", await self.build(subject).open())

        async def react(message: Message) -> None:
            await bus.aclose()

        inbox = Inbox(react)
        await bus.subscribe(topic, inbox)
        await send(bus, topic, "the last one")
        await inbox.expect(["the last one"])
        async with asyncio.timeout(CLOSE_SECONDS * 3):
            await bus.aclose()
        with pytest.raises(ClosedError):
            await send(bus, topic, "late")

    @row("stricter-052")
    async def test_wrong_times_are_refused(self, bus: PubSub, topic: str) -> None:
        wrong: list[dict[str, Any]] = [{"max_messages": 0}, {"max_wait": -1}, {"drain_timeout": -1}]
        for terms in wrong:
            with pytest.raises(InvalidArgumentError):
                await bus.bulk_subscribe(topic, Inbox(), backoff=QUICK, **terms)  # type: ignore[arg-type]  # not called
        assert bus.subscriptions == frozenset()

    def _limit(self, subject: Subject) -> int:
        limit = str(self.option(subject, "pendingLimit"))
        if not limit:
            pytest.skip("publish never waits for room (option `pendingLimit`)")
        return int(limit)
