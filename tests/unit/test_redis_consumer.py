"""One subscription of pubsub.redis, without a server: what it takes, keeps and hands back, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from tests.unit.redis_support import PATIENCE, FakeGroup, make_consumer, until

from lapel.delivery import Delivery, Settled, Settlement
from lapel.errors import UnavailableError
from lapel_contrib.redis import pubsub_consumer, pubsub_reader
from lapel_contrib.redis.pubsub_consumer import RedisConsumer
from lapel_contrib.redis.pubsub_places import Places
from lapel_contrib.redis.pubsub_retries import Retries
from lapel_contrib.redis.pubsub_scripts import EXTEND, HAND_BACK, RECLAIM, TAKE

ACK, RETRY = Settlement.ACK, Settlement.RETRY
AT_ONCE = 0.05
"""How long a `receive` may wait that finds nothing."""
Maker = Callable[..., RedisConsumer]


@pytest.fixture
async def group() -> FakeGroup:
    return FakeGroup()


@pytest.fixture
async def make() -> AsyncIterator[Maker]:
    made: list[RedisConsumer] = []

    def make(group: FakeGroup, **terms: object) -> RedisConsumer:
        made.append(make_consumer(group, **terms))  # type: ignore[arg-type]  # passed on
        return made[-1]

    yield make
    for consumer in made:
        await consumer.close()


def data_of(deliveries: object) -> list[bytes]:
    return [delivery.data for delivery in deliveries]  # type: ignore[attr-defined]  # of deliveries


async def received(consumer: RedisConsumer, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < count:
            got += await consumer.receive(count - len(got), 1.0)
    return got


async def test_what_comes_while_nobody_asks_is_kept(group: FakeGroup, make: Maker) -> None:
    consumer = make(group, lease=0.15)
    group.handed_back.append(b"1-0")
    assert data_of(await received(consumer, 1)) == [b"1-0"]
    group.put(b"2-0")
    await until(lambda: (b"2-0",) in group.on(EXTEND), "it is not kept")
    assert data_of(await received(consumer, 1)) == [b"2-0"]


async def test_what_was_taken_away_while_nobody_asked_is_not_returned(group: FakeGroup, make: Maker) -> None:
    consumer = make(group, lease=0.15)
    group.handed_back.append(b"1-0")
    await received(consumer, 1)
    group.lost.add(b"2-0")
    group.put(b"2-0", b"3-0")
    await until(lambda: any(b"2-0" in ids for ids in group.on(EXTEND)), "it is not kept")
    assert data_of(await received(consumer, 1)) == [b"3-0"]


async def test_a_claim_that_has_grown_old_is_confirmed_before_it_is_returned(group: FakeGroup, make: Maker) -> None:
    consumer = make(group)
    group.handed_back.append(b"1-0")
    await received(consumer, 1)
    group.lost.add(b"2-0")
    group.put(b"2-0", b"3-0")
    await until(lambda: len(consumer._claims.buffer) == 1, "the read brings nothing")
    consumer._claims.buffer[0].handle.sure_until = 0.0
    assert data_of(await received(consumer, 1)) == [b"3-0"]


async def test_a_fresh_claim_is_returned_without_asking(group: FakeGroup, make: Maker) -> None:
    consumer = make(group)
    group.put(b"1-0")
    await received(consumer, 1)
    assert group.on(EXTEND) == []


async def test_a_claim_that_cannot_be_confirmed_is_not_returned_and_ends_nothing(group: FakeGroup, make: Maker) -> None:
    consumer = make(group)
    group.handed_back.append(b"1-0")
    await received(consumer, 1)
    group.put(b"2-0")
    await until(lambda: consumer._claims.buffer, "the read brings nothing")
    consumer._claims.buffer[0].handle.sure_until = 0.0
    group.broken.add(EXTEND)
    assert list(await consumer.receive(1, AT_ONCE)) == []
    group.broken.clear()
    assert data_of(await received(consumer, 1)) == [b"2-0"]


async def test_with_many_waiting_for_a_retry_no_others_are_taken(group: FakeGroup, make: Maker) -> None:
    consumer = make(group, most_retries=50)
    group.endless = True
    group.handed_back += [b"%d-1" % number for number in range(10_000)]
    while got := await consumer.receive(10, AT_ONCE):
        await consumer.settle([Settled(delivery, RETRY, 1000.0) for delivery in got])
    taken = group.given + sum(map(len, group.on(TAKE)))
    # A read and a look of ten each may be under way when the bound is reached.
    assert 50 <= taken <= 80
    assert await consumer.lag() == taken


async def test_when_retries_have_come_others_are_taken_again(group: FakeGroup, make: Maker) -> None:
    consumer = make(group, most_retries=2)
    group.put(b"1-0", b"2-0")
    first = await received(consumer, 2)
    await consumer.settle([Settled(delivery, RETRY, 0.0) for delivery in first])
    group.put(b"3-0")
    again = await received(consumer, 2)
    assert sorted((delivery.data, delivery.attempt) for delivery in again) == [(b"1-0", 2), (b"2-0", 2)]
    assert group.given == 2
    await consumer.settle([Settled(delivery, ACK) for delivery in again])
    assert data_of(await received(consumer, 1)) == [b"3-0"]


async def test_retries_are_kept_but_not_by_extending_what_is_at_work(group: FakeGroup, make: Maker) -> None:
    consumer = make(group, lease=0.15)
    group.put(b"1-0", b"2-0")
    failed, at_work = await received(consumer, 2)
    await consumer.settle([Settled(failed, RETRY, 1000.0)])
    assert list(await consumer.extend([at_work])) == []
    assert group.on(EXTEND) == [(b"2-0",)]
    await until(lambda: (b"1-0",) in group.on(EXTEND), "the retry is not kept")


async def test_what_a_script_left_comes_with_the_next_run(
    group: FakeGroup, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = make(group)
    group.put(b"1-0", b"2-0", b"3-0")
    await consumer.settle([Settled(delivery, RETRY, 0.0) for delivery in await received(consumer, 3)])
    whole = group.apart

    async def half(call: object, **arguments: object) -> list[object]:
        ((found, _),) = await whole(call, **arguments)  # type: ignore[arg-type]  # passed on
        return [[found[:1], len(found[1:])]]

    monkeypatch.setattr(group, "apart", half)
    again = await received(consumer, 3)
    assert sorted(delivery.data for delivery in again) == [b"1-0", b"2-0", b"3-0"]
    assert [len(ids) for ids in group.on(RECLAIM)] == [3, 2, 1]


async def test_pause_ends_the_read_and_hands_back_what_it_brings(group: FakeGroup, make: Maker) -> None:
    consumer = make(group)
    assert list(await consumer.receive(1, AT_ONCE)) == []
    group.new.append(b"1-0")  # with the reply that ends the wait
    await consumer.pause()
    assert group.on(HAND_BACK) == [(b"1-0",)]
    assert consumer.at_work == 0


async def test_what_a_slow_look_brings_after_pause_is_handed_back(
    group: FakeGroup, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub_consumer, "CLOSE_SECONDS", AT_ONCE)
    consumer = make(group)
    group.put(b"1-0")
    (at_work,) = await received(consumer, 1)
    group.gate.clear()
    group.handed_back.append(b"2-0")
    consumer.look_now()
    assert list(await consumer.receive(1, AT_ONCE)) == []
    await consumer.pause()
    assert group.on(HAND_BACK) == []
    group.gate.set()
    await until(lambda: group.on(HAND_BACK) == [(b"2-0",)], "it is not handed back")
    assert list(await consumer.extend([at_work])) == []
    await consumer.settle([Settled(at_work, ACK)])
    assert ("XACK", (b"1-0",)) in group.ran
    await consumer.close()


async def test_settle_extend_and_release_work_after_pause(group: FakeGroup, make: Maker) -> None:
    consumer = make(group)
    group.put(b"1-0", b"2-0", b"3-0")
    done, failed, given_back = await received(consumer, 3)
    await consumer.pause()
    assert list(await consumer.extend([done, failed, given_back])) == []
    await consumer.settle([Settled(done, ACK), Settled(failed, RETRY, 0.0)])
    await consumer.release([given_back])
    assert group.on(HAND_BACK) == [(b"3-0",)]
    await consumer.close()
    assert group.on(HAND_BACK)[1:] == [()]  # which includes all that is left


async def test_a_read_that_does_not_end_is_cut_off_by_pause_and_resume_goes_on(
    group: FakeGroup, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub_reader, "STOP_SECONDS", AT_ONCE)
    monkeypatch.setattr(pubsub_reader, "CUT_SECONDS", AT_ONCE)
    consumer = make(group)
    assert list(await consumer.receive(1, AT_ONCE)) == []

    async def deaf(*command: object, **arguments: object) -> int:
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "call", deaf)
        await consumer.pause()
    await consumer.resume()
    group.put(b"1-0")
    assert data_of(await received(consumer, 1)) == [b"1-0"]
    assert group.channels == 2


async def test_what_could_not_be_handed_back_is_not_kept(group: FakeGroup, make: Maker) -> None:
    consumer = make(group)
    group.put(b"1-0")
    got = await received(consumer, 1)
    group.broken.add(HAND_BACK)
    with pytest.raises(UnavailableError):
        await consumer.release(got)
    assert list(await consumer.extend(got)) == got


async def test_consumers_share_their_places_in_turn(make: Maker) -> None:
    groups, places = (FakeGroup(), FakeGroup()), Places(1)
    busy, idle = (make(group, places=places) for group in groups)
    for group in groups:
        group.put(b"1-0", b"2-0", b"3-0")
    (at_work,) = await busy.receive(10, PATIENCE)
    for _ in range(3):
        assert list(await idle.receive(10, AT_ONCE)) == []
        waiting = [asyncio.create_task(received(consumer, 1)) for consumer in (busy, idle)]
        await asyncio.sleep(0)
        await busy.settle([Settled(at_work, ACK)])
        (at_work,) = await waiting[1]
        assert not waiting[0].done()
        waiting[0].cancel()
        await asyncio.wait(waiting)
        busy, idle = idle, busy


async def test_a_consumer_that_closes_frees_its_places(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub_consumer, "LOOK_SECONDS", 1000.0)
    groups, places = (FakeGroup(), FakeGroup()), Places(1)
    first, second = (make(group, places=places) for group in groups)
    for group in groups:
        group.put(b"1-0")
    await received(first, 1)
    waiting = asyncio.create_task(second.receive(1, PATIENCE))
    await asyncio.sleep(0)
    await first.close()
    assert data_of(await waiting) == [b"1-0"]
    await second.close()
    assert not places._users


@pytest.mark.parametrize("end", ["lose", "release"])
async def test_what_is_lost_or_released_frees_its_place(make: Maker, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub_consumer, "LOOK_SECONDS", 1000.0)
    group, places = FakeGroup(), Places(1)
    consumer = make(group, places=places)
    group.put(b"1-0", b"2-0")
    got = await received(consumer, 1)
    waiting = asyncio.create_task(consumer.receive(1, PATIENCE))
    await asyncio.sleep(0)
    assert places.room(5) == 0
    if end == "lose":
        group.lost.add(b"1-0")
        assert list(await consumer.extend(got)) == got
    else:
        await consumer.release(got)
    assert data_of(await waiting) == [b"2-0"]


def test_retries_come_in_the_order_in_which_they_are_due() -> None:
    retries = Retries()
    for id_, due in ((b"c", 3.0), (b"a", 1.0), (b"b", 2.0), (b"d", 4.0)):
        retries.add(id_, due)
    retries.add(b"a", 2.5)
    retries.discard(b"d")
    assert (len(retries), retries.next_due) == (3, 2.0)
    assert retries.after(2.2) == [b"c", b"a"]
    assert retries.take(2.9, 1) == [b"b"]
    assert retries.take(2.9, 5) == [b"a"]
    assert retries.ids() == {b"c"}
    retries.clear()
    assert retries.next_due == float("inf")


def test_retries_do_not_remember_what_was_discarded() -> None:
    retries = Retries()
    for number in range(10_000):
        retries.add(b"%d" % number, 1e9)
        retries.discard(b"%d" % number)
    assert len(retries._heap) < 100
