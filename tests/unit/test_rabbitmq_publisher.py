"""What publishers are told when a channel or a connection ends, and what reaches the broker then."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiormq.channel import Channel
from pamqp import commands
from pamqp.header import ContentHeader
from tests.backends.certificates import make_certificates
from tests.conformance.rabbitmq_broker import request
from tests.unit.rabbitmq_fake import FakeBroker, Peer, until

from lapel.errors import (
    InvalidArgumentError,
    LapelError,
    OutcomeUnknownError,
    PermissionDeniedError,
    ThrottledError,
    UnavailableError,
)
from lapel.pubsub.types import PublishRequest
from lapel_contrib.rabbitmq import publisher
from lapel_contrib.rabbitmq.link import Link
from lapel_contrib.rabbitmq.messages import properties_of
from lapel_contrib.rabbitmq.publisher import Declaration, Publishers

REASONS = {403: "ACCESS_REFUSED", 404: "NOT_FOUND", 406: "PRECONDITION_FAILED"}


async def _make(channel: Channel) -> None:
    await channel.exchange_declare("t")


TOPIC = Declaration("exchange 't'", _make)


@asynccontextmanager
async def opened(broker: FakeBroker, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Link, Publishers]]:
    link = broker.link(context)
    await link.open()
    try:
        yield link, Publishers(link)
    finally:
        await link.close()


async def publish(publishers: Publishers, key: str = "") -> LapelError | None:
    """Return the error, if there is one."""
    properties, _ = properties_of({}, content_type=None, ttl=None)
    try:
        await publishers.publish("t", key, b"x", properties, TOPIC)
    except LapelError as exc:
        return exc
    return None


def ended(code: int) -> commands.Channel.Close:
    return commands.Channel.Close(reply_code=code, reply_text=REASONS[code], class_id=60, method_id=40)


async def test_nothing_is_sent_on_a_channel_that_the_broker_has_closed() -> None:
    held: list[int] = []
    gone: set[int] = set()
    wrong: list[Any] = []
    tags: dict[int, int] = {}

    def script(peer: Peer, channel: int, frame: Any) -> bool:
        if isinstance(frame, commands.Channel.Open):
            gone.discard(channel)
            tags[channel] = 0
        elif isinstance(frame, commands.Channel.CloseOk):
            gone.add(channel)
        elif channel in gone:
            wrong.append(frame)
            return True
        elif isinstance(frame, commands.Basic.Publish):
            tags[channel] += 1
            if frame.routing_key == "held":
                held.append(tags[channel])
            elif frame.routing_key == "bad":
                # Those who are confirmed at that moment go on at once.
                acks = [commands.Basic.Ack(delivery_tag=tag) for tag in held]
                peer.send_together([*acks, ended(406)], channel)
            else:
                peer.send(commands.Basic.Ack(delivery_tag=tags[channel]), channel)
        return False

    async with FakeBroker(script) as broker, opened(broker) as (link, publishers):

        async def publish_twice() -> list[LapelError | None]:
            return [await publish(publishers, "held"), await publish(publishers)]

        tasks = [asyncio.create_task(publish_twice()) for _ in range(32)]
        await until(lambda: len(held) == 32, "they were not sent")
        assert isinstance(await publish(publishers, "bad"), InvalidArgumentError)
        async with asyncio.timeout(20):
            assert await asyncio.gather(*tasks) == [[None, None]] * 32
        assert wrong == []
        assert link.reconnects == 0


@pytest.mark.parametrize(
    ("code", "alone"), [(403, PermissionDeniedError), (404, UnavailableError), (406, InvalidArgumentError)]
)
async def test_only_a_message_that_was_alone_is_known_to_be_the_reason(code: int, alone: type[LapelError]) -> None:
    expected = 1

    def script(peer: Peer, channel: int, frame: Any) -> bool:
        if isinstance(frame, commands.Basic.Publish):
            came.append(frame)
            if len(came) == expected:
                peer.send(ended(code), channel)
        return False

    async with FakeBroker(script) as broker, opened(broker) as (_, publishers):
        came: list[Any] = []
        assert type(await publish(publishers)) is alone
        came, expected = [], 3
        answers = await asyncio.gather(*(publish(publishers) for _ in range(3)))
        assert [type(answer) for answer in answers] == [OutcomeUnknownError] * 3


async def test_a_message_is_of_unknown_outcome_when_the_line_ends_between_two_frames(tmp_path: Path) -> None:
    made = await asyncio.to_thread(make_certificates, tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await asyncio.to_thread(server.load_cert_chain, made.server_cert, made.server_key)
    client = await asyncio.to_thread(ssl.create_default_context, cafile=str(made.client.ca))
    came: list[Any] = []

    def script(peer: Peer, channel: int, frame: Any) -> bool:
        if isinstance(frame, commands.Basic.Publish):
            came.append(frame)
            if len(came) == 3:
                # Over TLS the last frame and the end come together.
                peer.send(commands.Basic.Ack(delivery_tag=1), channel)
                peer.writer.close()
        return False

    async with FakeBroker(script, server) as broker, opened(broker, client) as (_, publishers):
        first, *others = await asyncio.gather(*(publish(publishers) for _ in range(3)))
        assert first is None or isinstance(first, OutcomeUnknownError)
        assert [type(answer) for answer in others] == [OutcomeUnknownError] * 2


async def test_under_an_alarm_nothing_is_declared_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "BLOCKED_SECONDS", 0.05)
    async with FakeBroker() as broker, opened(broker) as (link, publishers):
        connection = await link.connection()
        broker.peers[0].send(commands.Connection.Blocked(reason="low on memory"))
        await until(lambda: connection.blocked, "the alarm did not arrive")
        assert isinstance(await publish(publishers), ThrottledError)
        assert not broker.seen(commands.Exchange.Declare)


async def test_a_mismatch_is_named_whenever_the_answer_comes() -> None:
    def script(peer: Peer, channel: int, frame: Any) -> bool:
        if isinstance(frame, commands.Exchange.Declare):
            closed.add(channel)
            peer.send(ended(406), channel)
        # A broker does not look at what comes on a channel that it has closed.
        return channel in closed

    closed: set[int] = set()
    async with FakeBroker(script) as broker:
        driver = broker.driver()
        await driver.open()
        try:
            assert driver._client is not None
            connection = await driver._client.consuming.connection()
            for keys in (1, 2, 3, 50):
                metadata = {"routingKey": ",".join("k" * keys)}
                with pytest.raises(InvalidArgumentError, match=r"other properties.*PRECONDITION_FAILED"):
                    await driver.subscribe(request("t", metadata=metadata))
                closed.clear()
            assert connection.usable
        finally:
            await driver.close()


async def test_the_components_lifetime_holds_for_messages_without_one_but_not_for_dead_letters() -> None:
    def script(peer: Peer, channel: int, frame: Any) -> bool:
        if isinstance(frame, commands.Basic.Publish):
            came.append(frame)
            peer.send(commands.Basic.Ack(delivery_tag=len(came)), channel)
        return False

    came: list[Any] = []
    async with FakeBroker(script) as broker:
        driver = broker.driver(ttlInSeconds="5")
        await driver.open()
        try:
            await driver.publish(PublishRequest("t", b"x"))
            await driver.publish(PublishRequest("t", b"x", ttl=7.0))
            await driver.publish(PublishRequest("t", b"x", dead_letter=True))
        finally:
            await driver.close()
        found = [frame.properties for frame in broker.seen(ContentHeader)]
        assert [one.expiration for one in found] == ["5000", "7000", None]
