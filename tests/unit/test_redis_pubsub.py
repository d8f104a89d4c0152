"""pubsub.redis through the bare driver: what is on the server, and what fields lead to."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.backends.redis import RedisBackend

from lapel.delivery import Consumer, Delivery, Ordering, Settled, Settlement
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, LapelError, OperationFailedError, SettingsError
from lapel.pubsub.types import PublishRequest, SubscribeRequest
from lapel_contrib.redis import pubsub_consumer
from lapel_contrib.redis.pubsub import RedisPubSub
from lapel_contrib.redis.pubsub_scripts import HANDED_BACK, PREFIX
from lapel_contrib.redis.pubsub_settings import RedisPubSubSettings

Opener = Callable[..., Awaitable[RedisPubSub]]
ACK, RETRY = Settlement.ACK, Settlement.RETRY
PATIENCE = 10.0


@pytest.fixture
async def opener(redis_server: RedisBackend) -> AsyncIterator[Opener]:
    drivers: list[RedisPubSub] = []

    async def open_driver(**fields: str) -> RedisPubSub:
        settings = RedisPubSubSettings.parse({**redis_server.properties, **fields})
        driver = RedisPubSub(settings, DriverContext(component="bus"))
        drivers.append(driver)
        await driver.open()
        return driver

    yield open_driver
    for driver in drivers:
        await driver.close()


@pytest.fixture
def topic(request: pytest.FixtureRequest, redis_server: RedisBackend) -> str:
    name = f"unit-pubsub-{request.node.name}"
    redis_server.call("DEL", name)
    return name


async def revoked(deliveries: Sequence[Delivery], seconds: float) -> None:
    raise AssertionError("Redis revokes nothing")


async def subscribe(driver: RedisPubSub, topic: str, group: str = "g") -> Consumer:
    return await driver.subscribe(SubscribeRequest(topic, group, Ordering.NONE, 10, revoked))


async def received(consumer: Consumer, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < count:
            got += await consumer.receive(count - len(got), 1.0)
    return got


def consumers_of(server: RedisBackend, topic: str) -> dict[str, int]:
    """Return the names and how many messages are pending with each."""
    found = {}
    for flat in server.call("XINFO", "CONSUMERS", topic, "g"):
        info = dict(zip(flat[::2], flat[1::2], strict=True))
        found[info[b"name"].decode()] = info[b"pending"]
    return found


async def test_an_entry_is_laid_out_as_a_sidecar_does(opener: Opener, redis_server: RedisBackend, topic: str) -> None:
    driver = await opener(maxLenApprox="100")
    await driver.publish(PublishRequest(topic, b"{}", "application/cloudevents+json", metadata={"a": "b"}))
    await driver.publish(PublishRequest(topic, b"\x00raw", "text/plain", "k"))
    first, second = (entry[1] for entry in redis_server.call("XRANGE", topic, "-", "+"))
    assert first[:3] == [b"data", b"{}", b"metadata"]
    assert json.loads(first[3]) == {"a": "b"}
    assert len(first) == 4
    assert second == [b"data", b"\x00raw", b"key", b"k", b"contentType", b"text/plain"]


@pytest.mark.parametrize(
    ("fields", "data", "metadata"),
    [
        (["data", "x", "metadata", '{"a":"b"}'], b"x", {"a": "b"}),
        (["data", "x", "metadata", "{}"], b"x", {}),
        (["data", "x", "metadata", "null"], b"x", {}),
        (["data", "x", "metadata", '{"a":1,"b":"c"}'], b"x", {"b": "c"}),
        (["data", "x", "metadata", "[broken"], b"x", {}),
        (["other", "x"], b"", {}),
        (["data", "x"], b"x", {}),
    ],
)
async def test_what_others_wrote_is_read(
    opener: Opener, redis_server: RedisBackend, fields: list[str], data: bytes, metadata: dict[str, str]
) -> None:
    topic = "unit-pubsub-foreign"
    redis_server.call("DEL", topic)
    redis_server.call("XADD", topic, "*", *fields)
    (delivery,) = await received(await subscribe(await opener(), topic), 1)
    assert (delivery.data, delivery.metadata, delivery.attempt) == (data, metadata, 1)


async def test_maxlenapprox_trims_when_publishing(opener: Opener, redis_server: RedisBackend, topic: str) -> None:
    driver = await opener(maxLenApprox="100", streamTTL="1")
    await asyncio.gather(*(driver.publish(PublishRequest(topic, b"x")) for _ in range(1000)))
    # Redis removes whole nodes of its tree, of 100 entries by default.
    assert 100 <= redis_server.call("XLEN", topic) <= 300


async def test_streamttl_trims_when_publishing(opener: Opener, redis_server: RedisBackend, topic: str) -> None:
    for number in range(1, 1001):
        redis_server.call("XADD", topic, f"{number}-0", "data", "old")
    driver = await opener(streamTTL="1h")
    await driver.publish(PublishRequest(topic, b"new"))
    assert redis_server.call("XLEN", topic) <= 101


async def test_what_was_trimmed_while_pending_does_not_stay_pending(
    opener: Opener, redis_server: RedisBackend, topic: str
) -> None:
    driver = await opener()
    await driver.publish(PublishRequest(topic, b"x"))
    first = await subscribe(driver, topic)
    await received(first, 1)
    redis_server.call("XTRIM", topic, "MAXLEN", 0)
    await first.close()
    assert list(await (await subscribe(driver, topic)).receive(5, 0.3)) == []
    assert redis_server.call("XPENDING", topic, "g")[0] == 0


async def test_without_trimming_a_warning_says_that_streams_grow(
    opener: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await opener(streamTTL="1h")
        assert "grow without bound" not in caplog.text
        await opener()
    assert "grow without bound" in caplog.text


async def test_a_consumer_leaves_no_name_behind_and_hands_back(
    opener: Opener, redis_server: RedisBackend, topic: str
) -> None:
    driver = await opener()
    for text in (b"done", b"started", b"delayed"):
        await driver.publish(PublishRequest(topic, text))
    consumer = await subscribe(driver, topic)
    done, _, delayed = await received(consumer, 3)
    await consumer.settle([Settled(done, ACK), Settled(delayed, RETRY, 60.0)])
    (name,) = consumers_of(redis_server, topic)
    assert name.startswith(PREFIX)
    assert name != HANDED_BACK
    await consumer.close()
    assert consumers_of(redis_server, topic) == {HANDED_BACK: 2}
    got = await received(await subscribe(driver, topic), 2)
    assert sorted((delivery.data, delivery.attempt) for delivery in got) == [(b"delayed", 2), (b"started", 2)]


async def test_the_reaper_takes_idle_consumers_of_ours_that_hold_nothing(
    opener: Opener, redis_server: RedisBackend, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.call("XGROUP", "CREATE", topic, "g", "0", "MKSTREAM")
    redis_server.call("XADD", topic, "*", "data", "x")
    redis_server.call("XGROUP", "CREATECONSUMER", topic, "g", f"{PREFIX}dead")
    redis_server.call("XGROUP", "CREATECONSUMER", topic, "g", "somebody")
    redis_server.call("XREADGROUP", "GROUP", "g", f"{PREFIX}holds", "STREAMS", topic, ">")
    monkeypatch.setattr(pubsub_consumer, "REAP_IDLE_SECONDS", 0.0)
    driver = await opener(processingTimeout="0")
    consumer = await subscribe(driver, topic)
    assert list(await consumer.receive(1, 0.3)) == []
    left = consumers_of(redis_server, topic)
    assert f"{PREFIX}dead" not in left
    assert {f"{PREFIX}holds", "somebody"} <= set(left)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"processingTimeout": "200", "redeliverInterval": "50"}, 1),
        ({"processingTimeout": "0", "redeliverInterval": "50"}, 0),
        ({"processingTimeout": "200", "redeliverInterval": "0"}, 0),
        ({"processingTimeout": "1h", "redeliverInterval": "50"}, 0),
    ],
)
async def test_messages_of_the_dead_come_as_the_fields_say(
    opener: Opener, redis_server: RedisBackend, topic: str, fields: dict[str, str], found: int
) -> None:
    redis_server.call("XGROUP", "CREATE", topic, "g", "0", "MKSTREAM")
    redis_server.call("XADD", topic, "*", "data", "x")
    redis_server.call("XREADGROUP", "GROUP", "g", "dead", "STREAMS", topic, ">")
    redis_server.call("XCLAIM", topic, "g", "dead", 0, *_ids(redis_server, topic), "IDLE", 1000, "JUSTID")
    got = await (await subscribe(await opener(**fields), topic)).receive(5, 0.4)
    assert [(delivery.data, delivery.attempt) for delivery in got] == [(b"x", 2)] * found


async def test_a_lease_that_is_extended_is_not_counted(opener: Opener, redis_server: RedisBackend, topic: str) -> None:
    driver = await opener()
    await driver.publish(PublishRequest(topic, b"x"))
    consumer = await subscribe(driver, topic)
    (delivery,) = await received(consumer, 1)
    redis_server.call(
        "XCLAIM", topic, "g", *consumers_of(redis_server, topic), 0, delivery.handle.id, "IDLE", 50000, "JUSTID"
    )
    assert list(await consumer.extend([delivery])) == []
    ((_, _, idle, count),) = redis_server.call("XPENDING", topic, "g", "-", "+", 10)
    assert idle < 50000
    assert count == 1


async def test_a_stolen_message_is_lost_and_its_settlement_changes_nothing(
    opener: Opener, redis_server: RedisBackend, topic: str
) -> None:
    driver = await opener(processingTimeout="1s", redeliverInterval="0")
    await driver.publish(PublishRequest(topic, b"x"))
    consumer = await subscribe(driver, topic)
    (delivery,) = await received(consumer, 1)
    redis_server.call("XCLAIM", topic, "g", "thief", 0, delivery.handle.id)
    delivery.handle.sure_until = 0.0
    await consumer.settle([Settled(delivery, ACK)])
    assert redis_server.call("XPENDING", topic, "g")[0] == 1
    assert list(await consumer.extend([delivery])) == [delivery]


async def test_a_stolen_message_is_not_taken_back_by_extending_its_lease(
    opener: Opener, redis_server: RedisBackend, topic: str
) -> None:
    driver = await opener(processingTimeout="1s", redeliverInterval="0")
    await driver.publish(PublishRequest(topic, b"x"))
    consumer = await subscribe(driver, topic)
    (delivery,) = await received(consumer, 1)
    redis_server.call("XCLAIM", topic, "g", "thief", 0, delivery.handle.id)
    assert list(await consumer.extend([delivery])) == [delivery]
    ((_, owner, _, _),) = redis_server.call("XPENDING", topic, "g", "-", "+", 10)
    assert owner == b"thief"


async def test_large_messages_pass(opener: Opener, topic: str) -> None:
    driver = await opener()
    data = bytes(range(256)) * 4096
    await driver.publish(PublishRequest(topic, data))
    (delivery,) = await received(await subscribe(driver, topic), 1)
    assert delivery.data == data


async def test_a_reply_takes_no_more_messages_when_it_is_large_already(opener: Opener, topic: str) -> None:
    driver = await opener()
    for number in range(4):
        await driver.publish(PublishRequest(topic, str(number).encode() * 600_000))
    first, second = await subscribe(driver, topic), await subscribe(driver, topic)
    await first.release(await received(first, 4))
    taken = [await second.receive(10, PATIENCE) for _ in range(2)]
    assert [len(batch) for batch in taken] == [2, 2]
    await second.settle([Settled(delivery, RETRY) for batch in taken for delivery in batch])
    again = [await second.receive(10, PATIENCE) for _ in range(2)]
    assert [len(batch) for batch in again] == [2, 2]
    assert {delivery.data[:1] for batch in again for delivery in batch} == {b"0", b"1", b"2", b"3"}
    assert {delivery.attempt for batch in again for delivery in batch} == {2}


async def test_concurrency_is_for_all_subscriptions_of_the_component(opener: Opener, topic: str) -> None:
    driver, topics = await opener(concurrency="1"), (topic, f"{topic}-other")
    consumers = [await subscribe(driver, each, topic) for each in topics]
    for each in topics:
        await driver.publish(PublishRequest(each, b"x"))
    first = await received(consumers[0], 1)
    assert list(await consumers[1].receive(10, 0.3)) == []
    await consumers[0].settle([Settled(delivery, ACK) for delivery in first])
    assert len(await received(consumers[1], 1)) == 1


async def test_a_key_of_another_kind_is_refused(opener: Opener, redis_server: RedisBackend, topic: str) -> None:
    driver = await opener()
    redis_server.call("SET", topic, "text")
    with pytest.raises(OperationFailedError, match="WRONGTYPE"):
        await driver.publish(PublishRequest(topic, b"x"))
    with pytest.raises(LapelError, match="WRONGTYPE"):
        await subscribe(driver, topic)
    redis_server.call("DEL", topic)


@pytest.mark.parametrize(
    "wrong",
    [
        PublishRequest("\ud800", b""),
        PublishRequest("t", b"", key="\ud800"),
        PublishRequest("t", b"", metadata={"a": "\ud800"}),
    ],
)
async def test_what_is_not_unicode_is_refused_and_harms_no_neighbour(
    opener: Opener, topic: str, wrong: PublishRequest
) -> None:
    driver = await opener()
    results = await asyncio.gather(
        driver.publish(wrong), driver.publish(PublishRequest(topic, b"x")), return_exceptions=True
    )
    assert isinstance(results[0], InvalidArgumentError)
    assert results[1] is None


def test_fields_without_effect_are_named() -> None:
    problems: list[Any] = []
    RedisPubSubSettings.parse({"redisHost": "h", "queueDepth": "100"}, warnings=problems)
    assert {problem.field for problem in problems} == {"queueDepth"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("processingTimeout", "10ms"),
        ("maxLenApprox", "-1"),
        ("concurrency", "0"),
        ("redeliverInterval", "soon"),
        ("streamTTL", "30d"),
    ],
)
def test_wrong_values_are_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        RedisPubSubSettings.parse({"redisHost": "h", name: value})


def _ids(server: RedisBackend, topic: str) -> list[bytes]:
    return [entry[0] for entry in server.call("XRANGE", topic, "-", "+")]
