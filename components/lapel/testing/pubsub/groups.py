"""Several subscriptions side by side: who gets what."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import cast

import pytest

from ...component import ComponentOptions
from ...descriptor import Capability
from ...errors import LapelError
from ...pubsub import Message, PubSub
from ..marks import contract, lacks, needs, row
from ..subject import Subject
from .base import Inbox, PubSubBase, left_over, send, send_all, texts

__all__ = ["GroupTests"]


class GroupTests(PubSubBase):
    """Topics, consumer groups and patterns."""

    @row("PS-09", "PS-10", "PS-11", "PS-12")
    @contract
    async def test_two_topics_are_apart_until_and_after_one_subscription_ends(
        self, bus: PubSub, topic: str, base: str
    ) -> None:
        odd, even = Inbox(), Inbox()
        ending = await bus.subscribe(f"{topic}-odd", odd)
        staying = await bus.subscribe(f"{topic}-even", even)

        async def publish(numbers: range) -> None:
            for number in numbers:
                await send(bus, f"{topic}-odd" if number % 2 else f"{topic}-even", texts(base, [number])[0])

        for rounds in (range(11, 21), range(21, 31)):
            await publish(rounds)
            await odd.expect(texts(base, range(11, rounds.stop, 2)))
            await even.expect(texts(base, range(12, rounds.stop, 2)))
        await ending.aclose()
        await publish(range(31, 41))
        await even.expect(texts(base, range(12, 41, 2)))
        await odd.expect(texts(base, range(11, 31, 2)))
        await staying.aclose()
        await publish(range(41, 51))
        await even.expect(texts(base, range(12, 41, 2)))
        await odd.expect(texts(base, range(11, 31, 2)))
        assert bus.subscriptions == frozenset()

    @row("stricter-038")
    @needs(Capability.CONSUMER_GROUPS)
    @contract
    async def test_members_of_a_group_share_and_groups_each_get_all(self, bus: PubSub, topic: str, base: str) -> None:
        called: set[int] = set()
        everybody = asyncio.Event()

        def member(number: int) -> Inbox:
            async def react(message: Message) -> None:
                called.add(number)
                if len(called) == 3:
                    everybody.set()
                await everybody.wait()

            return Inbox(react)

        members = [member(number) for number in range(3)]
        for inbox in members:
            await bus.subscribe(topic, inbox, group=f"{topic}-shared", concurrency=1)
        alone, stranger = Inbox(), Inbox()
        await bus.subscribe(topic, alone, group=f"{topic}-alone")
        await bus.subscribe(f"{topic}-other", stranger, group=f"{topic}-shared")
        await bus.bulk_publish(topic, [text.encode() for text in texts(base, range(200))])
        await send(bus, f"{topic}-other", "other")
        await alone.expect(texts(base, range(200)))
        await stranger.expect(["other"])

        def handled() -> list[str]:
            return [text for inbox in members for text in inbox.done]

        await members[0].until(everybody.is_set, lambda: f"only members {called} were called")
        for inbox in members:
            await inbox.until(
                lambda: sum(len(one.messages) for one in members) >= 200 and not any(one.running for one in members),
                lambda: f"the group got {len(handled())} of 200 messages",
            )
        assert Counter(handled()) == Counter(texts(base, range(200)))

    @row("stricter-038")
    @needs(Capability.CONSUMER_GROUPS)
    async def test_groups_reach_across_components(self, bus: PubSub, second: PubSub, topic: str, base: str) -> None:
        mine, theirs, alone = Inbox(), Inbox(), Inbox()
        await bus.subscribe(topic, mine, group=f"{topic}-shared")
        await second.subscribe(topic, theirs, group=f"{topic}-shared")
        await second.subscribe(topic, alone, group=f"{topic}-alone")
        await bus.bulk_publish(topic, [text.encode() for text in texts(base, range(50))])
        await second.bulk_publish(topic, [text.encode() for text in texts(base, range(50, 100))])
        await alone.expect(texts(base, range(100)))
        for inbox in (mine, theirs):
            await inbox.until(
                lambda: len(mine.done) + len(theirs.done) >= 100, lambda: f"got {mine.done + theirs.done}"
            )
        assert Counter(mine.done + theirs.done) == Counter(texts(base, range(100)))

    @row("stricter-038")
    async def test_the_group_is_the_argument_or_consumer_id_or_app_id(
        self, subject: Subject, bus: PubSub, topic: str, stack: AsyncExitStack
    ) -> None:
        async with await bus.subscribe(topic, Inbox(), group="given") as subscription:
            assert subscription.group == "given"
        app = await stack.enter_async_context(self.build(subject, ComponentOptions(app_id="an-app")))
        subscription = await cast("PubSub", app).subscribe(topic, Inbox())
        variant = subject.variant({"consumerID": "an-id"})
        if variant is None:
            assert subscription.group == "an-app"
            return
        own = await stack.enter_async_context(self.build(variant, ComponentOptions(app_id="an-app")))
        subscription = await cast("PubSub", own).subscribe(topic, Inbox())
        assert subscription.group == "an-id"

    @row("stricter-039")
    @needs(Capability.CONSUMER_GROUPS)
    @pytest.mark.parametrize("groups", ["one", "two"])
    @contract
    async def test_of_two_subscriptions_to_a_topic_the_second_outlives_the_first(
        self, bus: PubSub, topic: str, groups: str
    ) -> None:
        first, second = Inbox(), Inbox()
        ending = await bus.subscribe(topic, first, group=f"{topic}-one")
        staying = await bus.subscribe(topic, second, group=f"{topic}-{groups}")
        await send_all(bus, topic, texts("before", range(10)))
        await first.until(
            lambda: len(first.done) + len(second.done) == (10 if groups == "one" else 20),
            lambda: f"got {first.done} and {second.done}",
        )
        await ending.aclose()
        before = list(second.done)
        await send_all(bus, topic, texts("after", range(10)))
        await second.expect(before + texts("after", range(10)))
        assert Counter(first.done + second.done) == Counter(
            texts("before", range(10)) * (1 if groups == "one" else 2) + texts("after", range(10))
        )
        assert await left_over(bus, staying) == []

    @row("stricter-040")
    @contract
    async def test_coming_and_going_subscriptions_disturb_no_busy_one(self, bus: PubSub, topic: str, base: str) -> None:
        busy = Inbox()
        subscription = await bus.subscribe(topic, busy)
        grouped = Capability.CONSUMER_GROUPS in bus.capabilities

        async def publish() -> None:
            for text in texts(base, range(150)):
                await send(bus, topic, text)
                await asyncio.sleep(0)

        publishing = asyncio.create_task(publish())
        for number in range(8):
            other = f"{topic}-{number}"
            if grouped and number % 2:
                async with await bus.subscribe(topic, Inbox(), group=other):
                    await asyncio.sleep(0)
            else:
                inbox = Inbox()
                async with await bus.subscribe(other, inbox):
                    await send(bus, other, "quick")
                    await inbox.expect(["quick"])
        await publishing
        await busy.expect(texts(base, range(150)))
        assert subscription.health().details["reconnects"] == 0
        assert await left_over(bus, subscription) == []

    @row("stricter-050")
    @needs(Capability.SUBSCRIBE_WILDCARDS)
    @contract
    async def test_a_pattern_gets_its_topics_by_name_and_no_others(
        self, subject: Subject, bus: PubSub, topic: str
    ) -> None:
        patterns = self.option(subject, "wildcards")
        if not patterns:
            pytest.fail("name patterns with topics that do and do not match in the option `wildcards`")
        for number, entry in enumerate(patterns):
            name = f"{topic}-{number}"
            matching = [str(one).replace("TOPIC", name) for one in entry["matching"]]
            strangers = [str(one).replace("TOPIC", name) for one in entry["strangers"]]
            inbox = Inbox()
            await bus.subscribe(str(entry["pattern"]).replace("TOPIC", name), inbox, concurrency=1)
            for concrete in [*strangers, *matching]:
                await send(bus, concrete, concrete)
            await inbox.expect(matching)
            assert [message.topic for message in inbox.messages] == inbox.seen

    @row("stricter-050")
    @lacks(Capability.SUBSCRIBE_WILDCARDS)
    async def test_without_patterns_a_star_is_refused_or_just_a_letter(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        try:
            await bus.subscribe(f"{topic}*", inbox)
        except LapelError:
            return
        await send(bus, f"{topic}-a", "stranger")
        await send(bus, f"{topic}*", "mine")
        await inbox.expect(["mine"])
