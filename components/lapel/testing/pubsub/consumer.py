"""The consumer that a driver makes, without the dispatcher: what it takes, keeps, settles and gives back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from ...descriptor import Capability
from ...errors import InvalidArgumentError, LapelError
from ...pubsub import (
    BulkPublishRequest,
    Consumer,
    Delivery,
    Ordering,
    PublishRequest,
    PubSub,
    Settled,
    Settlement,
    SubscribeRequest,
)
from ..marks import needs, row
from ..subject import Subject
from .base import PubSubBase

__all__ = ["ConsumerTests"]

SILENCE = 0.15
"""How long `receive` must find nothing where there must be nothing."""
PATIENCE = 15.0
"""How long it may take to find what must be there."""
CLOCK = 0.02
LONGEST_LEASE = 3.0


class ConsumerTests(PubSubBase):
    """The contract between a driver and the dispatcher."""

    @row("PS-07")
    async def test_receive_returns_at_most_what_it_is_asked_for_and_nothing_in_time(
        self, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        consumer = await _arm(bus, stack, topic)
        assert list(await consumer.receive(5, SILENCE)) == []
        waiting = asyncio.create_task(consumer.receive(1, PATIENCE))
        await asyncio.sleep(0)
        await _publish(bus, topic, "awaited")
        assert _texts(await waiting) == ["awaited"]
        await _publish(bus, topic, *map(str, range(7)))
        got: list[Delivery] = []
        while len(got) < 7:
            batch = await consumer.receive(3, PATIENCE)
            assert 1 <= len(batch) <= 3
            got += batch
        assert Counter(_texts(got)) == Counter(map(str, range(7)))
        assert {delivery.topic for delivery in got} == {topic}

    @row("stricter-035")
    async def test_what_is_settled_is_gone(self, bus: PubSub, stack: AsyncExitStack, topic: str) -> None:
        consumer = await _arm(bus, stack, topic)
        following = await _arm(bus, stack, topic)
        await _publish(bus, topic, "one", "two", "three")
        got = await _received(consumer, 3)
        await consumer.settle([Settled(delivery, Settlement.ACK) for delivery in got])
        await consumer.close()
        await _publish(bus, topic, "end")
        assert _texts(await _received(following, 1)) == ["end"]
        assert await following.lag() in (None, 0)

    @row("stricter-035")
    async def test_a_retry_comes_after_its_delay_and_counts(
        self, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        consumer = await _arm(bus, stack, topic)
        if not consumer.redelivers:
            pytest.skip("the broker does not redeliver; the dispatcher repeats by itself")
        loop = asyncio.get_running_loop()
        await _publish(bus, topic, "again")
        (delivery,) = await _received(consumer, 1)
        for number, delay in enumerate((0.0, 0.3), 2):
            began = loop.time()
            await consumer.settle([Settled(delivery, Settlement.RETRY, delay)])
            (delivery,) = await _received(consumer, 1)
            assert loop.time() - began >= delay - CLOCK, "the retry came before its delay"
            assert (delivery.data, delivery.topic) == (b"again", topic)
            assert delivery.attempt == (number if Capability.DELIVERY_COUNT in bus.capabilities else delivery.attempt)
        await consumer.settle([Settled(delivery, Settlement.ACK)])
        assert list(await consumer.receive(1, SILENCE)) == []

    @row("stricter-036")
    async def test_what_was_not_settled_is_for_others_when_its_consumer_closes(
        self, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        consumer = await _arm(bus, stack, topic)
        await _publish(bus, topic, "one", "two", "three")
        got = await _received(consumer, 3)
        await consumer.settle([Settled(got[1], Settlement.ACK)])
        following = await _arm(bus, stack, topic)
        await consumer.close()
        again = await _received(following, 2)
        assert Counter(_texts(again)) == Counter(_texts([got[0], got[2]]))
        if Capability.DELIVERY_COUNT in bus.capabilities:
            assert [delivery.attempt for delivery in again] == [2, 2]

    @row("stricter-036", "stricter-052")
    async def test_what_is_released_is_for_others_at_once_and_uncounted(
        self, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        consumer, other = await _arm(bus, stack, topic), await _arm(bus, stack, topic)
        await _publish(bus, topic, "one", "two", "three")
        got: list[Delivery] = await _received(consumer, 3)
        await consumer.release(got)
        again = await _received(other, 3)
        assert Counter(_texts(again)) == Counter(["one", "two", "three"])
        assert {delivery.attempt for delivery in again} <= {None, 1}
        await other.settle([Settled(delivery, Settlement.ACK) for delivery in again])
        await other.close()
        assert list(await consumer.receive(3, SILENCE)) == []

    @row("stricter-130")
    async def test_a_receive_cancelled_at_any_moment_loses_nothing_and_doubles_nothing(
        self, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        consumer = await _arm(bus, stack, topic)
        chance = random.Random(130)
        got: list[str] = []
        for number in range(80):
            receiving = asyncio.create_task(consumer.receive(4, PATIENCE))
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            await _publish(bus, topic, str(number))
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.003)
            receiving.cancel()
            (result,) = await asyncio.gather(receiving, return_exceptions=True)
            if not isinstance(result, BaseException):
                got += _texts(result)
                await consumer.settle([Settled(delivery, Settlement.ACK) for delivery in result])
        while len(got) < 80:
            batch = await consumer.receive(10, PATIENCE)
            assert batch, f"lost: {set(map(str, range(80))) - set(got)}"
            got += _texts(batch)
            await consumer.settle([Settled(delivery, Settlement.ACK) for delivery in batch])
        assert Counter(got) == Counter(map(str, range(80)))
        assert list(await consumer.receive(1, SILENCE)) == []

    @row("stricter-130")
    async def test_a_subscribe_cancelled_at_any_moment_leaves_no_member_behind(
        self, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        chance = random.Random(131)
        for _ in range(30):
            arming = asyncio.create_task(_arm(bus, stack, topic))
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
            arming.cancel()
            (result,) = await asyncio.gather(arming, return_exceptions=True)
            if not isinstance(result, BaseException):
                await result.close()
        consumer = await _arm(bus, stack, topic)
        await _publish(bus, topic, *map(str, range(20)))
        assert Counter(_texts(await _received(consumer, 20))) == Counter(map(str, range(20)))

    @row("stricter-034")
    @needs(Capability.ORDER_BY_KEY)
    async def test_one_key_is_never_in_the_hands_of_two_consumers(
        self, subject: Subject, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        one = await _arm(bus, stack, topic, Ordering.KEY)
        two = await _arm(bus, stack, topic, Ordering.KEY)
        await _publish(bus, topic, "a0", "a1", "a2", "b0", "b1", keyed=True)
        (first,) = await _received(one, 1)
        assert first.key is not None
        # With the option, a group that keeps an order has one member at work, and the others stand by.
        others = [] if self.option(subject, "oneActive") == "true" else await _received(two, 1)
        others += await two.receive(10, SILENCE)
        assert first.key not in {delivery.key for delivery in others}
        assert _texts(others) == sorted(_texts(others))
        await one.close()
        again = await _received(two, 5 - len(others))
        assert _texts(again) == [text for text in ("a0", "a1", "a2", "b0", "b1") if text not in _texts(others)]

    @row("stricter-034")
    @needs(Capability.ORDER_ALL)
    async def test_with_everything_in_order_only_one_consumer_has_messages(
        self, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        one = await _arm(bus, stack, topic, Ordering.ALL)
        two = await _arm(bus, stack, topic, Ordering.ALL)
        await _publish(bus, topic, "0", "1", "2", "3")
        (first,) = await _received(one, 1)
        assert _texts([first]) == ["0"]
        assert list(await two.receive(10, SILENCE)) == []
        await one.settle([Settled(first, Settlement.ACK)])
        (second,) = await _received(one, 1)
        assert _texts([second]) == ["1"]
        assert list(await two.receive(10, SILENCE)) == []
        await one.close()
        assert _texts(await _received(two, 3)) == ["1", "2", "3"]

    @row("stricter-057")
    async def test_a_lease_holds_while_it_is_extended_and_not_longer(
        self, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        consumer = await _arm(bus, stack, topic)
        lease = consumer.lease_seconds
        if lease is None or lease > LONGEST_LEASE:
            pytest.skip("the broker takes no message back, or leaves it longer than a test can wait")
        other = await _arm(bus, stack, topic)
        await _publish(bus, topic, "leased")
        (mine,) = await _received(consumer, 1)
        for _ in range(5):
            assert list(await other.receive(1, lease / 3)) == []
            assert list(await consumer.extend([mine])) == []
        (theirs,) = await _received(other, 1)
        if Capability.DELIVERY_COUNT in bus.capabilities:
            assert theirs.attempt == 2
        assert list(await consumer.extend([mine])) == [mine]
        await consumer.settle([Settled(mine, Settlement.ACK)])
        await other.settle([Settled(theirs, Settlement.RETRY)])
        (again,) = await _received(other, 1)
        await other.settle([Settled(again, Settlement.ACK)])
        await other.close()
        assert list(await consumer.receive(1, SILENCE)) == []

    @row("stricter-056")
    @needs(Capability.PAUSE)
    async def test_a_paused_consumer_takes_nothing(self, bus: PubSub, stack: AsyncExitStack, topic: str) -> None:
        consumer = await _arm(bus, stack, topic)
        receiving = asyncio.create_task(consumer.receive(1, PATIENCE))
        await asyncio.sleep(0)
        for _ in range(2):
            await consumer.pause()
        await _publish(bus, topic, "one", "two")
        await asyncio.wait((receiving,), timeout=SILENCE)
        assert not receiving.done() or list(receiving.result()) == []
        for _ in range(2):
            await consumer.resume()
        got = list(await receiving)
        got += await _received(consumer, 2 - len(got))
        await consumer.pause()
        assert list(await consumer.receive(1, SILENCE)) == []
        assert Counter(_texts(got)) == Counter(["one", "two"])

    @row("stricter-037")
    async def test_lag_counts_what_waits(self, bus: PubSub, stack: AsyncExitStack, topic: str) -> None:
        consumer = await _arm(bus, stack, topic)
        if await consumer.lag() is None:
            pytest.skip("the broker does not tell")
        assert await consumer.lag() == 0
        await _publish(bus, topic, "one", "two", "three")
        assert await consumer.lag() == 3
        got = await _received(consumer, 2)
        assert await consumer.lag() == 1
        await consumer.settle([Settled(delivery, Settlement.ACK) for delivery in got])
        assert await consumer.lag() == 1

    @row("stricter-052", "stricter-127")
    async def test_closing_ends_a_receive_under_way_and_may_come_twice(
        self, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        consumer = await _arm(bus, stack, topic)
        receiving = asyncio.create_task(consumer.receive(1, 1.0))
        await asyncio.sleep(0)
        await asyncio.gather(consumer.close(), consumer.close())
        await consumer.close()
        (result,) = await asyncio.gather(receiving, return_exceptions=True)
        assert isinstance(result, LapelError) or result == [] or result == ()
        with pytest.raises(LapelError):
            await consumer.receive(1, SILENCE)

    @row("stricter-045")
    @needs(Capability.BULK_PUBSUB)
    async def test_the_driver_names_each_entry_that_it_cannot_take(
        self, bus: PubSub, stack: AsyncExitStack, topic: str
    ) -> None:
        consumer = await _arm(bus, stack, topic)
        limit = bus.limits.value_bytes
        if limit is None or limit > 32 << 20:
            pytest.skip("the broker states no limit, or one too large to try")
        entries = [PublishRequest(topic, data) for data in (b"one", bytes(limit + 1), b"two")]
        results = list(await bus.driver.bulk_publish(BulkPublishRequest(topic, tuple(entries))))
        assert [result is None for result in results] == [True, False, True]
        assert isinstance(results[1], InvalidArgumentError)
        assert Counter(_texts(await _received(consumer, 2))) == Counter(["one", "two"])
        assert list(await bus.driver.bulk_publish(BulkPublishRequest(topic, ()))) == []


async def _revoked(deliveries: Sequence[Delivery], seconds: float) -> None:
    pass


async def _arm(bus: PubSub, stack: AsyncExitStack, topic: str, ordering: Ordering = Ordering.NONE) -> Consumer:
    consumer = await bus.driver.subscribe(SubscribeRequest(topic, "members", ordering, 10, _revoked))
    stack.push_async_callback(consumer.close)
    return consumer


async def _publish(bus: PubSub, topic: str, *messages: str, keyed: bool = False) -> None:
    for text in messages:
        await bus.driver.publish(PublishRequest(topic, text.encode(), key=text[0] if keyed else None))


async def _received(consumer: Consumer, count: int) -> list[Delivery]:
    """Return so many messages, as they come."""
    got: list[Delivery] = []
    while len(got) < count:
        batch = await consumer.receive(count - len(got), PATIENCE)
        assert batch, f"received {_texts(got)} and nothing further; expected {count} messages"
        got += batch
    return got


def _texts(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.data.decode() for delivery in deliveries]
