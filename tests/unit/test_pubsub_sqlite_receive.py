"""What receive of pubsub.sqlite promises when it is cancelled, paused, locked out, or has nothing to do."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest
from tests.unit.pubsub_sqlite_support import Clock, Opener, nothing, publish, subscribe, take, texts
from tests.unit.pubsub_sqlite_support import clock as clock
from tests.unit.pubsub_sqlite_support import opened as opened

from lapel.delivery import Consumer, Delivery
from lapel.errors import UnavailableError
from lapel.pubsub.types import PublishRequest
from lapel_contrib.sqlite import pubsub_queue
from lapel_contrib.sqlite.engine import SqliteEngine


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
