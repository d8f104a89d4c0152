"""The order that consumers of pubsub.sqlite see, of a key or of all, whoever comes, fails and dies."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from tests.unit.pubsub_sqlite_support import RETRY, Clock, Opener, ack, count, nothing, publish, subscribe, take, texts
from tests.unit.pubsub_sqlite_support import clock as clock
from tests.unit.pubsub_sqlite_support import opened as opened

from lapel.delivery import Consumer, Delivery, Ordering, Settled


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
