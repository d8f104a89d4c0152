"""Order: by key and of everything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ...descriptor import Capability
from ...errors import InvalidArgumentError, UnsupportedError
from ...pubsub import Message, Ordering, PublishEntry, PubSub
from ..marks import contract, lacks, needs, row
from .base import QUICK, Inbox, PubSubBase, left_over, send, texts

__all__ = ["OrderingTests"]

KEYS = ("a", "b", "c", "d", "e")


class OrderingTests(PubSubBase):
    """What comes before what."""

    @row("stricter-034")
    @needs(Capability.ORDER_BY_KEY)
    @contract
    async def test_five_hundred_messages_of_one_key_arrive_in_order(self, bus: PubSub, topic: str, base: str) -> None:
        inbox = Inbox()
        subscription = await bus.subscribe(topic, inbox, ordering="key")
        for text in texts(base, range(100)):
            await send(bus, topic, text, key="one")
        for start in range(100, 500, 100):
            await _bulk(bus, topic, texts(base, range(start, start + 100)), "one")
        await inbox.expect(texts(base, range(500)))
        assert inbox.done == texts(base, range(500))
        assert inbox.most == 1
        assert {message.key for message in inbox.messages} == {"one"}
        assert await left_over(bus, subscription, ordering="key") == []

    @row("stricter-034")
    @needs(Capability.ORDER_BY_KEY)
    @contract
    async def test_a_failing_message_holds_its_key_and_no_other(self, bus: PubSub, topic: str) -> None:
        broken = True

        async def react(message: Message) -> None:
            if broken and message.text() == "a-0":
                raise ValueError

        inbox = Inbox(react)
        subscription = await bus.subscribe(topic, inbox, ordering="key", backoff=QUICK)
        for number in range(10):
            for key in ("a", "b"):
                await send(bus, topic, f"{key}-{number}", key=key)
        await send(bus, topic, "without a key")
        others = [f"b-{number}" for number in range(10)]
        await inbox.expect([*others, "without a key"])
        assert [text for text in inbox.done if text in others] == others
        await inbox.until(lambda: inbox.seen.count("a-0") >= 3, lambda: "the failing message is not tried again")
        assert not [text for text in inbox.seen if text.startswith("a-") and text != "a-0"]
        broken = False
        mine = [f"a-{number}" for number in range(10)]
        await inbox.expect([*others, *mine, "without a key"])
        assert [text for text in inbox.done if text in mine] == mine
        assert await left_over(bus, subscription, ordering="key") == []

    @row("stricter-034")
    @needs(Capability.ORDER_BY_KEY)
    @needs(Capability.CONSUMER_GROUPS)
    @contract
    async def test_keys_stay_in_order_across_a_group_whose_members_fail_and_leave(
        self, bus: PubSub, topic: str
    ) -> None:
        await _in_order_across([bus, bus, bus], topic, Ordering.KEY)

    @row("stricter-034")
    @needs(Capability.ORDER_BY_KEY)
    @needs(Capability.CONSUMER_GROUPS)
    async def test_keys_stay_in_order_across_components(self, bus: PubSub, second: PubSub, topic: str) -> None:
        await _in_order_across([bus, second, second], topic, Ordering.KEY)

    @row("stricter-034")
    @needs(Capability.ORDER_ALL)
    @needs(Capability.CONSUMER_GROUPS)
    @contract
    async def test_everything_stays_in_order_across_a_group_whose_members_fail_and_leave(
        self, bus: PubSub, topic: str
    ) -> None:
        await _in_order_across([bus, bus, bus], topic, Ordering.ALL)

    @row("stricter-034")
    @needs(Capability.ORDER_ALL)
    @needs(Capability.CONSUMER_GROUPS)
    async def test_everything_stays_in_order_across_components(self, bus: PubSub, second: PubSub, topic: str) -> None:
        await _in_order_across([bus, second, second], topic, Ordering.ALL)

    @row("stricter-034")
    @needs(Capability.ORDER_ALL)
    @contract
    async def test_with_everything_in_order_one_runs_at_a_time_and_a_failure_holds_all(
        self, bus: PubSub, topic: str, base: str
    ) -> None:
        failures = 0

        async def react(message: Message) -> None:
            nonlocal failures
            await asyncio.sleep(0)
            if message.text() == texts(base, [5])[0] and failures < 3:
                failures += 1
                raise ValueError

        inbox = Inbox(react)
        subscription = await bus.subscribe(topic, inbox, ordering="all", concurrency=10, backoff=QUICK)
        for number, text in enumerate(texts(base, range(30))):
            await send(bus, topic, text, key=str(number % 3) if number % 2 else None)
        await inbox.expect(texts(base, range(30)))
        assert inbox.done == texts(base, range(30))
        assert inbox.seen == texts(base, [*range(5), 5, 5, 5, *range(5, 30)])
        assert inbox.most == 1
        assert await left_over(bus, subscription, ordering="all") == []

    @row("stricter-034", "stricter-051")
    @needs(Capability.ORDER_BY_KEY)
    @contract
    async def test_a_dead_letter_releases_its_key(self, bus: PubSub, topic: str) -> None:
        async def react(message: Message) -> None:
            if message.text() == "bad":
                raise ValueError

        inbox, dead = Inbox(react), Inbox()
        await bus.subscribe(f"{topic}-dead", dead)
        await bus.subscribe(
            topic, inbox, ordering="key", max_attempts=2, backoff=QUICK, dead_letter_topic=f"{topic}-dead"
        )
        for text in ("bad", "good", "better"):
            await send(bus, topic, text, key="one")
        await inbox.expect(["good", "better"])
        await dead.expect(["bad"])
        assert inbox.seen == ["bad", "bad", "good", "better"]

    @row("stricter-034", "stricter-047")
    @needs(Capability.ORDER_BY_KEY)
    @contract
    async def test_a_batch_holds_at_most_one_message_of_each_key(self, bus: PubSub, topic: str) -> None:
        batches: list[list[str]] = []
        inbox = Inbox()

        async def handle(messages: list[Message]) -> None:
            batches.append([message.key or "" for message in messages])
            for message in messages:
                await inbox(message)

        await bus.bulk_subscribe(topic, handle, max_messages=4, max_wait=0.05, ordering="key")
        for number in range(12):
            await send(bus, topic, f"{KEYS[number % 3]}-{number}", key=KEYS[number % 3])
        await inbox.expect([f"{KEYS[number % 3]}-{number}" for number in range(12)])
        assert all(len(set(batch)) == len(batch) for batch in batches), batches
        _assert_in_order(inbox.done)

    @row("stricter-034", "stricter-123")
    @lacks(Capability.ORDER_BY_KEY)
    async def test_order_by_key_is_refused(self, bus: PubSub, topic: str) -> None:
        with pytest.raises(UnsupportedError):
            await bus.subscribe(topic, Inbox(), ordering="key")
        assert bus.subscriptions == frozenset()

    @row("stricter-034", "stricter-123")
    @lacks(Capability.ORDER_ALL)
    async def test_order_of_everything_is_refused(self, bus: PubSub, topic: str) -> None:
        with pytest.raises(UnsupportedError):
            await bus.subscribe(topic, Inbox(), ordering="all")
        assert bus.subscriptions == frozenset()

    @row("stricter-034")
    async def test_an_unknown_order_is_refused(self, bus: PubSub, topic: str) -> None:
        with pytest.raises(InvalidArgumentError):
            await bus.subscribe(topic, Inbox(), ordering="some")


async def _in_order_across(buses: Sequence[PubSub], topic: str, ordering: Ordering) -> None:
    """Publish to a group of three, of which one leaves half-way, and see that its order is never broken."""
    lane_of = (lambda text: text.partition("-")[0]) if ordering is Ordering.KEY else (lambda text: "")
    running: set[str] = set()
    overlaps: list[str] = []
    done: list[str] = []
    failed: set[str] = set()

    async def react(message: Message) -> None:
        text = message.text()
        lane = lane_of(text)
        if lane in running or message.key != text.partition("-")[0]:
            overlaps.append(text)
        running.add(lane)
        try:
            await asyncio.sleep(0.001)
            if int(text.partition("-")[2]) % 7 == 0 and text not in failed:
                failed.add(text)
                raise ValueError
            done.append(text)
        finally:
            running.discard(lane)

    inboxes = [Inbox(react) for _ in buses]
    members = [
        await bus.subscribe(topic, inbox, group=f"{topic}-group", ordering=ordering, backoff=QUICK)
        for bus, inbox in zip(buses, inboxes, strict=True)
    ]
    every = [f"{KEYS[number % len(KEYS)]}-{number}" for number in range(150)]
    for number, text in enumerate(every):
        await send(buses[number % len(buses)], topic, text, key=text.partition("-")[0])
        if number == 60:
            await members[0].aclose()

    def missing() -> str:
        return f"{len(done)} of {len(every)} messages were handled"

    for inbox in inboxes[1:]:
        await inbox.until(lambda: len(done) >= len(every), missing)
    assert overlaps == []
    if ordering is Ordering.ALL:
        assert done == every
    else:
        assert sorted(done) == sorted(every)
        _assert_in_order(done)
    for member in members[1:]:
        await member.aclose()


def _assert_in_order(done: Sequence[str]) -> None:
    for key in KEYS:
        numbers = [int(text.partition("-")[2]) for text in done if text.startswith(f"{key}-")]
        assert numbers == sorted(numbers), f"key {key!r} arrived as {numbers}"


async def _bulk(bus: PubSub, topic: str, messages: Sequence[str], key: str) -> None:
    outcomes = await bus.bulk_publish(topic, [PublishEntry(data=text.encode(), key=key) for text in messages])
    assert not [outcome.error for outcome in outcomes if outcome.error is not None]
