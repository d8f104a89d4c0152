"""pubsub.sqlite and messages that are out with a consumer: leases, attempts, and how messages come back."""

from __future__ import annotations

import asyncio
import logging

import pytest
from tests.unit.pubsub_sqlite_support import (
    ACK,
    RETRY,
    Clock,
    Opener,
    ack,
    count,
    nothing,
    publish,
    subscribe,
    take,
    texts,
)
from tests.unit.pubsub_sqlite_support import clock as clock
from tests.unit.pubsub_sqlite_support import opened as opened

from lapel.delivery import Settled, Settlement
from lapel.errors import ClosedError, UnsupportedError


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
