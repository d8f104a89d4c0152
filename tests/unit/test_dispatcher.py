"""What the dispatcher promises: concurrency, order, contexts, and all of it at once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from contextvars import ContextVar
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery_support import (
    QUICK,
    Broker,
    Odd,
    Rig,
    Unequal,
    cancel_myself,
    number_of,
    until,
    virtual,
)

from lapel.delivery import (
    Backoff,
    Held,
    Ordering,
    Outcome,
    inside_handler,
)
from lapel.errors import UnavailableError

# concurrency


@virtual
async def test_no_more_handlers_run_than_concurrency_and_no_more_is_held_than_a_small_prefetch() -> None:
    running = most = 0

    async def handle(held: Held) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    broker = Broker(range(100))
    async with Rig(broker, handle, concurrency=4) as rig:
        while len(broker.acked) < 100:
            assert rig.dispatcher.in_flight <= 8
            assert len(broker.outstanding) <= 12
            await asyncio.sleep(0.1)
    assert most == 4
    assert Counter(broker.acked) == Counter(range(100))


@virtual
async def test_settlements_of_one_turn_of_the_loop_are_sent_together() -> None:
    async def handle(held: Held) -> None:
        await asyncio.sleep(1)

    broker = Broker(range(10))
    async with Rig(broker, handle, concurrency=10):
        await until(lambda: len(broker.acked) == 10)
    assert broker.settle_batches == [10]


# order


@virtual
async def test_a_retry_holds_its_key_and_no_other() -> None:
    order: list[int] = []

    async def handle(held: Held) -> Any:
        order.append(number_of(held))
        return Outcome.RETRY if number_of(held) == 0 and held.attempt < 3 else None

    broker = Broker(range(10), keys=2, counts=True)
    async with Rig(broker, handle, ordering=Ordering.KEY, backoff=QUICK):
        await until(lambda: len(broker.acked) == 10)
    assert [n for n in order if n % 2 == 0] == [0, 0, 0, 2, 4, 6, 8]
    assert order.index(9) < order.index(2)
    assert broker.retried == []


@virtual
async def test_a_key_that_keeps_failing_does_not_stop_the_intake_of_others() -> None:
    async def handle(held: Held) -> Any:
        return Outcome.RETRY if number_of(held) % 2 == 0 else None

    broker = Broker(range(100), keys=2)
    async with Rig(broker, handle, ordering=Ordering.KEY, concurrency=2, backoff=Backoff(initial=600, maximum=600)):
        await until(lambda: len(broker.acked) == 50, seconds=60)


@virtual
async def test_order_all_handles_one_at_a_time_and_a_retry_holds_the_queue() -> None:
    order: list[int] = []

    async def handle(held: Held) -> Any:
        order.append(number_of(held))
        await asyncio.sleep(0.1)
        return Outcome.RETRY if number_of(held) == 1 and held.attempt == 1 else None

    broker = Broker(range(5))
    async with Rig(broker, handle, ordering=Ordering.ALL, backoff=QUICK, concurrency=10):
        await until(lambda: len(broker.acked) == 5)
    assert order == [0, 1, 1, 2, 3, 4]
    assert broker.acked == [0, 1, 2, 3, 4]


@virtual
async def test_moving_to_the_dead_letter_topic_releases_the_key() -> None:
    async def handle(held: Held) -> Any:
        return Outcome.DROP if number_of(held) == 0 else None

    async def dead_letter(held: Held, reason: str) -> None:
        assert broker.acked == []

    broker = Broker(range(3), keys=1)
    async with Rig(broker, handle, ordering=Ordering.KEY, dead_letter=dead_letter):
        await until(lambda: broker.acked == [0, 1, 2])


# context


@virtual
async def test_handlers_run_in_copies_of_the_context_of_the_subscriber() -> None:
    name: ContextVar[str] = ContextVar("name", default="none")
    awkward: ContextVar[object] = ContextVar("awkward")
    name.set("subscriber")
    awkward.set(Unequal())
    seen: list[str] = []

    async def handle(held: Held) -> None:
        seen.append(name.get())
        assert inside_handler(rig)
        name.set(f"message {number_of(held)}")
        awkward.set(Unequal())
        await asyncio.sleep(0)

    broker = Broker(range(6))
    rig = Rig(broker, handle, concurrency=2)
    async with rig:
        name.set("later")
        await until(lambda: len(broker.acked) == 6)
    assert seen == ["subscriber"] * 6
    assert name.get() == "later"
    assert not inside_handler(rig)


# anything may happen

STEPS = st.sampled_from(["ok", "ok", "ok", "raise", "retry", "odd", "cancel", "drop", "garbage"])
PAUSES = st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0])


@given(data=st.data())
def test_nothing_is_lost_order_is_kept_and_nothing_is_settled_after_a_stop(data: st.DataObject) -> None:
    ordering = data.draw(st.sampled_from(list(Ordering)), "ordering")
    concurrency = data.draw(st.integers(1, 5), "concurrency")
    count = data.draw(st.integers(1, 25), "messages")
    counts = data.draw(st.booleans(), "broker counts")
    lease = data.draw(st.sampled_from([None, 6.0]), "lease")
    scripts = data.draw(st.lists(st.lists(st.tuples(STEPS, PAUSES), max_size=3), min_size=count, max_size=count))
    outages = data.draw(
        st.lists(st.sampled_from([None, None, 0.3, UnavailableError("cut"), OSError("odd")])), "outages"
    )
    stop_after = data.draw(st.one_of(st.none(), st.floats(0, 8)), "stop")

    @virtual
    async def scenario() -> None:
        broker = Broker(range(count), counts=counts, keys=3)
        broker.lease = lease
        broker.receive_faults.extend(outages)
        cut = any(isinstance(outage, Exception) for outage in outages)
        steps = [iter(script) for script in scripts]
        running: Counter[int] = Counter()
        starts: defaultdict[int, list[int]] = defaultdict(list)
        stopped = False

        async def handle(held: Held) -> Any:
            assert not stopped
            number = number_of(held)
            group = number % 3 if ordering is Ordering.KEY else 0
            running[group] += 1
            starts[group].append(number)
            try:
                assert running.total() <= concurrency
                if ordering is not Ordering.NONE:
                    assert running[group] == 1
                step, pause = next(steps[number], ("ok", 0.0))
                if pause:
                    await asyncio.sleep(pause)
                return await _act(step)
            finally:
                running[group] -= 1

        dead: list[int] = []

        async def dead_letter(held: Held, reason: str) -> None:
            dead.append(number_of(held))

        rig = Rig(
            broker,
            handle,
            ordering=ordering,
            concurrency=concurrency,
            backoff=QUICK,
            dead_letter=dead_letter,
            drain_timeout=1.0,
        )
        await rig.supervisor.start()
        if stop_after is None:
            await until(lambda: len(set(broker.acked)) == count)
        else:
            await asyncio.sleep(stop_after)
        await rig.supervisor.aclose()
        stopped = True
        acked, retried = list(broker.acked), list(broker.retried)
        assert broker.outstanding == []
        assert rig.dispatcher.in_flight == rig.dispatcher.running == 0
        assert max(Counter(acked).values(), default=0) <= 1
        await asyncio.sleep(100)
        assert (broker.acked, broker.retried) == (acked, retried)
        left = Counter(number for number, _ in broker.queue)
        assert set(acked).isdisjoint(left)
        assert set(acked) | set(left) == set(range(count))
        assert max(left.values(), default=0) <= 1
        if ordering is not Ordering.NONE and not cut:
            for numbers in starts.values():
                assert numbers == sorted(numbers)

    # Failing handlers are the point here; their tracebacks are not.
    logging.disable(logging.CRITICAL)
    try:
        scenario()
    finally:
        logging.disable(logging.NOTSET)


async def _act(step: str) -> Any:
    match step:
        case "raise":
            raise ValueError
        case "odd":
            raise Odd
        case "cancel":
            await cancel_myself()
        case "retry":
            return Outcome.RETRY
        case "drop":
            return Outcome.DROP
        case "garbage":
            return 3.5
    return None
