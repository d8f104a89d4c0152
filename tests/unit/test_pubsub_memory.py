"""What pubsub.in-memory promises beyond every driver: one bus a component, bounded, ordered across the group."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery_support import now, until, virtual

from lapel.component import ComponentOptions
from lapel.delivery import Backoff, Consumer, Ordering, Outcome, Settled, Settlement
from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import DeadlineExceededError, InvalidArgumentError, ThrottledError, UnavailableError
from lapel.pubsub import Message, PublishRequest, PubSub, SubscribeRequest
from lapel_contrib.memory import PUBSUB
from lapel_contrib.memory.pubsub import MemoryPubSub
from lapel_contrib.memory.settings import MemoryPubSubSettings

QUICK = Backoff(initial=1.0, maximum=1.0, jitter=0.0)
MemoryPubSubSettings()


def memory(name: str = "bus", *, timeout: float = 5.0, **fields: Any) -> PubSub:
    driver = MemoryPubSub(MemoryPubSubSettings(**fields), DriverContext(component=name))
    return PubSub(driver, options=ComponentOptions(call_timeout=timedelta(seconds=timeout), envelope=False))


class Inbox:
    """A handler that keeps what it gets."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.got: list[Message] = []

    async def __call__(self, message: Message) -> None:
        if self.pause:
            await asyncio.sleep(self.pause)
        self.got.append(message)

    @property
    def data(self) -> list[bytes]:
        return [message.data for message in self.got]


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


# bounds


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.KEY])
@virtual
async def test_publishing_waits_while_too_many_messages_wait_and_nothing_is_lost(ordering: Ordering) -> None:
    inbox = Inbox(0.01)
    async with memory(max_pending=10) as bus:
        await bus.subscribe("t", inbox, concurrency=2, ordering=ordering)

        async def publish(publisher: int) -> None:
            for number in range(50):
                await bus.publish("t", f"{publisher}-{number}".encode(), key=str(publisher))
                lag = [await subscription.lag() for subscription in bus.subscriptions]
                assert (lag[0] or 0) <= 10

        await asyncio.gather(*map(publish, range(4)))
        await until(lambda: len(inbox.got) == 200)
    assert len(set(inbox.data)) == 200


@virtual
async def test_a_publish_that_finds_no_room_until_its_deadline_was_not_stored() -> None:
    async with memory(max_pending=2, timeout=3.0) as bus:
        subscription = await bus.subscribe("t", Inbox())
        await subscription.pause()
        await bus.publish("t", b"1")
        await bus.publish("t", b"2")
        with pytest.raises(DeadlineExceededError):
            await bus.publish("t", b"3")
        assert await subscription.lag() == 2


@virtual
async def test_a_waiting_publish_can_be_cancelled_and_gives_its_place_up() -> None:
    inbox = Inbox()
    async with memory(max_pending=1, timeout=100.0) as bus:
        subscription = await bus.subscribe("t", inbox)
        await subscription.pause()
        await bus.publish("t", b"1")
        waiting = [asyncio.create_task(bus.publish("t", str(number).encode())) for number in (2, 3, 4)]
        await asyncio.sleep(1)
        waiting[0].cancel()
        await asyncio.sleep(0.1)
        await subscription.resume()
        await until(lambda: len(inbox.got) == 3)
        assert inbox.data == [b"1", b"3", b"4"]
        assert waiting[0].cancelled()
        await bus.publish("t", b"5")


@virtual
async def test_a_place_granted_to_a_publisher_that_is_cancelled_just_then_is_not_lost() -> None:
    inbox = Inbox()
    async with memory(max_pending=1, timeout=100.0) as bus:
        subscription = await bus.subscribe("t", inbox)
        await subscription.pause()
        await bus.publish("t", b"1")
        waiting = [asyncio.create_task(bus.publish("t", str(number).encode())) for number in (2, 3)]
        await asyncio.sleep(1)
        await subscription.resume()
        group = bus.driver._groups["t", "bus"][1]  # type: ignore[attr-defined]  # the moment of the grant
        while len(group._space) == 2:
            await asyncio.sleep(0)
        waiting[0].cancel()
        await until(lambda: inbox.data == [b"1", b"3"])
        assert group._reserved == 0


@virtual
async def test_publishers_that_wait_for_two_groups_do_not_wait_for_each_other() -> None:
    boxes = [Inbox(0.01), Inbox(0.02), Inbox(0.01)]
    async with memory(max_pending=1) as bus:
        for index, (pattern, inbox) in enumerate(zip(("t*", "t1", "t2"), boxes, strict=True)):
            await bus.subscribe(pattern, inbox, group=str(index), concurrency=1)
        await asyncio.gather(*(bus.publish(f"t{n % 2 + 1}", str(n).encode()) for n in range(40)))
        await until(lambda: [len(inbox.got) for inbox in boxes] == [40, 20, 20])


@virtual
async def test_what_has_expired_makes_room() -> None:
    async with memory(max_pending=2) as bus:
        for name, ordering in (("n", Ordering.NONE), ("k", Ordering.KEY)):
            subscription = await bus.subscribe(name, Inbox(), ordering=ordering)
            await subscription.pause()
            await bus.publish(name, b"1", ttl=1, key="a")
            await bus.publish(name, b"2", ttl=1, key="b")
            await asyncio.sleep(2)
            began = now()
            await bus.publish(name, b"3")
            assert now() - began < 1
            assert await subscription.lag() == 1


@virtual
async def test_inside_a_handler_publishing_raises_at_the_bound_instead_of_waiting() -> None:
    raised: list[Exception] = []

    async def echo(message: Message) -> None:
        while not raised:
            try:
                # Also from tasks of the handler.
                await asyncio.create_task(bus.publish("t", b"more"))
            except ThrottledError as exc:
                raised.append(exc)
                return

    async with memory(max_pending=5) as bus:
        subscription = await bus.subscribe("t", echo, concurrency=1)
        await bus.publish("t", b"first")
        await until(lambda: bool(raised))
        await subscription.aclose()
    assert "maxPendingMessages" in str(raised[0])


@virtual
async def test_a_handler_of_another_component_waits_like_everybody() -> None:
    slow = Inbox(0.5)
    done: list[bytes] = []

    async def forward(message: Message) -> None:
        await second.publish("t", message.data)
        done.append(message.data)

    async with memory("one") as first, memory("two", max_pending=1) as second:
        await second.subscribe("t", slow, concurrency=1)
        await first.subscribe("t", forward, concurrency=1)
        for number in range(6):
            await first.publish("t", str(number).encode())
        await until(lambda: len(slow.got) == 6)
    assert len(done) == 6


@virtual
async def test_a_handler_can_publish_to_its_own_topic() -> None:
    seen: list[bytes] = []

    async def count_down(message: Message) -> None:
        seen.append(message.data)
        left = int(message.data)
        if left:
            await bus.publish("t", str(left - 1).encode())

    async with memory() as bus:
        await bus.subscribe("t", count_down, ordering="all")
        await bus.publish("t", b"50")
        await until(lambda: len(seen) == 51)
    assert seen == [str(number).encode() for number in range(50, -1, -1)]


@virtual
async def test_a_publisher_that_never_waits_lets_others_run() -> None:
    inbox = Inbox()
    async with memory() as bus:
        await bus.subscribe("t", inbox)
        for _ in range(1000):
            await bus.publish("t", b"x")
        assert len(inbox.got) > 0


# the consumer by itself, as other dispatchers may use it


async def _never_revoked(deliveries: Any, seconds: float) -> None:
    raise AssertionError


async def _armed(driver: MemoryPubSub, ordering: Ordering = Ordering.NONE) -> Consumer:
    return await driver.subscribe(SubscribeRequest("t", "g", ordering, 10, _never_revoked))


@virtual
async def test_receive_returns_as_soon_as_there_is_something_and_empty_after_its_time() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    consumer = await _armed(driver)
    began = now()
    assert list(await consumer.receive(5, 2.0)) == []
    assert now() - began == pytest.approx(2)
    receiving = asyncio.create_task(consumer.receive(5, 100.0))
    await asyncio.sleep(1)
    await driver.publish(PublishRequest("t", b"x"))
    assert [delivery.data for delivery in await receiving] == [b"x"]
    assert now() - began == pytest.approx(3)
    await consumer.close()
    await consumer.close()
    with pytest.raises(UnavailableError):
        await consumer.receive(5, 1.0)
    await driver.close()


@virtual
async def test_a_cancelled_receive_loses_nothing_and_passes_the_word_on() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    first, second = await _armed(driver), await _armed(driver)
    one = asyncio.create_task(first.receive(5, 100.0))
    await asyncio.sleep(0)
    two = asyncio.create_task(second.receive(5, 100.0))
    await asyncio.sleep(0)
    await driver.publish(PublishRequest("t", b"x"))
    one.cancel()
    began = now()
    assert [delivery.data for delivery in await two] == [b"x"]
    assert now() == pytest.approx(began, abs=0.01)
    await driver.close()


@virtual
async def test_a_retry_by_settlement_holds_its_key_for_the_delay() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    first, second = await _armed(driver, Ordering.KEY), await _armed(driver, Ordering.KEY)
    for data in (b"a1", b"a2", b"b1"):
        await driver.publish(PublishRequest("t", data, key=data.decode()[0]))
    taken = await first.receive(1, 1.0)
    assert [delivery.data for delivery in taken] == [b"a1"]
    assert [delivery.data for delivery in await second.receive(5, 1.0)] == [b"b1"]
    began = now()
    await first.settle([Settled(taken[0], Settlement.RETRY, 3.0)])
    again = await second.receive(5, 100.0)
    assert now() - began == pytest.approx(3)
    assert [(delivery.data, delivery.attempt) for delivery in again] == [(b"a1", 2), (b"a2", 1)]
    await driver.close()


@pytest.mark.parametrize("ending", ["close", "pause"])
@virtual
async def test_a_member_that_ends_or_pauses_just_when_it_was_woken_passes_the_word_on(ending: str) -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    first, second = await _armed(driver), await _armed(driver)
    one = asyncio.create_task(first.receive(5, 100.0))
    await asyncio.sleep(0)
    two = asyncio.create_task(second.receive(5, 100.0))
    await asyncio.sleep(0)
    began = now()
    await driver.publish(PublishRequest("t", b"x"))
    await (first.close() if ending == "close" else first.pause())
    assert [delivery.data for delivery in await two] == [b"x"]
    assert now() == pytest.approx(began, abs=0.01)
    await asyncio.wait([one], timeout=0.1)
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    await driver.close()


def _data(deliveries: Any) -> list[bytes]:
    return [delivery.data for delivery in deliveries]


@virtual
async def test_a_key_belongs_to_the_member_that_holds_one_of_its_messages() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    first, second = await _armed(driver, Ordering.KEY), await _armed(driver, Ordering.KEY)
    for number in range(4):
        await driver.publish(PublishRequest("t", str(number).encode(), key="k"))
    mine = await first.receive(1, 1.0)
    assert list(await second.receive(5, 1.0)) == []
    await first.settle([Settled(mine[0], Settlement.ACK)])
    theirs = await second.receive(1, 1.0)
    assert _data(theirs) == [b"1"]
    assert list(await first.receive(5, 1.0)) == []
    await second.release(theirs)
    assert _data(await first.receive(5, 1.0)) == [b"1", b"2", b"3"]
    await driver.close()


@virtual
async def test_a_blocked_key_gives_its_owner_nothing_either() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    consumer = await _armed(driver, Ordering.KEY)
    for number in range(3):
        await driver.publish(PublishRequest("t", str(number).encode(), key="k"))
    taken = await consumer.receive(2, 1.0)
    began = now()
    await consumer.settle([Settled(taken[0], Settlement.RETRY, 3.0)])
    assert _data(await consumer.receive(5, 100.0)) == [b"0", b"2"]
    assert now() - began == pytest.approx(3)
    await driver.close()


@virtual
async def test_publishers_are_served_in_turn_and_never_exceed_the_bound() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(max_pending=4), DriverContext(component="bus"))
    consumer = await _armed(driver)
    for number in range(4):
        await driver.publish(PublishRequest("t", str(number).encode()))
    early = asyncio.create_task(driver.publish(PublishRequest("t", b"early")))
    await asyncio.sleep(1)
    got = _data(await consumer.receive(1, 1.0))
    late = [asyncio.create_task(driver.publish(PublishRequest("t", b"late"))) for _ in range(8)]
    await asyncio.sleep(1)
    while len(got) < 13:
        got += _data(await consumer.receive(1, 1.0))
        await asyncio.sleep(0.1)
        assert (await consumer.lag() or 0) <= 4
    assert got == [b"0", b"1", b"2", b"3", b"early", *[b"late"] * 8]
    await asyncio.gather(early, *late)
    await driver.close()


@virtual
async def test_a_single_place_is_never_given_to_two() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(max_pending=1), DriverContext(component="bus"))
    consumer = await _armed(driver)
    work = [asyncio.create_task(driver.publish(PublishRequest("t", str(n).encode()))) for n in range(5)]
    for number in range(5):
        await asyncio.sleep(0.1)
        assert await consumer.lag() == 1
        assert _data(await consumer.receive(5, 1.0)) == [str(number).encode()]
    await asyncio.gather(*work)
    await driver.close()


@virtual
async def test_a_publisher_that_gives_up_waiting_for_one_group_frees_its_place_in_the_others() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(max_pending=1), DriverContext(component="bus"))
    wide = await driver.subscribe(SubscribeRequest("t*", "wide", Ordering.NONE, 1, _never_revoked))
    await driver.subscribe(SubscribeRequest("t1", "narrow", Ordering.NONE, 1, _never_revoked))
    await driver.publish(PublishRequest("t1", b"fills both"))
    await wide.receive(1, 1.0)
    waiting = asyncio.create_task(driver.publish(PublishRequest("t1", b"given up")))
    await asyncio.sleep(1)
    other = asyncio.create_task(driver.publish(PublishRequest("t2", b"x")))
    await asyncio.sleep(1)
    assert not other.done()
    waiting.cancel()
    await asyncio.wait([other], timeout=1)
    assert other.done()
    assert _data(await wide.receive(5, 1.0)) == [b"x"]
    await driver.close()


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
