"""A consumer that is paused and resumed, and one whose messages of one key all wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pamqp import commands
from tests.conformance.rabbitmq_broker import request
from tests.unit.rabbitmq_fake import FakeBroker, Peer, until

from lapel.delivery import Backoff, Ordering
from lapel.pubsub import Message, PubSub


async def test_resuming_while_a_pause_is_under_way_keeps_the_consumer() -> None:
    tags: list[str] = []
    leaving: list[tuple[Peer, int, str | None]] = []

    def script(peer: Peer, channel: int, frame: Any) -> bool:
        if isinstance(frame, commands.Basic.Consume):
            tags.append(frame.consumer_tag)
            peer.send(commands.Basic.ConsumeOk(consumer_tag=frame.consumer_tag), channel)
            if len(tags) == 2:
                peer.deliver(channel, frame.consumer_tag, 1, b"x")
            return True
        if isinstance(frame, commands.Basic.Cancel):
            # The answer has to wait for the other wish.
            leaving.append((peer, channel, frame.consumer_tag))
            return True
        return False

    async with FakeBroker(script) as broker:
        driver = broker.driver()
        await driver.open()
        try:
            consumer = await driver.subscribe(request("t"))
            receiving = asyncio.create_task(consumer.receive(10, 20.0))
            await until(lambda: len(tags) == 1, "it does not consume")
            pausing = asyncio.create_task(consumer.pause())
            await until(lambda: leaving, "it does not leave")
            await consumer.resume()
            ((peer, channel, tag),) = leaving
            peer.send(commands.Basic.CancelOk(consumer_tag=tag), channel)
            async with asyncio.timeout(20):
                await pausing
                (delivery,) = await receiving
            assert delivery.data == b"x"
            assert not broker.seen(commands.Basic.Nack)
        finally:
            await driver.close()


async def test_resuming_before_a_pause_has_begun_to_leave_keeps_the_consumer() -> None:
    def script(peer: Peer, channel: int, frame: Any) -> bool:
        if isinstance(frame, commands.Basic.Consume):
            places.append((peer, channel, frame.consumer_tag))
        return False

    places: list[tuple[Peer, int, str]] = []
    async with FakeBroker(script) as broker:
        driver = broker.driver()
        await driver.open()
        try:
            consumer = await driver.subscribe(request("t"))
            receiving = asyncio.create_task(consumer.receive(10, 20.0))
            # The answer to a question that came later: it knows by now that it consumes.
            await until(lambda: places, "it does not consume")
            await consumer.lag()
            async with asyncio.timeout(20):
                await asyncio.gather(consumer.pause(), consumer.resume())
            peer, channel, tag = places[-1]
            peer.deliver(channel, tag, 1, b"x")
            async with asyncio.timeout(20):
                (delivery,) = await receiving
            assert delivery.data == b"x"
        finally:
            await driver.close()


@pytest.mark.parametrize(
    ("ordering", "fields", "prefetch"),
    [
        (Ordering.KEY, {}, 120),
        (Ordering.KEY, {"prefetchCount": "50"}, 10),
        (Ordering.KEY, {"concurrencyMode": "single"}, 1),
        (Ordering.ALL, {}, 10),
        (Ordering.NONE, {}, 10),
        (Ordering.NONE, {"singleActiveConsumer": "true"}, 120),
    ],
)
async def test_where_no_second_consumer_gets_more_the_first_is_given_room_for_what_waits(
    ordering: Ordering, fields: dict[str, str], prefetch: int
) -> None:
    async with FakeBroker() as broker:
        driver = broker.driver(**fields)
        await driver.open()
        try:
            consumer = await driver.subscribe(request("t", ordering=ordering))
            assert await consumer.receive(1, 0.01) == []
            await until(lambda: broker.seen(commands.Basic.Consume), "it does not consume")
            assert broker.seen(commands.Basic.Qos)[-1].prefetch_count == prefetch
        finally:
            await driver.close()


async def test_a_key_that_fails_keeps_no_other_away() -> None:
    queue = [("a", b"bad")] * 25 + [("b", b"good")] * 5
    held: set[int] = set()
    terms: dict[str, Any] = {}

    def hand_out(peer: Peer, channel: int) -> None:
        while queue and len(held) < terms["prefetch"]:
            key, body = queue.pop(0)
            tag = terms["last"] = terms.get("last", 0) + 1
            held.add(tag)
            peer.deliver(channel, terms["consumer"], tag, body, **{"lapel-key": key})

    def script(peer: Peer, channel: int, frame: Any) -> bool:
        if isinstance(frame, commands.Basic.Qos) and frame.prefetch_count:
            terms["prefetch"] = frame.prefetch_count
        elif isinstance(frame, commands.Basic.Consume):
            terms["consumer"] = frame.consumer_tag
            peer.send(commands.Basic.ConsumeOk(consumer_tag=frame.consumer_tag), channel)
            hand_out(peer, channel)
            return True
        elif isinstance(frame, commands.Basic.Ack):
            last = frame.delivery_tag
            held.difference_update([tag for tag in held if tag == last or (frame.multiple and tag < last)])
            hand_out(peer, channel)
        return False

    done: list[bytes] = []

    async def handle(message: Message) -> None:
        if message.data == b"bad":
            raise ValueError
        done.append(message.data)

    async with FakeBroker(script) as broker, PubSub(broker.driver()) as bus:
        await bus.subscribe("t", handle, ordering="key", raw=True, backoff=Backoff(initial=60.0), drain_timeout=0)
        await until(lambda: len(done) == 5, "it waits behind those of another key")
