"""What the dispatcher promises: concurrency, order, retries, giving up, leases, and an orderly stop."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.delivery_support import LOGGER, Broker, Rig, now, number_of, until, virtual

from lapel.delivery import (
    Backoff,
    BatchDispatcher,
    Dispatcher,
    DispatchPolicy,
    Dropped,
    Held,
    Ordering,
    Outcome,
    Reply,
    inside_handler,
)
from lapel.errors import InvalidArgumentError, UnavailableError

QUICK = Backoff(initial=1.0, maximum=1.0, jitter=0.0)


class Odd(BaseException):
    pass


class Unequal:
    """A value that cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]  # on purpose


async def _cancel_myself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def _raise(error: BaseException) -> Any:
    raise error


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


# retries


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(lambda: _raise(ValueError("x")), id="exception"),
        pytest.param(lambda: _raise(Odd()), id="base-exception"),
        pytest.param(lambda: _raise(asyncio.CancelledError()), id="own-cancelled-error"),
        pytest.param(lambda: _raise(GeneratorExit()), id="generator-exit"),
        pytest.param(lambda: _raise(StopIteration(1)), id="stop-iteration"),
        pytest.param(_cancel_myself, id="cancels-its-task"),
        pytest.param(lambda: Outcome.RETRY, id="retry"),
        pytest.param(lambda: "RETRY", id="retry-as-text"),
        pytest.param(lambda: 17, id="number"),
        pytest.param(lambda: "nonsense", id="text"),
        pytest.param(Unequal, id="incomparable"),
    ],
)
@pytest.mark.parametrize("counts", [True, False], ids=["broker-counts", "counted-here"])
@virtual
async def test_every_kind_of_failure_brings_the_message_again_and_spares_the_others(
    fail: Callable[[], Any], counts: bool
) -> None:
    seen: list[tuple[int, int]] = []

    async def handle(held: Held) -> Any:
        seen.append((number_of(held), held.attempt))
        if number_of(held) == 1 and held.attempt < 3:
            result = fail()
            return await result if asyncio.iscoroutine(result) else result
        return None

    broker = Broker([1, 2, 3], counts=counts)
    async with Rig(broker, handle, concurrency=1, backoff=QUICK):
        began = now()
        await until(lambda: len(broker.acked) == 3)
        assert now() - began >= 2
    assert sorted(broker.acked) == [1, 2, 3]
    assert [item for item in seen if item[0] == 1] == [(1, 1), (1, 2), (1, 3)]
    assert seen.index((2, 1)) < seen.index((1, 2))
    assert bool(broker.retried) is counts


@virtual
async def test_a_handler_that_is_not_a_coroutine_function_is_a_failure_and_no_crash() -> None:
    calls: list[int] = []

    def handle(held: Held) -> Any:
        calls.append(held.attempt)

    broker = Broker([1])
    async with Rig(broker, handle, backoff=QUICK):
        await until(lambda: len(calls) == 3)
    assert broker.acked == []
    assert broker.queue


@virtual
async def test_a_handler_that_cancels_its_task_in_passing_does_not_disturb_the_next_message() -> None:
    seen: list[tuple[int, int]] = []

    async def handle(held: Held) -> None:
        seen.append((number_of(held), held.attempt))
        if number_of(held) == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        else:
            await asyncio.sleep(0.1)

    broker = Broker([1, 2, 3])
    async with Rig(broker, handle, concurrency=1):
        await until(lambda: len(broker.acked) == 3)
    assert seen == [(1, 1), (2, 1), (3, 1)]


@virtual
async def test_success_as_text_and_replies_are_understood() -> None:
    async def handle(held: Held) -> Any:
        return "SUCCESS" if number_of(held) == 1 else Reply("hello")

    broker = Broker([1, 2])
    async with Rig(broker, handle, concurrency=1):
        await until(lambda: len(broker.acked) == 2)
    assert broker.replies == [None, "hello"]


@virtual
async def test_retries_of_many_do_not_take_the_room_of_the_others() -> None:
    async def handle(held: Held) -> Any:
        return Outcome.RETRY if number_of(held) < 40 else None

    broker = Broker(range(60))
    async with Rig(broker, handle, concurrency=2, backoff=Backoff(initial=600, maximum=600)) as rig:
        await until(lambda: len(broker.acked) == 20, seconds=60)
        assert rig.dispatcher.in_flight == 40


@virtual
async def test_parked_messages_are_bounded() -> None:
    async def handle(held: Held) -> Any:
        return Outcome.RETRY

    broker = Broker(range(1000))
    async with Rig(broker, handle, concurrency=2, backoff=Backoff(initial=600, maximum=600)) as rig:
        await asyncio.sleep(60)
        assert 100 <= rig.dispatcher.in_flight <= 110
        assert len(broker.queue) >= 890


@virtual
async def test_a_broker_that_cannot_redeliver_after_a_delay_is_not_asked_to() -> None:
    async def handle(held: Held) -> Any:
        return Outcome.RETRY if held.attempt < 3 else None

    broker = Broker([1], counts=True)
    broker.redelivers = False
    async with Rig(broker, handle, backoff=QUICK):
        await until(lambda: broker.acked == [1])
    assert broker.retried == []


@virtual
async def test_what_keeps_failing_is_reported_by_health() -> None:
    async def handle(held: Held) -> Any:
        raise ValueError("secret text")

    broker = Broker([1])
    async with Rig(broker, handle, backoff=QUICK) as rig:
        assert rig.supervisor.health().ok
        await asyncio.sleep(10)
        health = rig.supervisor.health()
        assert not health.ok
        assert "ValueError" in str(health.reason)
        assert "secret" not in str(health.reason)


def test_backoff_grows_to_its_maximum_and_refuses_nonsense() -> None:
    steady = Backoff(initial=1, maximum=8, jitter=0)
    assert [steady.delay(n) for n in (1, 2, 3, 4, 5, 10_000)] == [1, 2, 4, 8, 8, 8]
    assert all(0.8 <= Backoff(initial=1, maximum=1).delay(1) <= 1 for _ in range(100))
    assert Backoff(initial=0, maximum=0).delay(3) == 0
    for wrong in ({"initial": -1}, {"initial": 5, "maximum": 1}, {"multiplier": 0.5}, {"jitter": 2}):
        with pytest.raises(InvalidArgumentError):
            Backoff(**wrong)


# giving up


@pytest.mark.parametrize("counts", [True, False], ids=["broker-counts", "counted-here"])
@virtual
async def test_exhausted_attempts_go_to_the_dead_letter_topic_with_reason_and_count(counts: bool) -> None:
    letters: list[tuple[int, int, str]] = []

    async def handle(held: Held) -> Any:
        raise ValueError("secret")

    async def dead_letter(held: Held, reason: str) -> None:
        assert broker.acked == []
        letters.append((number_of(held), held.attempt, reason))

    broker = Broker([1], counts=counts)
    async with Rig(broker, handle, max_attempts=3, backoff=QUICK, dead_letter=dead_letter):
        await until(lambda: broker.acked == [1])
    assert [(number, attempt) for number, attempt, _ in letters] == [(1, 3)]
    assert "ValueError" in letters[0][2]
    assert "secret" not in letters[0][2]


@virtual
async def test_a_generator_exit_that_uses_up_the_attempts_is_given_up_like_any_failure() -> None:
    letters: list[int] = []

    async def handle(held: Held) -> Any:
        raise GeneratorExit

    async def dead_letter(held: Held, reason: str) -> None:
        letters.append(number_of(held))

    broker = Broker([1, 2])
    async with Rig(broker, handle, max_attempts=1, concurrency=1, dead_letter=dead_letter):
        await until(lambda: len(broker.acked) == 2)
    assert sorted(letters) == [1, 2]


@pytest.mark.parametrize("result", [Outcome.DROP, "DROP", Dropped("no route")])
@virtual
async def test_drop_goes_to_the_dead_letter_topic_at_once(result: Any) -> None:
    reasons: list[str] = []

    async def handle(held: Held) -> Any:
        return result

    async def dead_letter(held: Held, reason: str) -> None:
        reasons.append(reason)

    broker = Broker([1])
    async with Rig(broker, handle, dead_letter=dead_letter):
        await until(lambda: broker.acked == [1])
    assert reasons == ["no route" if isinstance(result, Dropped) else "the handler dropped it"]


@virtual
async def test_a_failed_dead_letter_settles_nothing_and_is_tried_again_without_the_handler() -> None:
    handled: list[int] = []
    tries: list[float] = []

    async def handle(held: Held) -> Any:
        handled.append(number_of(held))
        return Outcome.DROP if number_of(held) == 1 else None

    async def dead_letter(held: Held, reason: str) -> None:
        tries.append(now())
        if len(tries) == 1:
            raise UnavailableError("down")
        if len(tries) == 2:
            await asyncio.sleep(1000)

    broker = Broker([1, 2], counts=True)
    async with Rig(broker, handle, concurrency=1, backoff=QUICK, dead_letter=dead_letter):
        await until(lambda: 1 in broker.acked)
    assert handled == [1, 2]
    assert broker.retried == []
    assert tries[2] - tries[1] == pytest.approx(31)


@virtual
async def test_without_a_dead_letter_topic_what_is_given_up_is_settled() -> None:
    async def handle(held: Held) -> Any:
        return Outcome.DROP if number_of(held) == 1 else Outcome.RETRY

    broker = Broker([1, 2])
    async with Rig(broker, handle, max_attempts=2, backoff=QUICK) as rig:
        await until(lambda: sorted(broker.acked) == [1, 2])
        assert rig.dispatcher.given_up == 2


@virtual
async def test_a_broker_with_its_own_dead_letter_place_is_told_to_use_it() -> None:
    async def handle(held: Held) -> Any:
        return Outcome.DROP

    broker = Broker([1])
    async with Rig(broker, handle, broker_dead_letter=True):
        await until(lambda: broker.dead == [1])
    assert broker.acked == []


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


# stop


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


# leases


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


# batches


def _batches(
    handler: Callable[[Sequence[Held]], Awaitable[Any]], most: int, wait: float, **rest: Any
) -> Callable[[DispatchPolicy], Dispatcher]:
    def make(policy: DispatchPolicy) -> Dispatcher:
        return BatchDispatcher(handler, policy, max_messages=most, max_wait=wait, name="t", logger=LOGGER, **rest)

    return make


@virtual
async def test_batches_are_full_or_at_most_max_wait_old() -> None:
    sizes: list[tuple[int, float]] = []

    async def handle(batch: Sequence[Held]) -> None:
        sizes.append((len(batch), now() - began))

    broker = Broker()
    async with Rig(broker, _unused, dispatcher=_batches(handle, 5, 1.0), concurrency=1):
        began = now()
        broker.put(*range(23))
        await until(lambda: len(broker.acked) == 23)
        assert [size for size, _ in sizes] == [5, 5, 5, 5, 3]
        assert sizes[3][1] < 0.5
        assert sizes[4][1] == pytest.approx(1.0, abs=0.1)


@virtual
async def test_the_wait_of_a_batch_starts_with_its_own_first_message() -> None:
    times: list[float] = []

    async def handle(batch: Sequence[Held]) -> None:
        times.append(now() - began)

    broker = Broker()
    async with Rig(broker, _unused, dispatcher=_batches(handle, 5, 1.0), concurrency=1):
        began = now()
        broker.put(0, 1, 2)
        await asyncio.sleep(0.5)
        broker.put(3, 4)
        await asyncio.sleep(0.1)
        broker.put(5)
        await until(lambda: len(broker.acked) == 6)
    assert times == [pytest.approx(0.5, abs=0.05), pytest.approx(1.6, abs=0.05)]


@virtual
async def test_only_failed_entries_of_a_batch_come_again() -> None:
    seen: list[list[int]] = []
    letters: list[int] = []

    async def handle(batch: Sequence[Held]) -> Any:
        seen.append([number_of(held) for held in batch])
        outcomes = {1: Outcome.RETRY if batch[0].attempt == 1 else None, 2: Outcome.DROP}
        return [outcomes.get(number_of(held)) for held in batch]

    async def dead_letter(held: Held, reason: str) -> None:
        letters.append(number_of(held))

    broker = Broker(range(4))
    make = _batches(handle, 4, 0.5, dead_letter=dead_letter)
    async with Rig(broker, _unused, dispatcher=make, concurrency=1, backoff=QUICK):
        await until(lambda: len(broker.acked) == 4)
    assert seen == [[0, 1, 2, 3], [1]]
    assert letters == [2]


@pytest.mark.parametrize("answer", [[None], [None] * 3, 17, "SUCCESS", ValueError("x")])
@virtual
async def test_a_wrong_answer_fails_the_whole_batch(answer: Any) -> None:
    calls = 0

    async def handle(batch: Sequence[Held]) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer

    broker = Broker([0, 1])
    async with Rig(broker, _unused, dispatcher=_batches(handle, 2, 0.5), concurrency=1, backoff=QUICK):
        await until(lambda: len(broker.acked) == 2)
    assert calls == 2


@virtual
async def test_an_ordered_batch_holds_one_message_of_each_key() -> None:
    seen: list[list[int]] = []

    async def handle(batch: Sequence[Held]) -> None:
        seen.append([number_of(held) for held in batch])

    broker = Broker(range(6), keys=2)
    async with Rig(broker, _unused, dispatcher=_batches(handle, 4, 0.5), concurrency=2, ordering=Ordering.KEY):
        await until(lambda: len(broker.acked) == 6)
    assert seen == [[0, 1], [2, 3], [4, 5]]


@virtual
async def test_a_batch_that_is_cancelled_at_the_stop_is_not_settled() -> None:
    async def handle(batch: Sequence[Held]) -> None:
        await asyncio.sleep(1000)

    broker = Broker(range(4))
    async with Rig(broker, _unused, dispatcher=_batches(handle, 2, 0.1), concurrency=1, drain_timeout=1.0):
        await asyncio.sleep(1)
    assert broker.acked == []
    assert broker.released == [2, 3]
    assert sorted(number for number, _ in broker.queue) == [0, 1, 2, 3]


async def _unused(held: Held) -> None:
    raise AssertionError


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
            await _cancel_myself()
        case "retry":
            return Outcome.RETRY
        case "drop":
            return Outcome.DROP
        case "garbage":
            return 3.5
    return None
