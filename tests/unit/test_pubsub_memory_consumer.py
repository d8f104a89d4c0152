"""The consumer of pubsub.in-memory by itself, as other dispatchers may use it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.delivery_support import now, virtual

from lapel.delivery import Consumer, Ordering, Settled, Settlement
from lapel.driver import DriverContext
from lapel.errors import UnavailableError
from lapel.pubsub import PublishRequest, SubscribeRequest
from lapel_contrib.memory.pubsub import MemoryPubSub
from lapel_contrib.memory.settings import MemoryPubSubSettings

# The first use of a settings class compiles it, which reads files; components do that off the loop.
MemoryPubSubSettings()


async def _never_revoked(deliveries: Any, seconds: float) -> None:
    raise AssertionError


async def _armed(driver: MemoryPubSub, ordering: Ordering = Ordering.NONE) -> Consumer:
    return await driver.subscribe(SubscribeRequest("t", "g", ordering, 10, _never_revoked))


@virtual
async def test_receive_returns_as_soon_as_there_is_something_and_empty_after_its_time() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    consumer = await _armed(driver)
    began = now()
    assert list(await consumer.receive(5, 2.0)) == []
    assert now() - began == pytest.approx(2)
    receiving = asyncio.create_task(consumer.receive(5, 100.0))
    await asyncio.sleep(1)
    await driver.publish(PublishRequest("t", b"x"))
    assert [delivery.data for delivery in await receiving] == [b"x"]
    assert now() - began == pytest.approx(3)
    await consumer.close()
    await consumer.close()
    with pytest.raises(UnavailableError):
        await consumer.receive(5, 1.0)
    await driver.close()


@virtual
async def test_a_cancelled_receive_loses_nothing_and_passes_the_word_on() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    first, second = await _armed(driver), await _armed(driver)
    one = asyncio.create_task(first.receive(5, 100.0))
    await asyncio.sleep(0)
    two = asyncio.create_task(second.receive(5, 100.0))
    await asyncio.sleep(0)
    await driver.publish(PublishRequest("t", b"x"))
    one.cancel()
    began = now()
    assert [delivery.data for delivery in await two] == [b"x"]
    assert now() == pytest.approx(began, abs=0.01)
    await driver.close()


@virtual
async def test_a_retry_by_settlement_holds_its_key_for_the_delay() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    first, second = await _armed(driver, Ordering.KEY), await _armed(driver, Ordering.KEY)
    for data in (b"a1", b"a2", b"b1"):
        await driver.publish(PublishRequest("t", data, key=data.decode()[0]))
    taken = await first.receive(1, 1.0)
    assert [delivery.data for delivery in taken] == [b"a1"]
    assert [delivery.data for delivery in await second.receive(5, 1.0)] == [b"b1"]
    began = now()
    await first.settle([Settled(taken[0], Settlement.RETRY, 3.0)])
    again = await second.receive(5, 100.0)
    assert now() - began == pytest.approx(3)
    assert [(delivery.data, delivery.attempt) for delivery in again] == [(b"a1", 2), (b"a2", 1)]
    await driver.close()


@pytest.mark.parametrize("ending", ["close", "pause"])
@virtual
async def test_a_member_that_ends_or_pauses_just_when_it_was_woken_passes_the_word_on(ending: str) -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    first, second = await _armed(driver), await _armed(driver)
    one = asyncio.create_task(first.receive(5, 100.0))
    await asyncio.sleep(0)
    two = asyncio.create_task(second.receive(5, 100.0))
    await asyncio.sleep(0)
    began = now()
    await driver.publish(PublishRequest("t", b"x"))
    await (first.close() if ending == "close" else first.pause())
    assert [delivery.data for delivery in await two] == [b"x"]
    assert now() == pytest.approx(began, abs=0.01)
    await asyncio.wait([one], timeout=0.1)
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    await driver.close()


def _data(deliveries: Any) -> list[bytes]:
    return [delivery.data for delivery in deliveries]


@virtual
async def test_a_key_belongs_to_the_member_that_holds_one_of_its_messages() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    first, second = await _armed(driver, Ordering.KEY), await _armed(driver, Ordering.KEY)
    for number in range(4):
        await driver.publish(PublishRequest("t", str(number).encode(), key="k"))
    mine = await first.receive(1, 1.0)
    assert list(await second.receive(5, 1.0)) == []
    await first.settle([Settled(mine[0], Settlement.ACK)])
    theirs = await second.receive(1, 1.0)
    assert _data(theirs) == [b"1"]
    assert list(await first.receive(5, 1.0)) == []
    await second.release(theirs)
    assert _data(await first.receive(5, 1.0)) == [b"1", b"2", b"3"]
    await driver.close()


@virtual
async def test_a_blocked_key_gives_its_owner_nothing_either() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    consumer = await _armed(driver, Ordering.KEY)
    for number in range(3):
        await driver.publish(PublishRequest("t", str(number).encode(), key="k"))
    taken = await consumer.receive(2, 1.0)
    began = now()
    await consumer.settle([Settled(taken[0], Settlement.RETRY, 3.0)])
    assert _data(await consumer.receive(5, 100.0)) == [b"0", b"2"]
    assert now() - began == pytest.approx(3)
    await driver.close()


@virtual
async def test_publishers_are_served_in_turn_and_never_exceed_the_bound() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(max_pending=4), DriverContext(component="bus"))
    consumer = await _armed(driver)
    for number in range(4):
        await driver.publish(PublishRequest("t", str(number).encode()))
    early = asyncio.create_task(driver.publish(PublishRequest("t", b"early")))
    await asyncio.sleep(1)
    got = _data(await consumer.receive(1, 1.0))
    late = [asyncio.create_task(driver.publish(PublishRequest("t", b"late"))) for _ in range(8)]
    await asyncio.sleep(1)
    while len(got) < 13:
        got += _data(await consumer.receive(1, 1.0))
        await asyncio.sleep(0.1)
        assert (await consumer.lag() or 0) <= 4
    assert got == [b"0", b"1", b"2", b"3", b"early", *[b"late"] * 8]
    await asyncio.gather(early, *late)
    await driver.close()


@virtual
async def test_a_single_place_is_never_given_to_two() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(max_pending=1), DriverContext(component="bus"))
    consumer = await _armed(driver)
    work = [asyncio.create_task(driver.publish(PublishRequest("t", str(n).encode()))) for n in range(5)]
    for number in range(5):
        await asyncio.sleep(0.1)
        assert await consumer.lag() == 1
        assert _data(await consumer.receive(5, 1.0)) == [str(number).encode()]
    await asyncio.gather(*work)
    await driver.close()


@virtual
async def test_a_publisher_that_gives_up_waiting_for_one_group_frees_its_place_in_the_others() -> None:
    driver = MemoryPubSub(MemoryPubSubSettings(max_pending=1), DriverContext(component="bus"))
    wide = await driver.subscribe(SubscribeRequest("t*", "wide", Ordering.NONE, 1, _never_revoked))
    await driver.subscribe(SubscribeRequest("t1", "narrow", Ordering.NONE, 1, _never_revoked))
    await driver.publish(PublishRequest("t1", b"fills both"))
    await wide.receive(1, 1.0)
    waiting = asyncio.create_task(driver.publish(PublishRequest("t1", b"given up")))
    await asyncio.sleep(1)
    other = asyncio.create_task(driver.publish(PublishRequest("t2", b"x")))
    await asyncio.sleep(1)
    assert not other.done()
    waiting.cancel()
    await asyncio.wait([other], timeout=1)
    assert other.done()
    assert _data(await wide.receive(5, 1.0)) == [b"x"]
    await driver.close()
