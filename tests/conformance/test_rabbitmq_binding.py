"""bindings.rabbitmq: what the suite cannot know of, on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pamqp.commands import Basic
from tests.backends.rabbitmq import RabbitBackend
from tests.conformance.rabbitmq_broker import Broker, until

from lapel.bindings import BindingEvent, InputBinding, OutputBinding
from lapel.delivery import Backoff
from lapel.driver import SharedClients
from lapel.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError

AT_ONCE = Backoff(initial=0.01, maximum=0.01)


@pytest.fixture
def broker(rabbitmq_server: RabbitBackend) -> Broker:
    return Broker(rabbitmq_server)


async def test_the_queue_and_its_messages_are_what_dapr_makes(broker: Broker) -> None:
    async with OutputBinding(broker.binding(ttl="60", maxPriority="7", durable="true")) as binding:
        async with broker.channel() as channel:
            arguments: dict[str, Any] = {"x-message-ttl": 60_000, "x-max-priority": 7}
            await channel.queue_declare(broker.topic, durable=True, arguments=arguments)
        metadata = {"ttl": "30", "priority": "3", "messageID": "m", "own": "x"}
        await binding.invoke("create", b"data", metadata=metadata)
        async with broker.channel() as channel:
            got = await channel.basic_get(broker.topic)
            found = got.header.properties
            assert (got.body, found.delivery_mode, found.content_type) == (b"data", 2, "text/plain")
            assert (found.expiration, found.priority, found.message_id) == ("30000", 3, "m")
            assert found.headers == metadata
        for wrong in ({"ttl": "0"}, {"ttlInSeconds": "5000000"}, {"priority": "high"}, {"CC": "x"}):
            with pytest.raises(InvalidArgumentError):
                await binding.invoke("create", b"bad", metadata=wrong)


async def test_more_urgent_ones_come_first_and_late_ones_not_at_all(broker: Broker) -> None:
    driver = broker.binding(maxPriority="10")
    async with OutputBinding(driver) as binding:
        await binding.invoke("create", b"late", metadata={"ttl": "1ms"})
        for priority in ("1", "9", "5"):
            await binding.invoke("create", priority.encode(), metadata={"priority": priority})
        await asyncio.sleep(0.05)
        seen: list[BindingEvent] = []

        async def handle(event: BindingEvent) -> None:
            seen.append(event)

        async with InputBinding(broker.binding(maxPriority="10")) as source, await source.read(handle):
            await until(lambda: len(seen) == 3, "they did not come")
        assert [event.data for event in seen] == [b"9", b"5", b"1"]
        assert seen[0].metadata == {"priority": "9"}


async def test_a_failed_event_is_in_the_queue_again_when_the_reading_ends(broker: Broker) -> None:
    attempts: list[int] = []

    async def fail(event: BindingEvent) -> None:
        attempts.append(event.attempt)
        raise ValueError

    async with OutputBinding(broker.binding()) as binding:
        await binding.invoke("create", b"x")
        async with InputBinding(broker.binding()) as source:
            async with await source.read(fail, backoff=AT_ONCE):
                await until(lambda: len(attempts) >= 3, "it did not come again")
            assert await broker.counts(broker.topic) == (1, 0)


async def test_input_and_output_of_one_assembly_share_an_exclusive_queue(broker: Broker) -> None:
    shared, seen = SharedClients(), asyncio.Event()

    async def handle(event: BindingEvent) -> None:
        seen.set()

    async with (
        OutputBinding(broker.binding(shared, exclusive="true")) as binding,
        InputBinding(broker.binding(shared, exclusive="true")) as source,
        await source.read(handle),
    ):
        await binding.invoke("create", b"x")
        async with asyncio.timeout(10):
            await seen.wait()
        with pytest.raises(PermissionDeniedError, match="exclusive"):
            async with OutputBinding(broker.binding(exclusive="true")):
                pass


async def test_bindings_that_share_a_connection_make_a_queue_each(broker: Broker) -> None:
    shared = SharedClients()
    other = f"{broker.topic}-other"
    async with (
        OutputBinding(broker.binding(shared)) as one,
        OutputBinding(broker.binding(shared, queueName=other)) as two,
    ):
        async with broker.channel() as channel:
            for queue in (broker.topic, other):
                await channel.queue_delete(queue)
        for binding, queue in ((one, broker.topic), (two, other)):
            await binding.invoke("create", b"x")
            assert await broker.counts(queue) == (1, 0)


async def test_a_passive_binding_makes_no_queue(broker: Broker) -> None:
    with pytest.raises(NotFoundError, match="no such thing"):
        async with OutputBinding(broker.binding(passive="true")):
            pass
    async with broker.channel() as channel:
        await channel.queue_declare(broker.topic, durable=True, arguments={"x-queue-type": "quorum"})
    async with OutputBinding(broker.binding(passive="true")) as binding:
        await binding.invoke("create", b"x")
        async with broker.channel() as channel:
            await channel.queue_delete(broker.topic)
        # Gone: the message must not be dropped without a word.
        with pytest.raises(NotFoundError, match="not stored"):
            await binding.invoke("create", b"y")


async def test_a_queue_that_goes_when_unused_is_there_again_for_the_next_message(broker: Broker) -> None:
    seen: list[bytes] = []

    async def handle(event: BindingEvent) -> None:
        seen.append(event.data)

    async with (
        OutputBinding(broker.binding(deleteWhenUnused="true")) as binding,
        InputBinding(broker.binding(deleteWhenUnused="true")) as source,
    ):
        async with await source.read(handle):
            await binding.invoke("create", b"one")
            await until(lambda: seen == [b"one"], "it did not come")
        await binding.invoke("create", b"two")
        async with await source.read(handle):
            await until(lambda: seen == [b"one", b"two"], "it did not come")


async def test_only_headers_that_are_texts_arrive_with_their_names_escaped(broker: Broker) -> None:
    seen: list[BindingEvent] = []

    async def handle(event: BindingEvent) -> None:
        seen.append(event)

    async with InputBinding(broker.binding()) as source, await source.read(handle):
        async with broker.channel() as channel:
            properties = Basic.Properties(headers={"a b": "x", "number": 5}, content_type="text/csv")
            await channel.basic_publish(b"x", routing_key=broker.topic, properties=properties)
        await until(lambda: len(seen) == 1, "it did not come")
    assert (seen[0].metadata, seen[0].content_type) == ({"a+b": "x"}, "text/csv")


async def test_a_stream_is_one_message(broker: Broker) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    async with OutputBinding(broker.binding(contentType="text/csv")) as binding:
        await binding.invoke("create", parts())
        async with broker.channel() as channel:
            got = await channel.basic_get(broker.topic)
            assert (got.body, got.header.properties.content_type) == (b"012", "text/csv")
