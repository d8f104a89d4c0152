"""A subscription is a desired state: it is restored after whatever its broker does, until it is closed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery_support import Broker, FakeConsumer, Rig, now, number_of, until, virtual

from lapel.component import HealthState
from lapel.delivery import Delivery, Held, Ordering
from lapel.errors import PermissionDeniedError, UnavailableError

DOWN = UnavailableError("connection refused")


async def accept(held: Held) -> None:
    """Do nothing with it."""


@virtual
async def test_the_first_subscribe_raises_and_leaves_nothing_behind() -> None:
    broker = Broker([1])
    broker.subscribe_faults.append(PermissionDeniedError("not you"))
    rig = Rig(broker, accept)
    with pytest.raises(PermissionDeniedError):
        await rig.supervisor.start()
    assert broker.consumers == []
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


@virtual
async def test_a_first_subscribe_that_hangs_ends_with_its_deadline() -> None:
    broker = Broker()
    broker.subscribe_faults.append(1000)
    began = now()
    with pytest.raises(UnavailableError, match="5 s"):
        await Rig(broker, accept).supervisor.start()
    assert now() - began == pytest.approx(5)


@virtual
async def test_a_timeout_of_the_driver_itself_is_not_taken_for_the_deadline() -> None:
    broker = Broker()
    broker.subscribe_faults.append(TimeoutError("inner"))
    with pytest.raises(TimeoutError, match="inner"):
        await Rig(broker, accept).supervisor.start()


@virtual
async def test_a_lost_connection_is_restored_fast_and_shown_meanwhile() -> None:
    broker = Broker([1])
    async with Rig(broker, accept) as rig:
        await until(lambda: broker.acked == [1])
        assert rig.supervisor.state is HealthState.READY
        broker.receive_faults.append(DOWN)
        broker.subscribe_faults.extend([DOWN, DOWN])
        broker.put(2)
        await until(lambda: len(broker.subscribed) == 3)
        health = rig.supervisor.health()
        assert health.state is HealthState.RECONNECTING
        assert "connection refused" in str(health.reason)
        await until(lambda: broker.acked == [1, 2, 2] or broker.acked == [1, 2])
        await until(lambda: rig.supervisor.reconnects == 1)
        assert broker.subscribed[-1] - broker.subscribed[1] < 1
        assert rig.supervisor.health().ok
        assert broker.consumers[0].closed


@virtual
async def test_pauses_between_attempts_grow_to_five_seconds_and_never_end() -> None:
    broker = Broker()
    broker.receive_faults.append(DOWN)
    broker.subscribe_faults.extend([None, *[DOWN] * 200])
    async with Rig(broker, accept) as rig:
        await until(lambda: rig.supervisor.reconnects == 1, seconds=4000)
    pauses = [later - earlier for earlier, later in zip(broker.subscribed, broker.subscribed[1:], strict=False)]
    assert pauses[0] <= 0.05
    assert all(2.5 <= pause <= 5 for pause in pauses[12:])
    assert len({round(pause, 6) for pause in pauses[12:]}) > 50


@virtual
async def test_a_consumer_that_dies_at_once_every_time_does_not_keep_the_processor_busy() -> None:
    broker = Broker()
    broker.receive_faults.extend([DOWN] * 1000)
    async with Rig(broker, accept):
        await asyncio.sleep(60)
        assert len(broker.consumers) < 25


@virtual
async def test_a_receive_that_never_returns_is_a_stall() -> None:
    broker = Broker([1])
    broker.receive_faults.append(100_000)
    async with Rig(broker, accept) as rig:
        await until(lambda: broker.acked == [1], seconds=30)
        assert rig.supervisor.reconnects == 1
        assert broker.consumers[0].closed


@virtual
async def test_a_settle_that_never_returns_is_a_stall() -> None:
    broker = Broker([1])
    broker.settle_faults.append(100_000)
    async with Rig(broker, accept):
        await until(lambda: broker.acked == [1], seconds=30)


@virtual
async def test_an_idle_subscription_is_no_stall() -> None:
    broker = Broker()
    async with Rig(broker, accept) as rig:
        await asyncio.sleep(3600)
        assert rig.supervisor.reconnects == 0
        assert rig.supervisor.health().ok
        assert rig.supervisor.health().details["seconds_since_receive"] <= 5


@virtual
async def test_long_handlers_that_fill_all_room_are_no_stall() -> None:
    async def handle(held: Held) -> None:
        await asyncio.sleep(3600)

    broker = Broker(range(10))
    async with Rig(broker, handle, concurrency=1) as rig:
        await asyncio.sleep(8000)
        assert len(broker.acked) == 2
        assert rig.supervisor.reconnects == 0


@pytest.mark.parametrize("error", [asyncio.CancelledError(), OSError("broken pipe"), StopAsyncIteration()])
@virtual
async def test_whatever_receive_raises_the_subscription_goes_on(error: BaseException) -> None:
    broker = Broker([1])
    broker.receive_faults.append(error)
    async with Rig(broker, accept):
        await until(lambda: broker.acked == [1])


@virtual
async def test_a_cancellation_that_subscribe_makes_up_is_a_failure_like_others() -> None:
    broker = Broker([1])
    broker.receive_faults.append(DOWN)
    broker.subscribe_faults.extend([None, asyncio.CancelledError()])
    async with Rig(broker, accept):
        await until(lambda: broker.acked == [1])


@virtual
async def test_what_was_held_when_the_connection_went_is_dropped_unless_it_runs() -> None:
    handled: list[int] = []

    async def handle(held: Held) -> None:
        handled.append(number_of(held))
        await asyncio.sleep(1)

    broker = Broker()
    async with Rig(broker, handle, concurrency=2):
        broker.put(*range(4))
        await asyncio.sleep(0.5)
        assert handled == [0, 1]
        assert len(broker.outstanding) == 4
        broker.settle_faults.append(DOWN)
        await until(lambda: sorted(broker.acked) == [0, 1, 2, 3])
        await asyncio.sleep(100)
    assert sorted(broker.acked) == [0, 1, 2, 3]
    assert len(broker.consumers) == 2


@virtual
async def test_what_was_buffered_from_a_lost_connection_is_not_started() -> None:
    started: list[tuple[int, int]] = []

    async def handle(held: Held) -> None:
        started.append((number_of(held), held.attempt))
        await asyncio.sleep(10)

    broker = Broker(counts=True)
    async with Rig(broker, handle, concurrency=2) as rig:
        broker.put(0, 1, 2)
        await asyncio.sleep(0.5)
        assert broker.outstanding == [0, 1, 2]
        assert rig.supervisor._session is not None
        rig.supervisor._session.fail(DOWN)
        await until(lambda: len(broker.acked) == 3)
    assert (2, 1) not in started
    assert sorted(started) == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]


@virtual
async def test_what_a_given_up_consumer_returns_late_is_ignored() -> None:
    handled: list[int] = []

    async def handle(held: Held) -> None:
        handled.append(number_of(held))

    stop.clear()
    broker = Broker([1])

    async def subscribe(revoked: Any) -> Any:
        if not broker.consumers:
            broker.consumers.append(_Stubborn(broker, revoked))
            return broker.consumer
        return await broker.subscribe(revoked)

    rig = Rig(broker, handle)
    rig.supervisor._subscribe = subscribe
    async with rig:
        await until(lambda: handled == [1], seconds=60)
        stop.set()
        await asyncio.sleep(10)
        assert handled == [1]
        assert rig.dispatcher.in_flight == 0


@virtual
async def test_with_an_order_kept_handlers_of_a_lost_connection_are_cancelled() -> None:
    running = most = 0

    async def handle(held: Held) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(20)
        finally:
            running -= 1

    broker = Broker(range(3))
    async with Rig(broker, handle, ordering=Ordering.ALL):
        await asyncio.sleep(1)
        broker.settle_faults.append(DOWN)
        await until(lambda: broker.acked == [0, 1, 2])
    assert most == 1


@virtual
async def test_closing_while_reconnecting_ends_at_once() -> None:
    broker = Broker()
    broker.receive_faults.append(DOWN)
    broker.subscribe_faults.extend([None, 4, *[DOWN] * 100])
    rig = Rig(broker, accept)
    async with rig:
        await until(lambda: len(broker.subscribed) == 2)
        began = now()
    assert now() - began < 1
    assert rig.supervisor.state is HealthState.CLOSED
    await asyncio.sleep(100)
    assert len(broker.subscribed) == 2


@virtual
async def test_closing_twice_and_at_the_same_time_is_one_close() -> None:
    async def handle(held: Held) -> None:
        await asyncio.sleep(3)

    broker = Broker([1])
    rig = Rig(broker, handle)
    await rig.supervisor.start()
    await asyncio.sleep(0.1)
    impatient = asyncio.create_task(rig.supervisor.aclose())
    await asyncio.sleep(0.1)
    impatient.cancel()
    await asyncio.gather(rig.supervisor.aclose(), rig.supervisor.aclose())
    await rig.supervisor.aclose()
    assert broker.acked == [1]


class _Stubborn(FakeConsumer):
    """Neither stops receiving when cancelled nor closes."""

    async def receive(self, max_messages: int, max_wait: float) -> Any:
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue
        return [Delivery((7, 1), "t", b"7")]

    async def close(self) -> None:
        await asyncio.sleep(10_000)


stop = asyncio.Event()


@virtual
async def test_closing_returns_although_the_consumer_does_not() -> None:
    stop.clear()
    broker = Broker()

    async def subscribe(revoked: Any) -> Any:
        return _Stubborn(broker, revoked)

    rig = Rig(broker, accept)
    rig.supervisor._subscribe = subscribe
    async with rig:
        await asyncio.sleep(1)
        began = now()
    assert now() - began < 20
    stop.set()
    await asyncio.sleep(0)


@virtual
async def test_a_source_that_ends_is_drained_and_not_subscribed_again() -> None:
    broker = Broker([1, 2])
    async with Rig(broker, accept) as rig:
        broker.consumer.ends = True
        await until(lambda: len(broker.acked) == 2)
        await until(lambda: "end" in str(rig.supervisor.health().reason))
        await asyncio.sleep(100)
        assert len(broker.consumers) == 1


@virtual
async def test_a_pause_starts_no_handlers_and_outlives_a_reconnect() -> None:
    async def handle(held: Held) -> None:
        await asyncio.sleep(1)

    broker = Broker()
    async with Rig(broker, handle, concurrency=1) as rig:
        broker.put(1, 2)
        await asyncio.sleep(0.5)
        await rig.supervisor.pause()
        await rig.supervisor.pause()
        broker.put(3)
        await asyncio.sleep(100)
        assert broker.acked == [1]
        assert rig.dispatcher.in_flight == 1
        assert rig.supervisor.health().details["paused"] is True
        await rig.supervisor.resume()
        await rig.supervisor.resume()
        await until(lambda: broker.acked == [1, 2, 3])
        await asyncio.sleep(1)
        await rig.supervisor.pause()
        broker.consumer.cut()
        await asyncio.sleep(100)
        assert len(broker.consumers) == 2
        assert broker.consumer.paused
        broker.put(4)
        await asyncio.sleep(100)
        assert 4 not in broker.acked
        await rig.supervisor.resume()
        await until(lambda: broker.acked[-1] == 4)


@virtual
async def test_lag_is_what_waits_in_the_broker() -> None:
    async def handle(held: Held) -> None:
        await asyncio.sleep(100)

    broker = Broker(range(10))
    async with Rig(broker, handle, concurrency=1) as rig:
        await asyncio.sleep(1)
        assert await rig.supervisor.lag() == 8


FAULTS = st.sampled_from([None, None, None, 0.2, 30.0, DOWN, OSError("reset"), asyncio.CancelledError()])


@given(
    subscribes=st.lists(FAULTS, max_size=6),
    receives=st.lists(FAULTS, max_size=12),
    settles=st.lists(FAULTS, max_size=6),
    lease=st.sampled_from([None, 9.0]),
    ordering=st.sampled_from(list(Ordering)),
)
def test_every_message_is_handled_and_settled_whatever_fails(
    subscribes: list[Any], receives: list[Any], settles: list[Any], lease: float | None, ordering: Ordering
) -> None:
    @virtual
    async def scenario() -> None:
        handled: Counter[int] = Counter()

        async def handle(held: Held) -> None:
            await asyncio.sleep(0.5)
            handled[number_of(held)] += 1

        broker = Broker(range(12), keys=3)
        broker.lease = lease
        broker.subscribe_faults.extend([None, *subscribes])
        broker.receive_faults.extend(receives)
        # Without a new consumer only the end of a lease, which this broker does not have, brings a message back.
        broker.settle_faults.extend(fault for fault in settles if lease is None or not isinstance(fault, Exception))
        async with Rig(broker, handle, concurrency=3, ordering=ordering) as rig:
            await until(lambda: len(set(broker.acked)) == 12)
            assert rig.supervisor.state in (HealthState.READY, HealthState.RECONNECTING)
        assert set(handled) == set(range(12))
        assert max(Counter(broker.acked).values()) == 1

    scenario()
