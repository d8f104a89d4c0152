"""How the dispatcher comes to an orderly stop."""

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


@virtual
async def test_stop_hands_back_what_was_not_started_and_waits_for_what_runs() -> None:
    started: list[int] = []

    async def handle(held: Held) -> None:
        started.append(number_of(held))
        await asyncio.sleep(10)

    broker = Broker(range(10))
    async with Rig(broker, handle, concurrency=3):
        await until(lambda: len(started) == 3)
        assert len(broker.outstanding) == 6
    assert started == [0, 1, 2]
    assert broker.released == [3, 4, 5]
    assert sorted(broker.acked) == [0, 1, 2]
    assert sorted(broker.queue) == [(number, 1) for number in range(3, 10)]
    assert broker.consumer.closed


@virtual
async def test_no_handler_starts_once_the_stop_has_begun_although_the_intake_ends_slowly() -> None:
    started: list[int] = []

    async def handle(held: Held) -> None:
        started.append(number_of(held))
        await asyncio.sleep(1)

    broker = Broker([0, 1], keys=1)
    async with Rig(broker, handle, ordering=Ordering.KEY):
        await asyncio.sleep(0.1)
        broker.consumer.slow_to_stop = 3.0
        assert broker.outstanding == [0, 1]
    assert started == [0]
    assert broker.released == [1]
    assert broker.acked == [0]


@virtual
async def test_settlements_on_their_way_at_the_stop_arrive() -> None:
    async def handle(held: Held) -> None:
        await asyncio.sleep(1)

    broker = Broker([0, 1])
    broker.settle_faults.append(2.0)
    async with Rig(broker, handle):
        await asyncio.sleep(0.1)
    assert sorted(broker.acked) == [0, 1]


@virtual
async def test_a_handler_that_fails_during_the_stop_leaves_its_message_to_the_broker() -> None:
    async def handle(held: Held) -> Any:
        await asyncio.sleep(1)
        return Outcome.RETRY

    broker = Broker([0])
    async with Rig(broker, handle) as rig:
        await asyncio.sleep(0.1)
    assert rig.dispatcher.in_flight == 0
    assert list(broker.queue) == [(0, 2)]


@virtual
async def test_handlers_past_the_drain_deadline_are_cancelled_and_their_messages_are_not_settled() -> None:
    ends: list[str] = []

    async def handle(held: Held) -> Any:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            ends.append("cancelled")
            if number_of(held) == 1:
                return None
            if number_of(held) == 2:
                return Outcome.DROP
            raise

    broker = Broker([0, 1, 2])
    async with Rig(broker, handle, drain_timeout=5.0):
        await asyncio.sleep(1)
        began = now()
    assert 5 <= now() - began < 7
    assert ends == ["cancelled"] * 3
    assert broker.acked == []
    assert [number for number, _ in broker.queue] == [0, 1, 2]


@virtual
async def test_a_handler_that_ignores_its_cancellation_is_left_behind_and_cannot_settle(
    caplog: pytest.LogCaptureFixture,
) -> None:
    released = asyncio.Event()
    finished = asyncio.Event()

    async def handle(held: Held) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        finished.set()

    broker = Broker([1])
    rig = Rig(broker, handle, drain_timeout=1.0)
    async with rig:
        await asyncio.sleep(0.1)
        began = now()
    assert now() - began < 5
    assert rig.dispatcher.abandoned == 1
    assert "ignores its cancellation" in caplog.text
    released.set()
    await finished.wait()
    await asyncio.sleep(1)
    assert broker.acked == []
    assert list(broker.queue) == [(1, 2)]


@pytest.mark.parametrize("through_a_task", [False, True])
@virtual
async def test_closing_from_an_own_handler_does_not_wait_for_it_and_its_message_is_settled(
    through_a_task: bool,
) -> None:
    closed: list[float] = []

    async def handle(held: Held) -> None:
        if number_of(held) == 1:
            await asyncio.sleep(3)
            return
        began = now()
        work = rig.supervisor.aclose()
        await (asyncio.wait_for(work, 20) if through_a_task else work)
        closed.append(now() - began)
        await asyncio.sleep(2)

    broker = Broker([0, 1])
    rig = Rig(broker, handle)
    await rig.supervisor.start()
    await until(lambda: bool(closed))
    assert closed == [pytest.approx(3)]
    await rig.supervisor.aclose()
    assert sorted(broker.acked) == [0, 1]
    assert broker.consumer.closed


@virtual
async def test_parked_messages_are_left_to_the_broker_at_a_stop() -> None:
    async def handle(held: Held) -> Any:
        return Outcome.RETRY

    broker = Broker(range(4), keys=1)
    async with Rig(broker, handle, ordering=Ordering.KEY, backoff=Backoff(initial=600, maximum=600)):
        await asyncio.sleep(1)
    assert broker.acked == []
    assert broker.released == [1, 2, 3]
    assert sorted(number for number, _ in broker.queue) == [0, 1, 2, 3]


@virtual
async def test_a_last_attempt_that_fails_while_everything_ends_is_delivered_again() -> None:
    dead: list[int] = []

    async def bury(held: Held, reason: str) -> None:
        dead.append(number_of(held))

    async def handle(held: Held) -> Outcome:
        await asyncio.sleep(10)
        return Outcome.RETRY

    broker = Broker([1])
    async with Rig(broker, handle, max_attempts=1, dead_letter=bury):
        await until(lambda: broker.outstanding == [1])
        await asyncio.sleep(1)
    assert not dead
    assert not broker.acked
    assert broker.queue[0][0] == 1


@virtual
async def test_nothing_is_taken_in_while_handlers_come_to_their_end() -> None:
    async def handle(held: Held) -> None:
        await asyncio.sleep(10)

    broker = Broker([1])
    rig = Rig(broker, handle, concurrency=4)
    await rig.supervisor.start()
    await until(lambda: broker.outstanding == [1])
    closing = asyncio.create_task(rig.supervisor.aclose())
    await asyncio.sleep(1)
    assert broker.consumer.paused
    await closing
    assert broker.acked == [1]
