"""What time does to messages and groups of pubsub.sqlite: delays, lifetimes, retention."""

from __future__ import annotations

import pytest
from tests.unit.pubsub_sqlite_support import Clock, Opener, ack, count, nothing, publish, subscribe, take, texts
from tests.unit.pubsub_sqlite_support import clock as clock
from tests.unit.pubsub_sqlite_support import opened as opened

from lapel.delivery import Ordering
from lapel.errors import UnavailableError
from lapel_contrib.sqlite import pubsub as pubsub_module
from lapel_contrib.sqlite.engine import SqliteEngine


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
