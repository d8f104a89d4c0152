"""pubsub.rabbitmq in one process: replies that are lost, queues that vanish, a broker under alarm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.backends.rabbitmq import RabbitBackend, RabbitServer
from tests.backends.rabbitmq_fixtures import OwnRabbit
from tests.backends.rabbitmq_node import RabbitOptions
from tests.conformance.rabbitmq_broker import Broker, received, request, until

from lapel.component import HealthState
from lapel.delivery import Settled, Settlement
from lapel.errors import LapelError, OutcomeUnknownError, OutcomeUnknownTimeoutError, ThrottledError, UnavailableError
from lapel.pubsub import Message, PubSub
from lapel.testing import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.fixture
def broker(rabbitmq_server: RabbitBackend) -> Broker:
    return Broker(rabbitmq_server)


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[FaultProxy]:
    address = broker.backend.address
    async with FaultProxy(address.host, address.port) as proxy:
        yield proxy


@pytest.fixture
async def bus(broker: Broker, proxy: FaultProxy) -> AsyncIterator[PubSub]:
    """A component behind the proxy; its queue is there."""
    async with broker.bus() as direct:
        await (await direct.driver.subscribe(request(broker.topic))).close()
    address = broker.backend.address.through(proxy.host, proxy.port)
    async with broker.bus(host=address.amqp) as bus:
        yield bus


class Collector:
    def __init__(self) -> None:
        self.got: list[str] = []

    async def __call__(self, message: Message) -> None:
        self.got.append(message.data.decode())


async def test_a_publish_whose_confirmation_is_lost_is_unknown_and_was_sent_once(
    bus: PubSub, proxy: FaultProxy, broker: Broker
) -> None:
    await bus.publish(broker.topic, b"first")
    trap = proxy.drop_reply(b"second")
    with pytest.raises(OutcomeUnknownError):
        await bus.publish(broker.topic, b"second", raw=True)
    assert trap.hit
    await bus.publish(broker.topic, b"third")
    assert (await broker.counts(f"shop-{broker.topic}"))[0] == 3


async def test_a_publish_that_never_reached_the_broker_is_not_stored(
    bus: PubSub, proxy: FaultProxy, broker: Broker
) -> None:
    await bus.publish(broker.topic, b"first")
    trap = proxy.cut_request(b"second")
    with pytest.raises(LapelError) as caught:
        await bus.publish(broker.topic, b"second", raw=True)
    assert trap.hit
    assert isinstance(caught.value, OutcomeUnknownError | UnavailableError)
    assert (await broker.counts(f"shop-{broker.topic}"))[0] == 1


async def test_all_that_wait_for_a_confirmation_learn_at_once_that_the_line_is_cut(
    bus: PubSub, proxy: FaultProxy, broker: Broker
) -> None:
    await bus.publish(broker.topic, b"first")
    proxy.freeze()
    waiting = [asyncio.create_task(bus.publish(broker.topic, b"x")) for _ in range(200)]
    await asyncio.sleep(0.1)
    assert proxy.cut() > 0
    proxy.heal()
    async with asyncio.timeout(3):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {OutcomeUnknownError}
    await bus.publish(broker.topic, b"last")


async def test_a_cancelled_publish_leaves_the_others_alone(bus: PubSub, broker: Broker) -> None:
    tasks = [asyncio.create_task(bus.publish(broker.topic, b"x")) for _ in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [result for result in results[1::2] if result is not None]
    assert {type(result) for result in results[::2]} <= {asyncio.CancelledError, type(None)}
    assert 50 <= (await broker.counts(f"shop-{broker.topic}"))[0] <= 100


async def test_without_a_broker_a_call_says_what_is_wrong_and_nothing_was_sent(
    bus: PubSub, proxy: FaultProxy, broker: Broker
) -> None:
    proxy.refuse()
    assert proxy.cut() > 0
    with pytest.raises(UnavailableError):
        await bus.publish(broker.topic, b"while it is lost")
    with pytest.raises(UnavailableError, match="nothing was done"):
        await bus.publish(broker.topic, b"after that")
    assert (await bus.health()).state is HealthState.RECONNECTING
    proxy.heal()
    await until(lambda: _publishes(bus, broker), "it does not come back")
    assert (await broker.counts(f"shop-{broker.topic}"))[0] == 1


async def _publishes(bus: PubSub, broker: Broker) -> bool:
    try:
        await bus.publish(broker.topic, b"x")
    except UnavailableError:
        return False
    return True


@pytest.mark.parametrize("pattern", [b"\x00\x3c\x00\x14", b"\x00\x3c\x00\x50"], ids=["consume", "ack"])
async def test_whatever_is_lost_every_message_is_handled_and_none_stays(
    bus: PubSub, proxy: FaultProxy, broker: Broker, pattern: bytes
) -> None:
    queue = f"shop-{broker.topic}"
    collector = Collector()
    trap = proxy.cut_request(pattern)
    async with broker.bus() as direct:
        for number in range(20):
            await direct.publish(broker.topic, str(number).encode())
    subscription = await bus.subscribe(broker.topic, collector)
    await trap.wait()
    await until(lambda: set(collector.got) == set(map(str, range(20))), "messages are missing")
    await until(lambda: _is(broker, queue, (0, 1)), "a message or a consumer is left over")
    assert subscription.health().details["reconnects"] == 1


async def _is(broker: Broker, queue: str, counts: tuple[int, int]) -> bool:
    return await broker.counts(queue) == counts


async def test_after_every_cut_there_is_one_consumer_for_each_subscription(
    bus: PubSub, proxy: FaultProxy, broker: Broker
) -> None:
    queue = f"shop-{broker.topic}"
    collector = Collector()
    for _ in range(2):
        await bus.subscribe(broker.topic, collector)
    async with broker.bus() as direct:
        for number in range(10):
            await until(lambda: _is(broker, queue, (0, 2)), "not one consumer for each subscription")
            assert proxy.cut() > 0
            await direct.publish(broker.topic, str(number).encode())
            await until(lambda number=number: str(number) in collector.got, "it does not come back")  # type: ignore[misc]


async def test_a_queue_that_was_deleted_is_made_again(bus: PubSub, broker: Broker) -> None:
    collector = Collector()
    subscription = await bus.subscribe(broker.topic, collector)
    await bus.publish(broker.topic, b"0")
    await until(lambda: collector.got == ["0"], "nothing arrives at all")
    async with broker.channel() as channel:
        await channel.queue_delete(f"shop-{broker.topic}")
    await until(lambda: subscription.health().details["reconnects"] == 1, "it did not notice")
    await bus.publish(broker.topic, b"1")
    await until(lambda: collector.got == ["0", "1"], "nothing arrives in the new queue")


async def test_a_settlement_on_a_lost_connection_is_an_error_and_the_message_comes_again(
    bus: PubSub, proxy: FaultProxy, broker: Broker
) -> None:
    consumer = await bus.driver.subscribe(request(broker.topic))
    await bus.publish(broker.topic, b"x", raw=True)
    (delivery,) = await received(consumer)
    assert proxy.cut() > 0
    with pytest.raises(UnavailableError):
        async with asyncio.timeout(5):
            while True:
                await consumer.settle([Settled(delivery, Settlement.ACK)])
                await consumer.receive(1, 0.05)
    following = await bus.driver.subscribe(request(broker.topic))
    assert [one.data for one in await received(following)] == [b"x"]


async def test_closing_ends_in_time_when_nobody_answers(broker: Broker, proxy: FaultProxy) -> None:
    address = broker.backend.address.through(proxy.host, proxy.port)
    async with asyncio.timeout(25):
        async with broker.bus(host=address.amqp) as bus:
            await bus.subscribe(broker.topic, Collector())
            await bus.publish(broker.topic, b"x")
            proxy.black_hole()
    assert proxy.counters.dropped_request_bytes > 0


async def test_a_broker_under_alarm_takes_no_messages_and_loses_no_acknowledgement(own_rabbitmq: OwnRabbit) -> None:
    # So much free disk nobody has.
    options = RabbitOptions(settings={"disk_free_limit.absolute": "1000TB"})
    server: RabbitServer = await asyncio.to_thread(own_rabbitmq.server, options)
    broker = Broker(server)
    async with broker.bus() as bus:
        consumer = await bus.driver.subscribe(request(broker.topic))
        # The broker tells a connection of its alarm once that has tried to publish.
        with pytest.raises(OutcomeUnknownTimeoutError):
            await bus.publish(broker.topic, b"first")
        with pytest.raises(ThrottledError, match="memory or disk"):
            await bus.publish(broker.topic, b"second")
        # The connection that consumes is not blocked.
        assert await consumer.receive(1, 0.2) == []
        assert await consumer.lag() == 0
