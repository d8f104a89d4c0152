"""What the dispatcher does with failures: retries, and giving up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.delivery_support import (
    QUICK,
    Broker,
    Odd,
    Rig,
    Unequal,
    cancel_myself,
    now,
    number_of,
    until,
    virtual,
)

from lapel.delivery import (
    Backoff,
    Dropped,
    Held,
    Outcome,
    Reply,
)
from lapel.errors import InvalidArgumentError, UnavailableError


def _raise(error: BaseException) -> Any:
    raise error


# retries


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(lambda: _raise(ValueError("x")), id="exception"),
        pytest.param(lambda: _raise(Odd()), id="base-exception"),
        pytest.param(lambda: _raise(asyncio.CancelledError()), id="own-cancelled-error"),
        pytest.param(lambda: _raise(GeneratorExit()), id="generator-exit"),
        pytest.param(lambda: _raise(StopIteration(1)), id="stop-iteration"),
        pytest.param(cancel_myself, id="cancels-its-task"),
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
