"""What pubsub.in-memory promises beyond every driver: one bus a component, lifetimes, order across a group."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery_support import QUICK, now, until, virtual
from tests.unit.pubsub_memory_support import Inbox, memory

from lapel.delivery import Ordering, Outcome
from lapel.descriptor import Capability
from lapel.errors import InvalidArgumentError
from lapel.pubsub import Message
from lapel_contrib.memory import PUBSUB
from lapel_contrib.memory.pubsub import MemoryPubSub
from lapel_contrib.memory.settings import MemoryPubSubSettings


def test_the_catalogue_entry_is_that_of_the_driver() -> None:
    assert MemoryPubSub.descriptor is PUBSUB
    assert PUBSUB.settings_model() is MemoryPubSubSettings
    assert Capability.DURABLE not in PUBSUB.capabilities


# groups and topics


@virtual
async def test_members_of_a_group_share_and_each_group_gets_all() -> None:
    first, second, other, stranger = Inbox(0.01), Inbox(0.01), Inbox(), Inbox()
    async with memory() as bus:
        await bus.subscribe("t", first, group="g")
        await bus.subscribe("t", second, group="g")
        await bus.subscribe("t", other, group="h")
        await bus.subscribe("u", stranger, group="g")
        for number in range(200):
            await bus.publish("t", str(number).encode())
        await until(lambda: len(first.got) + len(second.got) == 200 and len(other.got) == 200)
    assert Counter(first.data + second.data) == Counter(other.data)
    assert first.got
    assert second.got
    assert stranger.got == []


@virtual
async def test_a_group_starts_from_now_and_gets_the_first_message_after_subscribe_returned() -> None:
    inbox = Inbox()
    async with memory() as bus:
        await bus.publish("t", b"before")
        await bus.subscribe("t", inbox)
        await bus.publish("t", b"after")
        await until(lambda: inbox.data == [b"after"])


@virtual
async def test_a_pattern_means_longer_names_only_and_the_message_has_the_concrete_topic() -> None:
    wild, exact = Inbox(), Inbox()
    async with memory() as bus:
        await bus.subscribe("order*", wild)
        await bus.subscribe("orders", exact)
        for topic in ("order", "orders", "order.eu", "ordex", "Orders", "order*"):
            await bus.publish(topic, topic.encode())
        await until(lambda: len(wild.got) == 3)
        await asyncio.sleep(1)
    assert [message.topic for message in wild.got] == ["orders", "order.eu", "order*"]
    assert [message.topic for message in exact.got] == ["orders"]


@virtual
async def test_components_are_separate_buses() -> None:
    inbox = Inbox()
    async with memory("one") as one, memory("two") as two:
        await one.subscribe("t", inbox)
        await two.publish("t", b"x")
        await asyncio.sleep(1)
    assert inbox.got == []


@virtual
async def test_what_a_closed_member_had_not_finished_goes_to_another() -> None:
    slow, quick = Inbox(1000), Inbox()
    async with memory() as bus:
        leaving = await bus.subscribe("t", slow, concurrency=2, drain_timeout=0)
        for number in range(6):
            await bus.publish("t", str(number).encode())
        await asyncio.sleep(0.1)
        await bus.subscribe("t", quick)
        await until(lambda: len(quick.got) == 2)
        await leaving.aclose()
        await until(lambda: len(quick.got) == 6)
    assert slow.got == []
    attempts = {message.data: message.attempt for message in quick.got}
    assert attempts == {b"0": 2, b"1": 2, b"2": 1, b"3": 1, b"4": 1, b"5": 1}


@virtual
async def test_one_of_two_subscriptions_of_different_groups_can_end_alone() -> None:
    first, second = Inbox(), Inbox()
    async with memory() as bus:
        ending = await bus.subscribe("t", first, group="1")
        await bus.subscribe("t", second, group="2")
        await ending.aclose()
        await bus.publish("t", b"x")
        await until(lambda: second.data == [b"x"])
    assert first.got == []


@virtual
async def test_members_of_a_group_must_agree_on_the_order() -> None:
    async with memory() as bus:
        await bus.subscribe("t", Inbox(), ordering="key")
        with pytest.raises(InvalidArgumentError, match="'key'"):
            await bus.subscribe("t", Inbox())


# redelivery, lifetime, delay


@virtual
async def test_a_failed_message_comes_again_after_the_back_off_with_its_count() -> None:
    seen: list[tuple[int, float]] = []

    async def handle(message: Message) -> Outcome | None:
        seen.append((message.attempt, now() - began))
        return Outcome.RETRY if message.attempt < 3 else None

    async with memory() as bus:
        await bus.subscribe("t", handle, backoff=QUICK)
        began = now()
        await bus.publish("t", b"x", key="k", metadata={"a": "b"})
        await until(lambda: len(seen) == 3)
        await asyncio.sleep(60)
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert [moment for _, moment in seen] == [pytest.approx(moment, abs=0.1) for moment in (0, 1, 2)]


@pytest.mark.parametrize("ordering", list(Ordering))
@virtual
async def test_a_message_whose_lifetime_has_passed_is_not_delivered(ordering: Ordering) -> None:
    inbox = Inbox()
    async with memory() as bus:
        subscription = await bus.subscribe("t", inbox, ordering=ordering)
        await subscription.pause()
        await bus.publish("t", b"short", ttl=5, key="k")
        await bus.publish("t", b"long", ttl=50, key="k")
        await bus.publish("t", b"ever", key="k")
        await asyncio.sleep(10)
        await subscription.resume()
        await until(lambda: inbox.data == [b"long", b"ever"])
        assert await subscription.lag() == 0


@virtual
async def test_a_delayed_message_comes_later() -> None:
    times: dict[bytes, float] = {}

    async def handle(message: Message) -> None:
        times[message.data] = now() - began

    async with memory() as bus:
        await bus.subscribe("t", handle)
        began = now()
        await bus.publish("t", b"later", delay=30)
        await bus.publish("t", b"at once", delay=0)
        await until(lambda: len(times) == 2)
    assert times == {b"at once": pytest.approx(0, abs=0.1), b"later": pytest.approx(30, abs=0.1)}


@virtual
async def test_attributes_are_those_at_the_time_of_publishing() -> None:
    inbox = Inbox()
    metadata = {"a": "b"}
    async with memory() as bus:
        await bus.subscribe("t", inbox)
        await bus.publish("t", b"", metadata=metadata)
        metadata["a"] = "changed"
        await until(lambda: bool(inbox.got))
    assert inbox.got[0].metadata == {"a": "b"}


# order


@given(
    ordering=st.sampled_from([Ordering.KEY, Ordering.ALL]),
    plan=st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(0, 2)),
            st.tuples(st.just("join"), st.just(0)),
            st.tuples(st.just("leave"), st.integers(0, 3)),
            st.tuples(st.just("pause"), st.integers(0, 3)),
            st.tuples(st.just("resume"), st.integers(0, 3)),
            st.tuples(st.just("wait"), st.integers(1, 4)),
        ),
        max_size=40,
    ),
    fails=st.sets(st.integers(0, 39)),
)
def test_order_holds_across_the_members_of_a_group_whoever_comes_and_goes(
    ordering: Ordering, plan: list[tuple[str, int]], fails: set[int]
) -> None:
    @virtual
    async def scenario() -> None:
        running: Counter[int] = Counter()
        finished: defaultdict[int, list[int]] = defaultdict(list)
        tried: set[int] = set()

        async def handle(message: Message) -> Outcome | None:
            number = int(message.data)
            lane = int(message.key or 0) if ordering is Ordering.KEY else 0
            assert running[lane] == 0
            running[lane] += 1
            try:
                await asyncio.sleep(0.7)
            finally:
                running[lane] -= 1
            if number in fails and number not in tried:
                tried.add(number)
                return Outcome.RETRY
            finished[lane].append(number)
            return None

        async with memory() as bus:

            async def join() -> None:
                members.append(
                    await bus.subscribe("t", handle, ordering=ordering, concurrency=3, backoff=QUICK, drain_timeout=1)
                )

            members: list[Any] = []
            await join()
            count = 0
            for step, value in plan:
                member = members[value % len(members)]
                if step == "publish":
                    await bus.publish("t", str(count).encode(), key=str(value))
                    count += 1
                elif step == "join" and len(members) < 4:
                    await join()
                elif step == "leave" and len(members) > 1:
                    members.remove(member)
                    await member.aclose()
                elif step == "pause":
                    await member.pause()
                elif step == "resume":
                    await member.resume()
                else:
                    await asyncio.sleep(value)
            for member in members:
                await member.resume()
            await until(lambda: sum(map(len, finished.values())) == count)
            await asyncio.sleep(10)
        assert sum(map(len, finished.values())) == count
        for numbers in finished.values():
            assert numbers == sorted(numbers)

    scenario()
