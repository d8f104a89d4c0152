"""How publishers to pubsub.in-memory wait for room, and what ends their wait."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.delivery_support import now, until, virtual
from tests.unit.pubsub_memory_support import Inbox, memory

from lapel.delivery import Ordering
from lapel.errors import DeadlineExceededError, ThrottledError
from lapel.pubsub import Message


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.KEY])
@virtual
async def test_publishing_waits_while_too_many_messages_wait_and_nothing_is_lost(ordering: Ordering) -> None:
    inbox = Inbox(0.01)
    async with memory(max_pending=10) as bus:
        await bus.subscribe("t", inbox, concurrency=2, ordering=ordering)

        async def publish(publisher: int) -> None:
            for number in range(50):
                await bus.publish("t", f"{publisher}-{number}".encode(), key=str(publisher))
                lag = [await subscription.lag() for subscription in bus.subscriptions]
                assert (lag[0] or 0) <= 10

        await asyncio.gather(*map(publish, range(4)))
        await until(lambda: len(inbox.got) == 200)
    assert len(set(inbox.data)) == 200


@virtual
async def test_a_publish_that_finds_no_room_until_its_deadline_was_not_stored() -> None:
    async with memory(max_pending=2, timeout=3.0) as bus:
        subscription = await bus.subscribe("t", Inbox())
        await subscription.pause()
        await bus.publish("t", b"1")
        await bus.publish("t", b"2")
        with pytest.raises(DeadlineExceededError):
            await bus.publish("t", b"3")
        assert await subscription.lag() == 2


@virtual
async def test_a_waiting_publish_can_be_cancelled_and_gives_its_place_up() -> None:
    inbox = Inbox()
    async with memory(max_pending=1, timeout=100.0) as bus:
        subscription = await bus.subscribe("t", inbox)
        await subscription.pause()
        await bus.publish("t", b"1")
        waiting = [asyncio.create_task(bus.publish("t", str(number).encode())) for number in (2, 3, 4)]
        await asyncio.sleep(1)
        waiting[0].cancel()
        await asyncio.sleep(0.1)
        await subscription.resume()
        await until(lambda: len(inbox.got) == 3)
        assert inbox.data == [b"1", b"3", b"4"]
        assert waiting[0].cancelled()
        await bus.publish("t", b"5")


@virtual
async def test_a_place_granted_to_a_publisher_that_is_cancelled_just_then_is_not_lost() -> None:
    inbox = Inbox()
    async with memory(max_pending=1, timeout=100.0) as bus:
        subscription = await bus.subscribe("t", inbox)
        await subscription.pause()
        await bus.publish("t", b"1")
        waiting = [asyncio.create_task(bus.publish("t", str(number).encode())) for number in (2, 3)]
        await asyncio.sleep(1)
        await subscription.resume()
        group = bus.driver._groups["t", "bus"][1]  # type: ignore[attr-defined]  # the moment of the grant
        while len(group._space) == 2:
            await asyncio.sleep(0)
        waiting[0].cancel()
        await until(lambda: inbox.data == [b"1", b"3"])
        assert group._reserved == 0


@virtual
async def test_publishers_that_wait_for_two_groups_do_not_wait_for_each_other() -> None:
    boxes = [Inbox(0.01), Inbox(0.02), Inbox(0.01)]
    async with memory(max_pending=1) as bus:
        for index, (pattern, inbox) in enumerate(zip(("t*", "t1", "t2"), boxes, strict=True)):
            await bus.subscribe(pattern, inbox, group=str(index), concurrency=1)
        await asyncio.gather(*(bus.publish(f"t{n % 2 + 1}", str(n).encode()) for n in range(40)))
        await until(lambda: [len(inbox.got) for inbox in boxes] == [40, 20, 20])


@virtual
async def test_what_has_expired_makes_room() -> None:
    async with memory(max_pending=2) as bus:
        for name, ordering in (("n", Ordering.NONE), ("k", Ordering.KEY)):
            subscription = await bus.subscribe(name, Inbox(), ordering=ordering)
            await subscription.pause()
            await bus.publish(name, b"1", ttl=1, key="a")
            await bus.publish(name, b"2", ttl=1, key="b")
            await asyncio.sleep(2)
            began = now()
            await bus.publish(name, b"3")
            assert now() - began < 1
            assert await subscription.lag() == 1


@virtual
async def test_inside_a_handler_publishing_raises_at_the_bound_instead_of_waiting() -> None:
    raised: list[Exception] = []

    async def echo(message: Message) -> None:
        while not raised:
            try:
                # Also from tasks of the handler.
                await asyncio.create_task(bus.publish("t", b"more"))
            except ThrottledError as exc:
                raised.append(exc)
                return

    async with memory(max_pending=5) as bus:
        subscription = await bus.subscribe("t", echo, concurrency=1)
        await bus.publish("t", b"first")
        await until(lambda: bool(raised))
        await subscription.aclose()
    assert "maxPendingMessages" in str(raised[0])


@virtual
async def test_a_handler_of_another_component_waits_like_everybody() -> None:
    slow = Inbox(0.5)
    done: list[bytes] = []

    async def forward(message: Message) -> None:
        await second.publish("t", message.data)
        done.append(message.data)

    async with memory("one") as first, memory("two", max_pending=1) as second:
        await second.subscribe("t", slow, concurrency=1)
        await first.subscribe("t", forward, concurrency=1)
        for number in range(6):
            await first.publish("t", str(number).encode())
        await until(lambda: len(slow.got) == 6)
    assert len(done) == 6


@virtual
async def test_a_handler_can_publish_to_its_own_topic() -> None:
    seen: list[bytes] = []

    async def count_down(message: Message) -> None:
        seen.append(message.data)
        left = int(message.data)
        if left:
            await bus.publish("t", str(left - 1).encode())

    async with memory() as bus:
        await bus.subscribe("t", count_down, ordering="all")
        await bus.publish("t", b"50")
        await until(lambda: len(seen) == 51)
    assert seen == [str(number).encode() for number in range(50, -1, -1)]


@virtual
async def test_a_publisher_that_never_waits_lets_others_run() -> None:
    inbox = Inbox()
    async with memory() as bus:
        await bus.subscribe("t", inbox)
        for _ in range(1000):
            await bus.publish("t", b"x")
        assert len(inbox.got) > 0
