"""What the dispatcher does with messages that are not its own for ever: leases, revocation, loss."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.delivery_support import (
    Broker,
    Rig,
    now,
    number_of,
    until,
    virtual,
)

from lapel.delivery import (
    Backoff,
    Held,
    Ordering,
    Outcome,
)
from lapel.errors import UnavailableError


@virtual
async def test_leases_of_running_buffered_and_parked_messages_are_kept() -> None:
    async def handle(held: Held) -> Any:
        if number_of(held) == 0 and held.attempt == 1:
            return Outcome.RETRY
        await asyncio.sleep(100)
        return None

    broker = Broker(range(4))
    broker.lease = 30.0
    async with Rig(broker, handle, concurrency=2, backoff=Backoff(initial=50, maximum=50, jitter=0)):
        began = now()
        await asyncio.sleep(95)
        times = [moment for moment, _ in broker.extended]
        assert all(later - earlier <= 10.1 for earlier, later in zip([began, *times], times, strict=False))
        assert all(numbers == [0, 1, 2, 3] for _, numbers in broker.extended)


@virtual
async def test_a_lost_message_is_not_settled_and_an_unordered_handler_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    finished: list[int] = []

    async def handle(held: Held) -> None:
        await asyncio.sleep(25)
        finished.append(number_of(held))

    broker = Broker([0, 1])
    broker.lease = 30.0
    async with Rig(broker, handle):
        broker.lost = {0}
        await until(lambda: len(finished) == 2)
        await asyncio.sleep(1)
        assert broker.acked == [1]
    assert "ran out or was taken away" in caplog.text


@virtual
async def test_a_lost_message_of_an_ordered_subscription_is_cancelled_and_its_key_handed_back() -> None:
    cancelled: list[int] = []
    finished: list[int] = []

    async def handle(held: Held) -> None:
        try:
            await asyncio.sleep(25)
        except asyncio.CancelledError:
            cancelled.append(number_of(held))
            raise
        finished.append(number_of(held))

    broker = Broker(range(6), keys=2)
    broker.lease = 30.0
    async with Rig(broker, handle, ordering=Ordering.KEY):
        broker.lost = {0}
        await until(lambda: bool(cancelled))
        broker.lost = set()
        await until(lambda: sorted(broker.acked) == [1, 2, 3, 4, 5])
    assert cancelled == [0]
    assert broker.released == [2, 4]
    assert 0 not in broker.acked


@virtual
async def test_leases_that_cannot_be_extended_count_as_lost_once_they_have_run_out() -> None:
    async def handle(held: Held) -> None:
        await asyncio.sleep(100)

    broker = Broker([0])
    broker.lease = 30.0
    broker.extend_faults.extend([UnavailableError("down")] * 100)
    async with Rig(broker, handle) as rig:
        await asyncio.sleep(28)
        assert len(broker.consumer.held) == 1
        await asyncio.sleep(75)
        assert broker.acked == []
        assert rig.dispatcher.in_flight == 0


@virtual
async def test_revoked_deliveries_are_finished_or_cancelled_in_time_and_the_rest_is_dropped() -> None:
    started: list[int] = []
    cancelled: list[int] = []

    async def handle(held: Held) -> None:
        started.append(number_of(held))
        try:
            await asyncio.sleep(3 if number_of(held) == 0 else 100)
        except asyncio.CancelledError:
            cancelled.append(number_of(held))
            raise

    broker = Broker(range(8), keys=4)
    async with Rig(broker, handle, ordering=Ordering.KEY, concurrency=4) as rig:
        await asyncio.sleep(1)
        taken = [item for item in broker.consumer.held if item.handle[0] in (0, 1, 4, 5)]
        began = now()
        await broker.consumer.revoked(taken, 10.0)
        assert now() - began <= 10
        assert broker.acked == [0]
        assert cancelled == [1]
        assert started == [0, 1, 2, 3]
        assert rig.dispatcher.in_flight == 4


@virtual
@pytest.mark.parametrize("keys", [None, 1])
async def test_a_message_that_fails_while_it_is_revoked_is_not_tried_again(keys: int | None) -> None:
    """Others have it by then, so that two members would work on it, and on its key, at once."""
    started: list[int] = []

    async def handle(held: Held) -> Any:
        started.append(number_of(held))
        await asyncio.sleep(1)
        return Outcome.RETRY

    broker = Broker([0], keys=keys)
    broker.redelivers = False
    ordering = Ordering.KEY if keys else Ordering.NONE
    async with Rig(broker, handle, ordering=ordering, backoff=Backoff(initial=0.5, maximum=0.5)) as rig:
        await until(lambda: started == [0])
        await broker.consumer.revoked(list(broker.consumer.held), 10.0)
        assert rig.dispatcher.in_flight == 0
        await asyncio.sleep(30)
        assert started == [0]
        assert broker.acked == []


@virtual
async def test_a_message_lost_while_its_dead_letter_is_published_is_not_settled() -> None:
    async def handle(held: Held) -> Any:
        return Outcome.DROP

    async def dead_letter(held: Held, reason: str) -> None:
        await asyncio.sleep(15)

    broker = Broker([0])
    broker.lease = 30.0
    broker.lost = {0}
    async with Rig(broker, handle, dead_letter=dead_letter) as rig:
        await asyncio.sleep(20)
        assert rig.dispatcher.given_up == 1
        assert rig.dispatcher.in_flight == 0
    assert broker.acked == []


@virtual
async def test_a_key_whose_parked_head_is_revoked_goes_on() -> None:
    async def handle(held: Held) -> Any:
        return Outcome.RETRY if number_of(held) == 0 else None

    broker = Broker([0, 1], keys=1)
    async with Rig(broker, handle, ordering=Ordering.KEY, backoff=Backoff(initial=600, maximum=600)):
        await asyncio.sleep(1)
        head = [item for item in broker.consumer.held if item.handle[0] == 0]
        await broker.consumer.revoked(head, 1.0)
        await until(lambda: broker.acked == [1], seconds=10)


@virtual
async def test_messages_whose_settlement_failed_come_again() -> None:
    handled: list[int] = []

    async def handle(held: Held) -> None:
        handled.append(number_of(held))

    broker = Broker([1, 2])
    broker.settle_faults.append(UnavailableError("cut"))
    async with Rig(broker, handle, concurrency=1):
        await until(lambda: sorted(broker.acked) == [1, 2])
    assert len(broker.consumers) == 2
    assert len(handled) == 4
