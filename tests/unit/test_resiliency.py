"""Policies of resiliency documents at work: breakers, retries of calls, and what an application is handed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.plain_component import WRITE, Box, Plain, raising

import lapel
from lapel.caller import caller
from lapel.component import ComponentOptions
from lapel.delivery import Outcome
from lapel.errors import (
    CircuitOpenError,
    ClosedError,
    DeadlineExceededError,
    EtagMismatchError,
    LapelError,
    ManifestError,
    OperationFailedError,
    OutcomeUnknownError,
    UnavailableError,
)
from lapel.health import HealthState
from lapel.policy import Effect
from lapel.pubsub import Message
from lapel.resiliency import (
    CircuitBreaker,
    CircuitBreakerPolicy,
    ComponentPolicies,
    Guard,
    Policies,
    ResiliencyRetry,
)

AT_ONCE = ResiliencyRetry(duration=0.0)


def box(**policies: object) -> Box:
    outbound = Policies(**policies)  # type: ignore[arg-type]  # each test names one of the three
    return Box(Plain(), options=ComponentOptions(resiliency=ComponentPolicies(outbound=outbound)))


class Failing:
    """A step that fails so many times and then answers."""

    def __init__(self, times: int, error: Callable[[], LapelError] = lambda: UnavailableError("down")) -> None:
        self.left, self.error, self.tries = times, error, 0

    async def __call__(self) -> str:
        self.tries += 1
        if self.left:
            self.left -= 1
            raise self.error()
        return "answer"


# the breaker


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def breaker(time: Time, **policy: object) -> CircuitBreaker:
    return CircuitBreaker(CircuitBreakerPolicy(name="cb", **policy), "it", clock=time)  # type: ignore[arg-type]


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.leave(breaker.enter(), False)


def test_a_breaker_opens_after_more_than_five_failures_in_a_row() -> None:
    one = breaker(Time())
    fail(one, 5)
    one.leave(one.enter(), True)
    fail(one, 5)
    assert one.state == "closed"
    fail(one, 1)
    assert one.state == "open"
    with pytest.raises(CircuitOpenError, match=r"'cb' of it is open for another 60 s"):
        one.enter()


def test_a_breaker_is_half_open_after_its_timeout_and_lets_max_requests_pass() -> None:
    time = Time()
    one = breaker(time, max_requests=2, timeout=10.0)
    fail(one, 6)
    time.now += 10
    assert one.state == "half-open"
    first, second = one.enter(), one.enter()
    with pytest.raises(CircuitOpenError, match="half-open"):
        one.enter()
    one.leave(first, True)
    assert one.state == "half-open"
    one.leave(second, True)
    assert one.state == "closed"


def test_one_failure_opens_a_half_open_breaker_again() -> None:
    time = Time()
    one = breaker(time, timeout=10.0)
    fail(one, 6)
    time.now += 10
    fail(one, 1)
    assert one.state == "open"


def test_a_cancelled_call_gives_its_place_in_a_half_open_breaker_back() -> None:
    time = Time()
    one = breaker(time, timeout=10.0)
    fail(one, 6)
    time.now += 10
    one.leave(one.enter(), None)
    one.leave(one.enter(), True)
    assert one.state == "closed"


def test_results_of_calls_from_before_a_change_do_not_count() -> None:
    time = Time()
    one = breaker(time, timeout=10.0)
    late = one.enter()
    fail(one, 6)
    time.now += 10
    assert one.state == "half-open"
    one.leave(late, True)
    assert one.state == "half-open"


def test_counts_start_anew_every_interval() -> None:
    time = Time()
    one = breaker(time, interval=5.0)
    fail(one, 5)
    time.now += 5
    fail(one, 5)
    assert one.state == "closed"


# calls


async def test_a_call_is_repeated_as_often_as_the_policy_says() -> None:
    async with box(retry=ResiliencyRetry(duration=0.0, max_retries=4)) as component:
        step = Failing(4)
        assert await component.do(step) == "answer"
        step = Failing(5)
        with pytest.raises(UnavailableError):
            await component.do(step)
        assert step.tries == 5


async def test_a_policy_without_an_end_outlasts_the_default_of_three_tries() -> None:
    async with box(retry=AT_ONCE) as component:
        assert await component.do(Failing(50)) == "answer"


async def test_a_write_that_was_certainly_not_done_is_repeated() -> None:
    async with box(retry=AT_ONCE) as component:
        assert await component.do(Failing(2, lambda: OperationFailedError("refused")), WRITE) == "answer"


async def test_a_write_whose_outcome_is_unknown_is_never_repeated() -> None:
    async with box(retry=AT_ONCE) as component:
        step = Failing(1, lambda: OutcomeUnknownError("lost"))
        with pytest.raises(OutcomeUnknownError):
            await component.do(step, WRITE)
        assert step.tries == 1


def test_a_write_that_was_done_but_is_not_safe_is_not_repeated() -> None:
    error = OutcomeUnknownError("one copy only")
    assert AT_ONCE.allows(error, Effect.CONDITIONAL, 1)
    error.repeatable = False
    assert not AT_ONCE.allows(error, Effect.CONDITIONAL, 1)


async def test_an_answer_is_not_repeated() -> None:
    async with box(retry=AT_ONCE) as component:
        step = Failing(1, lambda: EtagMismatchError("changed"))
        with pytest.raises(EtagMismatchError):
            await component.do(step)
        assert step.tries == 1


async def test_the_timeout_is_for_each_try() -> None:
    tries = 0

    async def slow_twice() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            await asyncio.Event().wait()
        return "answer"

    async with box(timeout=timedelta(milliseconds=20), retry=AT_ONCE) as component:
        assert await component.do(slow_twice) == "answer"
    async with box(timeout=timedelta(milliseconds=20)) as component:
        with pytest.raises(DeadlineExceededError, match=r"no answer within 0\.02 s"):
            await component.do(asyncio.Event().wait)


async def test_an_open_breaker_stops_calls_and_retries_and_leaves_pings_alone() -> None:
    policy = CircuitBreakerPolicy(name="cb", trip=lambda counts: counts["consecutiveFailures"] >= 2)
    async with box(circuit_breaker=policy, retry=AT_ONCE) as component:
        step = Failing(10)
        with pytest.raises(CircuitOpenError):
            await component.do(step)
        assert step.tries == 2
        with pytest.raises(CircuitOpenError, match="component 'box'"):
            await component.do(step)
        assert step.tries == 2
        assert (await component.health()).state is HealthState.READY


async def test_answers_do_not_open_a_breaker() -> None:
    policy = CircuitBreakerPolicy(name="cb", trip=lambda counts: counts["consecutiveFailures"] >= 1)
    async with box(circuit_breaker=policy) as component:
        for _ in range(3):
            with pytest.raises(EtagMismatchError):
                await component.do(raising(EtagMismatchError("changed")))
        assert await component.do(Failing(0)) == "answer"


async def test_closing_ends_the_pause_before_a_retry() -> None:
    async with box(retry=ResiliencyRetry(duration=3600.0)) as component:
        failed = asyncio.Event()

        async def step() -> None:
            failed.set()
            raise UnavailableError("down")

        call = asyncio.create_task(component.do(step))
        await failed.wait()
    async with asyncio.timeout(5):
        with pytest.raises(ClosedError):
            await call


async def test_a_cancelled_caller_ends_the_retries() -> None:
    async with box(retry=AT_ONCE) as component:
        step = Failing(10**9)
        call = asyncio.create_task(component.do(step))
        while step.tries < 3:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_only_the_entries_that_failed_are_sent_again() -> None:
    sent: list[list[str]] = []

    async def send(entries: object) -> list[object]:
        assert isinstance(entries, list)
        sent.append(entries)
        return [UnavailableError("down") if entry == "b" and len(sent) < 3 else entry.upper() for entry in entries]

    guard = Guard(Policies(retry=AT_ONCE), "it")
    assert await guard.entries(WRITE, send, ["a", "b", "c"]) == ["A", "B", "C"]
    assert sent == [["a", "b", "c"], ["b"], ["b"]]


async def test_a_handler_is_repeated_whatever_it_raises() -> None:
    tries = 0

    async def handler(given: str) -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ZeroDivisionError
        return given

    guard = Guard(Policies(retry=ResiliencyRetry(duration=0.0, max_retries=2)), "it")
    assert await guard.repeated(handler)("x") == "x"
    tries = -1
    with pytest.raises(ZeroDivisionError):
        await guard.repeated(handler)("x")


async def test_a_slow_handler_is_a_failure() -> None:
    guard = Guard(Policies(timeout=timedelta(milliseconds=10)), "the application")
    with pytest.raises(DeadlineExceededError, match="the handler of the application did not end within"):
        await guard.once(lambda _: asyncio.Event().wait())(None)


async def test_a_batch_with_a_message_to_retry_is_a_failure_for_the_breaker() -> None:
    answers: list[list[Outcome]] = [[Outcome.SUCCESS, Outcome.RETRY]] * 6

    async def batch(_: None) -> list[Outcome]:
        return answers.pop()

    handler = Guard(Policies(circuit_breaker=CircuitBreakerPolicy(name="cb")), "the application").once(batch)
    for _ in range(6):
        await handler(None)
    with pytest.raises(CircuitOpenError):
        await handler(None)


async def test_nothing_is_tried_again_for_a_caller_who_has_left() -> None:
    class Gone:
        async def left(self) -> None:
            """Be gone from the beginning."""

    step = Failing(5)
    guard = Guard(Policies(retry=ResiliencyRetry(duration=60.0)), "it")
    token = caller.set(Gone())
    try:
        with pytest.raises(UnavailableError):
            await guard.call(WRITE, lambda _: step(), None)
        assert step.tries == 1
    finally:
        caller.reset(token)


# files

DOCUMENTS = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.in-memory, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies: {retries: {again: {duration: 1ms, maxRetries: 2}}}
  targets: {components: {bus: {inbound: {retry: again}}}}
"""


async def test_messages_get_as_many_tries_as_the_inbound_policy_says_before_they_are_dead(tmp_path: Path) -> None:
    (tmp_path / "bus.yaml").write_text(DOCUMENTS)
    attempts: list[int] = []
    dead = asyncio.Event()

    async def fail(message: Message) -> None:
        attempts.append(message.attempt)
        raise ValueError

    async def bury(message: Message) -> None:
        dead.set()

    async with lapel.open_components(tmp_path) as components:
        assert components.resiliency.names == ["r"]
        bus = components.pubsub("bus")
        await bus.subscribe("dead", bury)
        await bus.subscribe("t", fail, dead_letter_topic="dead")
        await bus.publish("t", b"x")
        async with asyncio.timeout(10):
            await dead.wait()
    assert attempts == [1, 2, 3]


async def test_a_message_that_may_not_die_comes_again(tmp_path: Path) -> None:
    (tmp_path / "bus.yaml").write_text(DOCUMENTS)
    handled = asyncio.Event()

    async def fail_five_times(message: Message) -> None:
        if message.attempt <= 5:
            raise ValueError
        handled.set()

    async with lapel.open_components(tmp_path) as components:
        await components.pubsub("bus").subscribe("t", fail_five_times)
        await components.pubsub("bus").publish("t", b"x")
        async with asyncio.timeout(10):
            await handled.wait()


async def test_a_wrong_document_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "bus.yaml").write_text(DOCUMENTS.replace("duration: 1ms", "duration: soon"))
    with pytest.raises(ManifestError, match=r"Resiliency 'r': expected a duration"):
        await lapel.open_components(tmp_path)


async def test_a_runtime_with_retries_of_its_own_switches_the_policies_off(tmp_path: Path) -> None:
    (tmp_path / "bus.yaml").write_text(DOCUMENTS)
    async with lapel.open_components(tmp_path, retries=lapel.RetryPolicy.off()) as components:
        assert components.pubsub("bus").options.resiliency is None
