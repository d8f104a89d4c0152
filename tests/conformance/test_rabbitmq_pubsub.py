"""pubsub.rabbitmq: what the suite cannot know of, on a real broker."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiormq
import pytest
from pamqp.commands import Basic
from tests.backends.rabbitmq import RabbitBackend
from tests.backends.rabbitmq_node import READER
from tests.conformance.rabbitmq_broker import Broker, received, request, until

from lapel.component import HealthState
from lapel.delivery import Ordering, Settled, Settlement
from lapel.errors import InvalidArgumentError, PermissionDeniedError, StorageError, UnavailableError
from lapel.pubsub import Backoff, Message, Outcome
from lapel.pubsub.types import PublishRequest
from lapel_contrib.rabbitmq.pubsub import RabbitPubSub

QUICK = Backoff(initial=0.02, maximum=0.02)


@pytest.fixture
def broker(rabbitmq_server: RabbitBackend) -> Broker:
    return Broker(rabbitmq_server)


async def test_topology_is_what_dapr_declares(broker: Broker) -> None:
    topic, queue = broker.topic, f"shop-{broker.topic}"
    lengths: dict[str, Any] = {"x-max-length": 100, "x-max-length-bytes": 10_000}
    async with broker.bus(enableDeadLetter="true", maxLen="100", maxLenBytes="10000", exchangeKind="topic") as bus:
        await bus.driver.subscribe(request(topic, metadata={"routingKey": "a,b.*", "maxPriority": "5"}))
        async with broker.channel() as channel:
            # The broker refuses a declaration that differs from what is there.
            await channel.exchange_declare(topic, exchange_type="topic", durable=True)
            await channel.exchange_declare(f"dlx-{queue}", exchange_type="fanout", durable=True)
            lazy: dict[str, Any] = {"x-queue-mode": "lazy", **lengths}
            await channel.queue_declare(f"dlq-{queue}", durable=True, arguments=lazy)
            arguments: dict[str, Any] = {
                "x-queue-type": "classic",
                "x-dead-letter-exchange": f"dlx-{queue}",
                "x-max-priority": 5,
                **lengths,
            }
            await channel.queue_declare(queue, durable=True, arguments=arguments)
            for key in ("a", "b.c", "c"):
                await channel.basic_publish(key.encode(), exchange=topic, routing_key=key)
        assert await broker.counts(queue) == (2, 0)


async def test_a_message_of_a_sidecar_is_understood_and_ours_is_as_it_writes_them(broker: Broker) -> None:
    topic = broker.topic
    async with broker.bus(publishMessagePropertiesToMetadata="true") as bus:
        consumer = await bus.driver.subscribe(request(topic))
        async with broker.channel() as channel:
            properties = Basic.Properties(content_type="text/plain", message_id="m", headers={"own": "x"})
            await channel.basic_publish(b"theirs", exchange=topic, properties=properties)
        (theirs,) = await received(consumer)
        assert (theirs.data, theirs.content_type) == (b"theirs", "text/plain")
        assert theirs.metadata == {
            "own": "x",
            "metadata.own": "x",
            "metadata.messageid": "m",
            "metadata.contenttype": "text/plain",
        }
        await consumer.settle([Settled(theirs, Settlement.ACK)])
        await consumer.close()
        metadata = {"routingKey": "k", "messageID": "id", "correlationID": "c", "type": "t", "priority": "7", "a": "b"}
        await bus.driver.publish(PublishRequest(topic, b"ours", "text/csv", "lane", 60.0, None, metadata))
        async with broker.channel() as channel:
            ours = await channel.basic_get(f"shop-{topic}")
            found = ours.header.properties
            assert (found.delivery_mode, found.expiration, found.priority) == (2, "60000", 7)
            assert (found.message_id, found.correlation_id, found.message_type) == ("id", "c", "t")
            assert (found.content_type, found.headers) == ("text/csv", {"a": "b", "lapel-key": "lane"})
            assert isinstance(ours.delivery, Basic.GetOk)
            assert ours.delivery.routing_key == "k"


async def test_the_components_lifetime_holds_for_messages_without_one(broker: Broker) -> None:
    async with broker.bus(ttlInSeconds="200ms") as bus:
        consumer = await bus.driver.subscribe(request(broker.topic))
        await bus.publish(broker.topic, b"short")
        await bus.publish(broker.topic, b"long", ttl=60, raw=True)
        await until(lambda: _holds(broker, 1), "the message did not expire")
        assert [one.data for one in await received(consumer)] == [b"long"]


async def _holds(broker: Broker, count: int) -> bool:
    return (await broker.counts(f"shop-{broker.topic}"))[0] == count


async def test_the_components_lifetime_does_not_hold_for_dead_letters(broker: Broker) -> None:
    async def fail(message: Message) -> Outcome:
        return Outcome.RETRY

    dead = f"{broker.topic}-dead"
    async with broker.bus(ttlInSeconds="60") as bus:
        await bus.driver.subscribe(request(dead))
        await bus.subscribe(broker.topic, fail, max_attempts=1, dead_letter_topic=dead)
        await bus.publish(broker.topic, b"x")
        await until(lambda: _count(broker, f"shop-{dead}", 1), "it did not arrive")
        async with broker.channel() as channel:
            found = (await channel.basic_get(f"shop-{dead}")).header.properties
            assert (found.expiration, "dead-letter-reason" in (found.headers or {})) == (None, True)


async def test_mandatory_makes_a_message_that_no_queue_takes_an_error(broker: Broker) -> None:
    topic = broker.topic
    async with broker.bus(exchangeKind="direct") as bus:
        await bus.publish(topic, b"dropped")
        with pytest.raises(UnavailableError, match="no queue takes"):
            await bus.publish(topic, b"kept?", metadata={"mandatory": "true"})
        with pytest.raises(InvalidArgumentError, match="mandatory"):
            await bus.publish(topic, b"kept?", metadata={"mandatory": "perhaps"})
        await bus.driver.subscribe(request(topic, metadata={"routingKey": "here"}))

        async def one(number: int) -> bool:
            # All with the same id, which the broker's answer is told apart by.
            key = "here" if number % 2 else "nowhere"
            try:
                await bus.publish(topic, b"x", metadata={"mandatory": "true", "routingKey": key, "messageID": "same"})
            except UnavailableError:
                return False
            return True

        assert await asyncio.gather(*map(one, range(40))) == [bool(number % 2) for number in range(40)]
        assert await _holds(broker, 20)


async def test_a_negative_confirmation_is_an_error(broker: Broker) -> None:
    topic = broker.topic
    async with broker.bus() as bus:
        await bus.publish(topic, b"nobody listens")
        async with broker.channel() as channel:
            arguments: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
            await channel.queue_declare(topic, durable=True, arguments=arguments)
            await channel.queue_bind(topic, topic)
        await bus.publish(topic, b"first")
        with pytest.raises(StorageError, match="negative confirmation"):
            for _ in range(5):
                await bus.publish(topic, b"one too many")


async def test_one_forbidden_topic_disturbs_no_other(broker: Broker) -> None:
    topic, other = broker.topic, f"{broker.topic}-other"
    async with broker.channel() as channel:
        await channel.exchange_declare(topic, exchange_type="headers", durable=True)
    async with broker.bus() as bus:
        consumer = await bus.driver.subscribe(request(other))

        async def good(number: int) -> None:
            await bus.publish(other, str(number).encode(), raw=True)

        async def bad() -> None:
            with pytest.raises(InvalidArgumentError, match="other properties"):
                await bus.publish(topic, b"to an exchange of another kind")

        await asyncio.gather(*(good(number) for number in range(200)), *(bad() for _ in range(20)))
        arrived = 0
        while arrived < 200:
            got = await received(consumer)
            await consumer.settle([Settled(one, Settlement.ACK) for one in got])
            arrived += len(got)


async def test_what_a_user_may_not_do_is_named(broker: Broker) -> None:
    address = broker.backend.address
    reader = address.amqp.replace(address.username, READER, 1)
    async with broker.bus() as bus:
        await bus.publish(broker.topic, b"makes the exchange")
    async with broker.bus(host=reader) as bus:
        with pytest.raises(PermissionDeniedError, match="permissions"):
            await bus.publish(broker.topic, b"x")
        with pytest.raises(PermissionDeniedError, match="permissions"):
            await bus.subscribe(broker.topic, _nothing)
    for wrong, words in ((address.amqp.replace(address.password, "wrong"), "log-in"), (f"{address.amqp}x", "host")):
        with pytest.raises(PermissionDeniedError, match=words):
            async with broker.bus(host=wrong):
                pass


async def _nothing(message: Message) -> None:
    pass


async def test_a_second_virtual_host_has_messages_of_its_own(broker: Broker) -> None:
    elsewhere = broker.backend.address.amqp.removesuffix("%2F") + "lapel%2Fsecond"
    async with broker.bus() as bus, broker.bus(host=elsewhere) as other:
        here, there = (await one.driver.subscribe(request(broker.topic)) for one in (bus, other)), other
        consumers = [consumer async for consumer in here]
        await there.publish(broker.topic, b"there", raw=True)
        assert [one.data for one in await received(consumers[1])] == [b"there"]
        assert await consumers[0].receive(1, 0.1) == []


async def test_a_message_that_is_given_up_goes_to_the_dead_letter_queue(broker: Broker) -> None:
    async def fail(message: Message) -> Outcome:
        return Outcome.RETRY

    dead = f"dlq-shop-{broker.topic}"
    async with broker.bus(enableDeadLetter="true") as bus:
        await bus.subscribe(broker.topic, fail)
        await bus.publish(broker.topic, b"at once", raw=True)
        await until(lambda: _count(broker, dead, 1), "it did not arrive")
    async with broker.bus(enableDeadLetter="true", requeueInFailure="true") as bus:
        assert bus.driver.max_attempts is None
        await bus.subscribe(broker.topic, fail, max_attempts=3, backoff=QUICK)
        await bus.publish(broker.topic, b"after three", raw=True)
        await until(lambda: _count(broker, dead, 2), "it did not arrive")


async def _count(broker: Broker, queue: str, count: int) -> bool:
    return (await broker.counts(queue))[0] == count


async def test_a_quorum_queue_counts_across_consumers_and_gives_up_at_its_limit(broker: Broker) -> None:
    fields = {"enableDeadLetter": "true", "requeueInFailure": "true"}
    metadata = {"queueType": "quorum", "deliveryLimit": "2"}
    async with broker.bus(**fields) as bus:
        await bus.publish(broker.topic, b"nobody listens yet")
        attempts = []
        consumer = await bus.driver.subscribe(request(broker.topic, metadata=metadata))
        assert consumer.redelivers
        await bus.publish(broker.topic, b"poison", raw=True)
        for _ in range(3):
            (delivery,) = await received(consumer)
            attempts.append(delivery.attempt)
            await consumer.settle([Settled(delivery, Settlement.RETRY, 0.05)])
        assert attempts == [1, 2, 3]
        await until(lambda: _count(broker, f"dlq-shop-{broker.topic}", 1), "the broker did not give it up")


async def test_messages_that_wait_for_a_retry_do_not_keep_others_away(broker: Broker) -> None:
    done: list[bytes] = []

    async def handle(message: Message) -> None:
        if message.data == b"poison":
            raise ValueError
        done.append(message.data)

    async with broker.bus() as bus:
        await bus.subscribe(broker.topic, handle, concurrency=2, backoff=Backoff(initial=60.0), raw=True)
        for _ in range(10):
            await bus.publish(broker.topic, b"poison", raw=True)
        await bus.publish(broker.topic, b"fine", raw=True)
        await until(lambda: done == [b"fine"], "it waits behind those that failed")


@pytest.mark.parametrize(
    ("fields", "most"), [({"prefetchCount": "3"}, 3), ({"concurrencyMode": "single"}, 1), ({}, 10)]
)
async def test_no_more_is_taken_than_is_allowed(broker: Broker, fields: dict[str, str], most: int) -> None:
    queue = f"shop-{broker.topic}"
    async with broker.bus(**fields) as bus:
        consumer = await bus.driver.subscribe(request(broker.topic))
        for number in range(20):
            await bus.publish(broker.topic, b"%d" % number, raw=True)
        assert await broker.counts(queue) == (20, 0)
        got = await received(consumer)
        await until(lambda: _count(broker, queue, 20 - most), "the broker handed out another number")
        assert await consumer.lag() == 19
        assert await broker.counts(queue) == (20 - most, 1)
        await consumer.settle([Settled(got[0], Settlement.ACK)])
        await until(lambda: _count(broker, queue, 19 - most), "no further one is handed out")


async def test_auto_ack_forgets_a_message_when_it_is_handed_over(broker: Broker) -> None:
    async with broker.bus(autoAck="true") as bus:
        consumer = await bus.driver.subscribe(request(broker.topic))
        await bus.publish(broker.topic, b"x", raw=True)
        (delivery,) = await received(consumer)
        await consumer.settle([Settled(delivery, Settlement.ACK)])
        await consumer.close()
        following = await bus.driver.subscribe(request(broker.topic))
        assert await following.receive(1, 0.2) == []


async def test_settling_out_of_order_settles_what_was_named_and_nothing_else(broker: Broker) -> None:
    async with broker.bus() as bus:
        consumer = await bus.driver.subscribe(request(broker.topic))
        for number in range(6):
            await bus.publish(broker.topic, b"%d" % number, raw=True)
        got = await received(consumer, 6)
        for chosen in ((0, 1, 4), (2,)):
            await consumer.settle([Settled(got[number], Settlement.ACK) for number in chosen])
        # Twice is once.
        await consumer.settle([Settled(got[2], Settlement.ACK)])
        await consumer.close()
        following = await bus.driver.subscribe(request(broker.topic))
        assert [one.data for one in await received(following, 2)] == [b"3", b"5"]
        assert await following.receive(1, 0.2) == []


async def test_a_group_whose_queue_was_made_otherwise_is_told_so(broker: Broker) -> None:
    async with broker.bus() as bus:
        await bus.driver.subscribe(request(broker.topic))
        with pytest.raises(InvalidArgumentError, match="x-single-active-consumer"):
            await bus.driver.subscribe(request(broker.topic, ordering=Ordering.ALL))
        ordered = f"{broker.topic}-ordered"
        await bus.driver.subscribe(request(ordered, ordering=Ordering.ALL))
        # Without an order it can join those that keep one.
        await bus.driver.subscribe(request(ordered))
        with pytest.raises(InvalidArgumentError, match="x-max-length"):
            await bus.driver.subscribe(request(ordered, metadata={"maxLen": "5"}))


async def test_consumers_are_subscriptions_and_channels_do_not_pile_up(broker: Broker) -> None:
    queue = f"shop-{broker.topic}"
    async with broker.bus() as bus:
        driver = bus.driver
        assert isinstance(driver, RabbitPubSub)
        assert driver._client is not None
        link = driver._client.consuming
        async with await bus.subscribe(broker.topic, _nothing):
            for _ in range(10):
                async with await bus.subscribe(broker.topic, _nothing) as other:
                    await until(lambda: _consumers(broker, queue, 2), "it does not consume")
                    await other.pause()
                    await until(lambda: _consumers(broker, queue, 1), "it consumes while it is paused")
                    await other.resume()
            assert await _consumers(broker, queue, 1)
            live = link.now()
            assert live is not None
            await until(lambda: len(live.amqp.channels) == 2, "channels are left over")
        await until(lambda: _consumers(broker, queue, 0), "a consumer is left over")


async def _consumers(broker: Broker, queue: str, count: int) -> bool:
    return (await broker.counts(queue))[1] == count


async def test_an_unused_queue_goes_and_opening_says_so(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "lapel.component.bus"):
        async with broker.bus(deletedWhenUnused="true") as bus:
            assert "deletedWhenUnused" in caplog.text
            consumer = await bus.driver.subscribe(request(broker.topic))
            assert await broker.counts(f"shop-{broker.topic}") == (0, 1)
            await consumer.close()
            with pytest.raises(aiormq.AMQPError):
                await broker.counts(f"shop-{broker.topic}")
            # The exchange went with it, which must not be an error for publishers.
            await asyncio.gather(*(bus.publish(broker.topic, b"nobody listens") for _ in range(50)))


async def test_a_message_too_large_for_the_broker_is_an_error_of_its_own(broker: Broker) -> None:
    async with broker.bus() as bus:
        consumer = await bus.driver.subscribe(request(broker.topic))

        async def large(size: int) -> None:
            await bus.publish(broker.topic, bytes(size), raw=True)

        results = await asyncio.gather(large(100), large(17 * 2**20), large(5 * 2**20), return_exceptions=True)
        assert (results[0], results[2]) == (None, None)
        assert isinstance(results[1], InvalidArgumentError)
        assert sorted(len(one.data) for one in await received(consumer, 2)) == [100, 5 * 2**20]


async def test_tls_with_a_certificate_as_log_in(rabbitmq_tls: RabbitBackend) -> None:
    broker = Broker(rabbitmq_tls)
    place = f"amqps://127.0.0.1:{rabbitmq_tls.address.port}"
    async with broker.bus() as bus, broker.bus(host=place, saslExternal="true") as external:
        consumer = await external.driver.subscribe(request(broker.topic))
        await bus.publish(broker.topic, b"encrypted", raw=True)
        await external.publish(broker.topic, b"by certificate", raw=True)
        assert {one.data for one in await received(consumer, 2)} == {b"encrypted", b"by certificate"}
    with pytest.raises(UnavailableError, match="certificate"):
        async with broker.bus(caCert=""):
            pass
    with pytest.raises(PermissionDeniedError, match="log-in"):
        async with broker.bus(host=place.replace("//", "//guest:wrong@")):
            pass


async def test_several_hosts_are_tried_in_turn(broker: Broker) -> None:
    address = broker.backend.address
    several = address.amqp.replace(f"@{address.host}", f"@127.0.0.1:1,127.0.0.1:2,{address.host}")
    for _ in range(4):
        async with broker.bus(host=several) as bus:
            assert (await bus.health()).state is HealthState.READY


async def test_the_connection_can_be_had(broker: Broker) -> None:
    async with broker.bus(clientName="my orders") as bus:
        assert bus.unwrap(aiormq.Connection).is_opened
        with pytest.raises(LookupError):
            bus.unwrap(dict)
