"""pubsub.sqlite through the bare driver: two drivers on one file stand for two processes."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lapel.delivery import Consumer, Delivery, Ordering, Settled, Settlement
from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import (
    ClosedError,
    ConfigurationError,
    InvalidArgumentError,
    SettingsError,
    StorageError,
    UnavailableError,
    UnsupportedError,
)
from lapel.pubsub.types import BulkPublishRequest, PublishRequest, SubscribeRequest
from lapel_contrib.sqlite import pubsub as pubsub_module
from lapel_contrib.sqlite import pubsub_queue, pubsub_schema
from lapel_contrib.sqlite.engine import SqliteEngine
from lapel_contrib.sqlite.pubsub import SqlitePubSub
from lapel_contrib.sqlite.settings import SqlitePubSubSettings

Opener = Callable[..., Awaitable[SqlitePubSub]]
WAIT = 10.0
ACK, RETRY = Settlement.ACK, Settlement.RETRY


class Clock:
    """The wall clock of all drivers of a test, moved by hand."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> int:
        return int((time.time() + self.offset) * 1000)

    def advance(self, seconds: float) -> None:
        self.offset += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (pubsub_schema, pubsub_queue):
        monkeypatch.setattr(module, "now_ms", clock)
    monkeypatch.setattr("lapel_contrib.sqlite.pubsub_consumer.now_ms", clock)
    return clock


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    drivers: list[SqlitePubSub] = []

    async def open_driver(name: str = "broker.db", **fields: Any) -> SqlitePubSub:
        text = name if name.startswith((":", "file:")) else str(tmp_path / name)
        settings = await asyncio.to_thread(SqlitePubSubSettings, connection_string=text, **fields)
        driver = SqlitePubSub(settings, DriverContext(component="bus"))
        await driver.open()
        drivers.append(driver)
        return driver

    yield open_driver
    for driver in drivers:
        await driver.close()


async def subscribe(
    driver: SqlitePubSub, group: str = "g", ordering: Ordering = Ordering.NONE, topic: str = "t"
) -> Consumer:
    async def revoked(deliveries: Sequence[Delivery], seconds: float) -> None:
        raise AssertionError("a lease is not revoked, it runs out")

    return await driver.subscribe(SubscribeRequest(topic, group, ordering, 10, revoked))


async def publish(driver: SqlitePubSub, *texts: str, key: str | None = None, **fields: Any) -> None:
    for text in texts:
        await driver.publish(PublishRequest("t", text.encode(), key=key, **fields))


async def take(consumer: Consumer, count: int = 10, wait: float = WAIT) -> Sequence[Delivery]:
    return await consumer.receive(count, wait)


async def nothing(consumer: Consumer) -> bool:
    return not await consumer.receive(10, 0.0)


def texts(deliveries: Iterable[Delivery]) -> list[str]:
    return [delivery.data.decode() for delivery in deliveries]


async def ack(consumer: Consumer, *deliveries: Delivery) -> None:
    await consumer.settle([Settled(delivery, ACK) for delivery in deliveries])


def count(driver: SqlitePubSub, table: str) -> int:
    path = driver.settings.connection_string
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# what a message carries, who gets it


async def test_everything_published_with_a_message_arrives(opened: Opener) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    data, metadata = bytes(range(256)), {"ä": "ß", "empty": ""}
    await driver.publish(PublishRequest("t", data, content_type="image/png", key="k", metadata=metadata))
    (delivery,) = await take(consumer)
    assert (delivery.data, delivery.content_type, delivery.key, delivery.topic) == (data, "image/png", "k", "t")
    assert (delivery.metadata, delivery.attempt) == (metadata, 1)


async def test_another_process_gets_what_is_published(opened: Opener) -> None:
    here, there = await opened(), await opened()
    consumer = await subscribe(there)
    receiving = asyncio.create_task(take(consumer))
    await publish(here, "hello")
    assert texts(await receiving) == ["hello"]


async def test_groups_each_get_all_and_members_share(opened: Opener) -> None:
    one, two = await opened(), await opened()
    a1, a2, b = await subscribe(one, "a"), await subscribe(two, "a"), await subscribe(two, "b")
    await publish(one, *(str(number) for number in range(6)))
    first, second, other = await take(a1, 3), await take(a2, 6), await take(b)
    assert sorted(texts([*first, *second])) == ["0", "1", "2", "3", "4", "5"]
    assert len(first) == 3
    assert texts(other) == ["0", "1", "2", "3", "4", "5"]


async def test_a_group_starts_with_its_creation_and_is_remembered(opened: Opener) -> None:
    driver = await opened()
    await publish(driver, "nobody")
    await (await subscribe(driver)).close()
    await publish(driver, "kept")
    await driver.close()
    again = await opened()
    late = await subscribe(again, "late")
    assert texts(await take(await subscribe(again))) == ["kept"]
    assert await nothing(late)


async def test_topics_do_not_leak(opened: Opener) -> None:
    driver = await opened()
    other = await subscribe(driver, topic="other")
    consumer = await subscribe(driver)
    await publish(driver, "x")
    assert texts(await take(consumer)) == ["x"]
    assert await nothing(other)


async def test_a_message_that_no_group_waits_for_is_not_stored(opened: Opener) -> None:
    driver = await opened()
    await publish(driver, "x")
    assert count(driver, "pubsub_messages") == 0


async def test_a_message_is_deleted_when_the_last_group_has_settled_it(opened: Opener) -> None:
    driver = await opened()
    a, b = await subscribe(driver, "a"), await subscribe(driver, "b")
    await publish(driver, "x")
    await ack(a, *await take(a))
    assert count(driver, "pubsub_messages") == 1
    await ack(b, *await take(b))
    assert (count(driver, "pubsub_messages"), count(driver, "pubsub_deliveries")) == (0, 0)


async def test_bulk_publish_stores_the_good_entries_and_names_the_bad_one(opened: Opener) -> None:
    driver = await opened(max_message_bytes=10)
    consumer = await subscribe(driver)
    entries = tuple(PublishRequest("t", data) for data in (b"1", b"x" * 11, b"3"))
    errors = await driver.bulk_publish(BulkPublishRequest("t", entries))
    assert [type(error) for error in errors] == [type(None), InvalidArgumentError, type(None)]
    assert "maxMessageBytes" in str(errors[1])
    assert texts(await take(consumer)) == ["1", "3"]
    assert list(await driver.bulk_publish(BulkPublishRequest("t", ()))) == []


async def test_a_message_over_the_limit_is_refused(opened: Opener) -> None:
    driver = await opened(max_message_bytes=10)
    await publish(driver, "x" * 10)
    with pytest.raises(InvalidArgumentError, match="11 bytes; maxMessageBytes allows 10"):
        await publish(driver, "x" * 11)
    assert driver.limits.value_bytes == 10


@pytest.mark.parametrize(
    "fields", [{"topic": "\ud800"}, {"key": "\ud800"}, {"content_type": "\ud800"}, {"metadata": {"a": "\ud800"}}]
)
async def test_text_that_is_no_unicode_is_refused(opened: Opener, fields: dict[str, Any]) -> None:
    driver = await opened()
    await subscribe(driver)
    with pytest.raises(InvalidArgumentError, match="valid Unicode"):
        await driver.publish(PublishRequest(**{"topic": "t", "data": b"", **fields}))


# leases


async def test_a_lease_keeps_others_away_until_it_ends(opened: Opener, clock: Clock) -> None:
    one, two = await opened(), await opened()
    a, b = await subscribe(one), await subscribe(two)
    await publish(one, "x")
    (first,) = await take(a)
    clock.advance(29)
    assert await nothing(b)
    assert list(await a.extend([first])) == []
    clock.advance(29)
    assert await nothing(b)
    clock.advance(2)
    (second,) = await take(b)
    assert (second.data, second.attempt) == (b"x", 2)
    assert list(await a.extend([first])) == [first]


@pytest.mark.parametrize("settlement", [ACK, RETRY])
async def test_a_lost_lease_settles_nothing_and_is_no_error(
    opened: Opener, clock: Clock, caplog: pytest.LogCaptureFixture, settlement: Settlement
) -> None:
    driver = await opened()
    a, b = await subscribe(driver), await subscribe(driver)
    await publish(driver, "x")
    (old,) = await take(a)
    clock.advance(31)
    (new,) = await take(b)
    with caplog.at_level(logging.INFO, "lapel.component.bus"):
        await a.settle([Settled(old, settlement, 5.0)])
        await a.release([old])
        await a.close()
    assert "1 of 1 messages were settled after their lease" in caplog.text
    assert await b.lag() == 0
    assert list(await b.extend([new])) == []
    await ack(b, new)
    assert count(driver, "pubsub_messages") == 0


async def test_an_old_delivery_does_not_settle_a_new_one_of_the_same_consumer(opened: Opener, clock: Clock) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    await publish(driver, "x")
    (old,) = await take(consumer)
    clock.advance(31)
    (new,) = await take(consumer)
    await ack(consumer, old)
    assert count(driver, "pubsub_messages") == 1
    await ack(consumer, new)
    assert count(driver, "pubsub_messages") == 0


async def test_attempts_are_counted_across_processes(opened: Opener) -> None:
    attempts: list[int | None] = []
    for _ in range(3):
        driver = await opened()
        consumer = await subscribe(driver)
        if not attempts:
            await publish(driver, "x")
        (delivery,) = await take(consumer)
        attempts.append(delivery.attempt)
        await consumer.settle([Settled(delivery, RETRY)])
        await driver.close()
    assert attempts == [1, 2, 3]


async def test_a_release_is_not_counted_and_others_may_take_it_now(opened: Opener) -> None:
    one, two = await opened(), await opened()
    a, b = await subscribe(one), await subscribe(two)
    await publish(one, "x")
    await a.release(await take(a))
    (delivery,) = await take(b)
    assert delivery.attempt == 1


async def test_a_retry_comes_after_its_delay(opened: Opener, clock: Clock) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    await publish(driver, "x")
    (delivery,) = await take(consumer)
    await consumer.settle([Settled(delivery, RETRY, 60.0)])
    assert await nothing(consumer)
    assert await consumer.lag() == 1
    clock.advance(61)
    (again,) = await take(consumer)
    assert again.attempt == 2


async def test_a_waiting_receive_notices_that_a_retry_is_due(opened: Opener) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    await publish(driver, "x")
    (delivery,) = await take(consumer)
    await consumer.settle([Settled(delivery, RETRY, 0.05)])
    assert texts(await take(consumer)) == ["x"]


async def test_close_gives_unsettled_messages_back(opened: Opener) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    await publish(driver, "x")
    await take(consumer)
    await asyncio.gather(consumer.close(), consumer.close())
    (delivery,) = await take(await subscribe(driver))
    assert delivery.attempt == 2
    with pytest.raises(ClosedError):
        await take(consumer)


async def test_dead_letters_are_not_its_business(opened: Opener) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    await publish(driver, "x")
    (delivery,) = await take(consumer)
    with pytest.raises(UnsupportedError):
        await consumer.settle([Settled(delivery, Settlement.DEAD_LETTER)])
    assert count(driver, "pubsub_messages") == 1


# receive


async def test_a_cancelled_receive_loses_no_message(opened: Opener) -> None:
    driver, publisher = await opened(), await opened()
    consumer = await subscribe(driver)
    got: list[Delivery] = []
    for round_ in range(60):
        await publish(publisher, str(round_))
        receiving = asyncio.create_task(take(consumer, 5))
        for _ in range(round_ % 20):
            await asyncio.sleep(0)
        receiving.cancel()
        try:
            got += await receiving
        except asyncio.CancelledError:
            continue
    while len(got) < 60:
        got += await take(consumer, 5)
    assert sorted(map(int, texts(got))) == list(range(60))
    assert {delivery.attempt for delivery in got} == {1}


async def taken_in_background(consumer: Consumer) -> None:
    """Cancel a receive while the transaction that takes the messages is under way."""
    receiving = asyncio.create_task(take(consumer))
    while getattr(consumer, "_taking", None) is None:
        await asyncio.sleep(0)
    receiving.cancel()
    await asyncio.wait([receiving])


@pytest.mark.parametrize("how", ["close", "pause"])
async def test_what_a_cancelled_receive_took_is_handed_back_uncounted(opened: Opener, how: str) -> None:
    driver = await opened()
    consumer, other = await subscribe(driver), await subscribe(driver)
    await publish(driver, "x", "y")
    await taken_in_background(consumer)
    await getattr(consumer, how)()
    back = await take(other)
    assert texts(back) == ["x", "y"]
    assert [delivery.attempt for delivery in back] == [1, 1]


async def test_a_batch_taken_long_ago_is_returned_only_where_it_is_still_ours(
    opened: Opener, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = await opened()
    consumer, other = await subscribe(driver), await subscribe(driver)
    await publish(driver, "x", "y")
    await taken_in_background(consumer)
    assert texts(await take(consumer, 1)) == ["x"]
    clock.advance(31)
    monkeypatch.setattr(consumer, "_taken_at", -1000.0)
    assert texts(await take(other)) == ["x", "y"]
    assert await nothing(consumer)


async def test_receive_returns_nothing_when_its_time_is_up(opened: Opener) -> None:
    consumer = await subscribe(await opened())
    assert await take(consumer, wait=0.01) == ()


async def test_pause_takes_nothing_and_resume_wakes_receive(opened: Opener) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    await consumer.pause()
    await publish(driver, "x")
    assert await nothing(consumer)
    assert await consumer.lag() == 1
    receiving = asyncio.create_task(take(consumer))
    await asyncio.sleep(0)
    await consumer.resume()
    assert texts(await receiving) == ["x"]


async def test_a_locked_file_is_an_error_only_when_it_lasts(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = await opened(busy_timeout="0")
    consumer = await subscribe(driver)
    await publish(driver, "x")

    def lock() -> sqlite3.Connection:
        connection = sqlite3.connect(driver.settings.connection_string, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        return connection

    locker = await asyncio.to_thread(lock)
    assert await take(consumer, wait=0.0) == ()
    with monkeypatch.context() as patch:
        patch.setattr(consumer, "_locked_since", -1000.0)
        with pytest.raises(UnavailableError):
            await take(consumer, wait=0.0)
    locker.close()
    assert texts(await take(consumer)) == ["x"]


async def test_a_batch_ends_with_the_message_that_makes_it_too_large(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub_queue, "TAKE_BYTES", 5)
    driver = await opened()
    consumer = await subscribe(driver)
    await publish(driver, "aaa", "bbb", "ccc")
    assert texts(await take(consumer)) == ["aaa", "bbb"]
    assert texts(await take(consumer)) == ["ccc"]


async def test_an_idle_consumer_writes_nothing(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, other = await opened(), await opened()
    consumer = await subscribe(driver)
    assert await nothing(consumer)

    async def write(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("an idle consumer wrote")

    with monkeypatch.context() as patch:
        patch.setattr(driver.unwrap(SqliteEngine), "write", write)
        receiving = asyncio.create_task(take(consumer, wait=0.2))
        await subscribe(other, topic="elsewhere")
        await other.publish(PublishRequest("elsewhere", b"x"))
        assert await receiving == ()


# time


async def test_a_delayed_message_comes_when_it_is_due(opened: Opener, clock: Clock) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    await publish(driver, "later", delay=60.0)
    await publish(driver, "now")
    now = await take(consumer)
    assert texts(now) == ["now"]
    await ack(consumer, *now)
    assert await nothing(consumer)
    clock.advance(61)
    (delivery,) = await take(consumer)
    assert (delivery.data, delivery.attempt) == (b"later", 1)


async def test_a_message_past_its_time_to_live_is_not_delivered(opened: Opener, clock: Clock) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    await publish(driver, "old", ttl=10.0)
    await publish(driver, "new")
    clock.advance(11)
    assert texts(await take(consumer)) == ["new"]
    assert count(driver, "pubsub_messages") == 1


async def test_retention_bounds_what_is_kept_for_a_group_that_does_not_come_back(opened: Opener, clock: Clock) -> None:
    driver = await opened(retention="1h")
    await (await subscribe(driver)).close()
    await publish(driver, *"abc", key="k")
    await publish(driver, "delayed", delay=1800.0)
    clock.advance(3599)
    await driver.sweep()
    assert count(driver, "pubsub_messages") == 4
    clock.advance(2)
    await driver.sweep()
    assert (count(driver, "pubsub_messages"), count(driver, "pubsub_deliveries")) == (1, 1)


async def test_retention_zero_keeps_for_ever(opened: Opener, clock: Clock) -> None:
    driver = await opened(retention="0")
    consumer = await subscribe(driver)
    await publish(driver, "x")
    clock.advance(1e9)
    await driver.sweep()
    assert texts(await take(consumer)) == ["x"]


async def test_a_message_in_the_hands_of_a_handler_does_not_expire(opened: Opener, clock: Clock) -> None:
    driver = await opened()
    consumer = await subscribe(driver, ordering=Ordering.KEY)
    await publish(driver, "x", key="k", ttl=5.0)
    await publish(driver, "y", key="k")
    (first,) = await take(consumer, 1)
    clock.advance(6)
    await driver.sweep()
    assert await nothing(await subscribe(driver, ordering=Ordering.KEY))
    clock.advance(30)
    await driver.sweep()
    assert texts(await take(consumer)) == ["y"]
    assert list(await consumer.extend([first])) == [first]


async def test_expired_messages_are_swept_at_start(opened: Opener, clock: Clock) -> None:
    driver = await opened()
    await subscribe(driver)
    await publish(driver, "x", ttl=5.0)
    await driver.close()
    clock.advance(6)
    again = await opened()
    while count(again, "pubsub_messages"):
        await again.unwrap(SqliteEngine).wait_for_change(again.unwrap(SqliteEngine).version(), 0.05)


async def test_an_unused_group_is_forgotten_only_when_asked_for(
    opened: Opener, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub_module, "SWEEP_ROWS", 2)
    keeping, forgetting = await opened(), await opened(group_expiry="10m")
    await (await subscribe(keeping, "gone")).close()
    used, stale = await subscribe(keeping, "used"), await subscribe(keeping, "stale")
    await publish(keeping, *"abcde")
    clock.advance(601)
    await keeping.sweep()
    assert count(keeping, "pubsub_groups") == 3
    await stale.close()
    await forgetting.sweep()
    assert (count(keeping, "pubsub_groups"), count(keeping, "pubsub_deliveries")) == (2, 10)
    await subscribe(keeping, "used")
    clock.advance(601)
    await keeping.sweep()
    await forgetting.sweep()
    assert (count(keeping, "pubsub_groups"), count(keeping, "pubsub_messages")) == (1, 5)
    clock.advance(601)
    await forgetting.sweep()
    await keeping.sweep()
    with pytest.raises(UnavailableError, match="groupExpiry"):
        await take(used)


# order


async def test_a_key_is_held_by_one_consumer_at_a_time(opened: Opener) -> None:
    one, two = await opened(), await opened()
    a, b = await subscribe(one, ordering=Ordering.KEY), await subscribe(two, ordering=Ordering.KEY)
    for number in range(3):
        await publish(one, f"k{number}", key="k")
        await publish(one, f"m{number}", key="m")
    (k0,) = await take(a, 1)
    assert texts(await take(b)) == ["m0", "m1", "m2"]
    assert await nothing(b)
    (k1,) = await take(a, 1)
    await ack(a, k0)
    assert await nothing(b)
    await ack(a, k1)
    assert texts([k0, k1, *await take(b)]) == ["k0", "k1", "k2"]


async def test_messages_without_key_wait_for_none(opened: Opener) -> None:
    driver = await opened()
    a, b = await subscribe(driver, ordering=Ordering.KEY), await subscribe(driver, ordering=Ordering.KEY)
    await publish(driver, "1", "2")
    assert texts([*await take(a, 1), *await take(b, 1)]) == ["1", "2"]


async def test_heads_of_many_keys_come_before_followers_of_one(opened: Opener) -> None:
    driver = await opened()
    consumer = await subscribe(driver, ordering=Ordering.KEY)
    await publish(driver, *(f"hot{number}" for number in range(5)), key="hot")
    await publish(driver, "cold", key="cold")
    assert texts(await take(consumer, 3)) == ["hot0", "hot1", "cold"]


@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.ALL])
async def test_a_retry_holds_its_key_or_queue_and_a_settlement_frees_it(
    opened: Opener, clock: Clock, ordering: Ordering
) -> None:
    one, two = await opened(), await opened()
    a, b = await subscribe(one, ordering=ordering), await subscribe(two, ordering=ordering)
    await publish(one, "1", "2", key="k")
    (first,) = await take(a, 1)
    await a.settle([Settled(first, RETRY, 60.0)])
    assert await nothing(a)
    assert await nothing(b)
    clock.advance(61)
    (again,) = await take(b, 1)
    assert (again.data, again.attempt) == (b"1", 2)
    assert await nothing(a)
    await ack(b, again)
    assert texts(await take(a)) == ["2"]


@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.ALL])
async def test_what_a_dead_consumer_held_comes_again_from_its_beginning(
    opened: Opener, clock: Clock, ordering: Ordering
) -> None:
    driver = await opened()
    dead, heir = await subscribe(driver, ordering=ordering), await subscribe(driver, ordering=ordering)
    await publish(driver, "1", "2", "3", key="k")
    assert texts(await take(dead, 2)) == ["1", "2"]
    assert await nothing(heir)
    clock.advance(31)
    back = await take(heir)
    assert texts(back) == ["1", "2", "3"]
    assert [delivery.attempt for delivery in back] == [2, 2, 1]


async def test_a_delayed_message_that_is_due_becomes_the_head_of_its_key(opened: Opener, clock: Clock) -> None:
    driver = await opened()
    a, b = await subscribe(driver, ordering=Ordering.KEY), await subscribe(driver, ordering=Ordering.KEY)
    await publish(driver, "delayed", key="k", delay=60.0)
    await publish(driver, "1", key="k")
    clock.advance(61)
    assert texts(await take(a, 1)) == ["delayed"]
    assert await nothing(b)


async def test_a_consumer_that_lost_its_lease_gets_nothing_more_of_that_key(opened: Opener, clock: Clock) -> None:
    driver = await opened()
    slow, quick = await subscribe(driver, ordering=Ordering.KEY), await subscribe(driver, ordering=Ordering.KEY)
    await publish(driver, "1", "2", key="k")
    await take(slow, 1)
    clock.advance(31)
    assert texts(await take(quick, 1)) == ["1"]
    assert await nothing(slow)


@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.ALL])
async def test_a_message_given_up_while_later_ones_are_held_waits_for_those(opened: Opener, ordering: Ordering) -> None:
    driver = await opened()
    a, b = await subscribe(driver, ordering=ordering), await subscribe(driver, ordering=ordering)
    await publish(driver, "1", "2", key="k")
    first, second = await take(a)
    await a.release([first])
    assert await nothing(a)
    assert await nothing(b)
    await ack(a, second)
    assert texts(await take(b)) == ["1"]


async def test_order_of_all_ignores_keys(opened: Opener) -> None:
    driver = await opened()
    a, b = await subscribe(driver, ordering=Ordering.ALL), await subscribe(driver, ordering=Ordering.ALL)
    await publish(driver, "1", key="k")
    await publish(driver, "2")
    await publish(driver, "3", key="m")
    first = await take(a, 2)
    assert texts(first) == ["1", "2"]
    assert await nothing(b)
    await ack(a, *first)
    assert texts(await take(b)) == ["3"]


@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.ALL])
async def test_a_delayed_message_does_not_hold_up_its_key(opened: Opener, clock: Clock, ordering: Ordering) -> None:
    driver = await opened()
    consumer = await subscribe(driver, ordering=ordering)
    await publish(driver, "delayed", key="k", delay=60.0)
    await publish(driver, "1", "2", "3", key="k")
    (first,) = await take(consumer, 1)
    clock.advance(20)
    await consumer.extend([first])
    clock.advance(20)
    await consumer.extend([first])
    clock.advance(21)
    assert await nothing(consumer)
    await ack(consumer, first)
    assert texts(await take(consumer)) == ["delayed", "2", "3"]


async def test_an_unordered_consumer_takes_messages_of_one_key_side_by_side(opened: Opener) -> None:
    driver = await opened()
    a, b = await subscribe(driver), await subscribe(driver)
    await publish(driver, "1", "2", "3", key="k")
    assert texts([*await take(a, 1), *await take(b, 1)]) == ["1", "2"]


async def test_an_expired_head_frees_its_key(opened: Opener, clock: Clock) -> None:
    driver = await opened()
    consumer = await subscribe(driver, ordering=Ordering.KEY)
    await publish(driver, "old", key="k", ttl=5.0)
    await publish(driver, "new", key="k")
    clock.advance(6)
    assert texts(await take(consumer, 1)) == ["new"]


LANES_ARE_SOUND = """
SELECT (SELECT count(*) FROM pubsub_deliveries d WHERE key IS NOT NULL AND state = 0 AND EXISTS (
  SELECT 1 FROM pubsub_deliveries e WHERE e.group_id = d.group_id AND e.key = d.key AND e.state < 3
  AND e.message_id < d.message_id)),
 (SELECT count(*) FROM pubsub_deliveries d WHERE state = 1 AND NOT EXISTS (
  SELECT 1 FROM pubsub_deliveries e WHERE e.group_id = d.group_id AND e.key = d.key AND e.state < 3
  AND e.message_id < d.message_id)),
 (SELECT count(*) FROM pubsub_messages m WHERE NOT EXISTS (
  SELECT 1 FROM pubsub_deliveries d WHERE d.message_id = m.id))
"""


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.ALL, Ordering.NONE, None])
async def test_random_events_lose_nothing_and_keep_the_order(
    opened: Opener, clock: Clock, ordering: Ordering | None, seed: int
) -> None:
    """Consumers come, take, settle, retry, close and die, while time passes; None: each has another order."""
    chance = random.Random(seed)
    drivers = [await opened(), await opened()]
    holding: dict[Consumer, list[Delivery]] = {}
    published = 0
    done: list[tuple[str, int]] = []

    async def join() -> None:
        own = chance.choice(list(Ordering)) if ordering is None else ordering
        holding[await subscribe(chance.choice(drivers), ordering=own)] = []

    async def finish(consumer: Consumer) -> None:
        delivery = holding[consumer].pop(0)
        await ack(consumer, delivery)
        found = (delivery.key or "", int(delivery.data))
        if found not in done and await asyncio.to_thread(is_settled, delivery.handle.message):
            done.append(found)

    async def step() -> None:
        nonlocal published
        consumer = chance.choice(list(holding))
        held = holding[consumer]
        match chance.randrange(12):
            case 0 | 1 | 2:
                for _ in range(chance.randint(1, 3)):
                    published += 1
                    delay = 5.0 if ordering is None and chance.random() < 0.3 else None
                    await publish(chance.choice(drivers), str(published), key=chance.choice("abc"), delay=delay)
            case 3 | 4 | 5:
                held += await consumer.receive(chance.randint(1, 4), 0.0)
            case 6 | 7 | 8 if held:
                await finish(consumer)
            case 9 if held:
                failed = held.pop(0)
                await consumer.release(held)
                held.clear()
                await consumer.settle([Settled(failed, RETRY, chance.choice([0.0, 5.0]))])
            case 10:
                if chance.random() < 0.5:
                    await consumer.close()
                del holding[consumer]
                await join()
            case _:
                clock.advance(chance.choice([1.0, 6.0, 20.0]))
                for owner, items in holding.items():
                    assert not await owner.extend(items)

    def query(sql: str, *parameters: int) -> Any:
        with closing(sqlite3.connect(drivers[0].settings.connection_string)) as connection:
            return connection.execute(sql, parameters).fetchone()

    def is_settled(message: int) -> bool:
        return query("SELECT 1 FROM pubsub_deliveries WHERE message_id = ?", message) is None

    for _ in range(3):
        await join()
    for _ in range(120):
        await step()
        assert await asyncio.to_thread(query, LANES_ARE_SOUND) == (0, 0, 0)
    while len(done) < published:
        clock.advance(31)
        for consumer in holding:
            holding[consumer] = list(await consumer.receive(10, 0.0))
            while holding[consumer]:
                await finish(consumer)
    assert sorted(number for _, number in done) == list(range(1, published + 1))
    if ordering is Ordering.ALL:
        assert [number for _, number in done] == list(range(1, published + 1))
    if ordering is Ordering.KEY:
        for key in "abc":
            numbers = [number for found, number in done if found == key]
            assert numbers == sorted(numbers)
    assert (count(drivers[0], "pubsub_messages"), count(drivers[0], "pubsub_deliveries")) == (0, 0)


# plans


@pytest.mark.parametrize("module", [pubsub_queue, pubsub_schema])
async def test_no_statement_reads_more_rows_than_it_needs(opened: Opener, module: Any) -> None:
    driver = await opened()
    whole = {"_IDLE_GROUPS": "SCAN pubsub_groups", "_LAG": "(group_id=?)", "_NEXT_DUE": "_due (group_id=?)"}
    with closing(sqlite3.connect(driver.settings.connection_string)) as connection:
        for name, sql in vars(module).items():
            if name.startswith("_") and isinstance(sql, str) and sql.startswith(("SELECT", "UPDATE", "DELETE")):
                numbered = max((number for number in range(1, 9) if f"?{number}" in sql), default=0)
                plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * (numbered or sql.count("?"))).fetchall()
                for *_, line in plan:
                    assert "TEMP B-TREE" not in line, (name, plan)
                    narrow = any(column in line for column in ("state=?", "state<?", "message_id=?", "due<?"))
                    assert (
                        narrow
                        or "rowid" in line
                        or "expires_at<?" in line
                        or "SUBQUERY" in line
                        or whole.get(name, "-") in line
                    ), (name, plan)


# opening


async def test_a_network_file_system_is_refused(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub_module, "network_filesystem", lambda path: "nfs4")
    with pytest.raises(ConfigurationError, match=r"network file system \(nfs4\).*use a local disk"):
        await opened()


async def test_a_read_only_database_is_refused(opened: Opener, tmp_path: Path) -> None:
    await (await opened()).close()
    with pytest.raises(ConfigurationError, match="read-only"):
        await opened(f"file:{tmp_path}/broker.db?mode=ro")


async def test_foreign_tables_are_refused(opened: Opener, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "broker.db")) as connection:
        connection.execute("CREATE TABLE pubsub_messages (id INTEGER PRIMARY KEY, text TEXT)")
    with pytest.raises(StorageError, match=r"table 'pubsub_messages' exists and is not one"):
        await opened()


async def test_a_database_in_memory_is_not_durable_and_says_so(opened: Opener) -> None:
    driver = await opened(":memory:")
    assert Capability.DURABLE not in driver.capabilities
    assert "in memory" in driver.withdrawn[Capability.DURABLE]
    consumer = await subscribe(driver)
    await publish(driver, "x")
    assert texts(await take(consumer)) == ["x"]


async def test_closing_the_driver_closes_its_consumers(opened: Opener) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    await driver.close()
    with pytest.raises(ClosedError):
        await take(consumer)
    with pytest.raises(ClosedError):
        await publish(driver, "x")


def test_a_group_expiry_shorter_than_the_signs_of_life_is_refused() -> None:
    with pytest.raises(SettingsError, match="groupExpiry"):
        SqlitePubSubSettings.parse({"connectionString": "x.db", "groupExpiry": "5m"})
