"""Every call ends in time, says honestly what is known about its outcome, and disturbs no other cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.plain_component import READ, WRITE, WRITE_IF, Clock, Gate, box, raising

from lapel.coalesce import Coalescer, mark_not_sent
from lapel.deadlines import Deadlines
from lapel.errors import (
    DeadlineExceededError,
    LapelError,
    OutcomeUnknownError,
    OutcomeUnknownTimeoutError,
    UnavailableError,
)
from lapel.policy import Operation


@pytest.fixture
async def clock() -> Clock:
    return Clock()


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@pytest.mark.parametrize(
    ("operation", "error"),
    [(READ, DeadlineExceededError), (WRITE, OutcomeUnknownTimeoutError), (WRITE_IF, OutcomeUnknownTimeoutError)],
)
async def test_a_missed_deadline_says_what_is_known(
    operation: Operation, error: type[LapelError], clock: Clock
) -> None:
    gate = Gate()

    async def call() -> None:
        with pytest.raises(error, match="no answer within 5 s") as caught:
            await component.do(gate, operation)
        assert type(caught.value) is error
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, OutcomeUnknownError) == (operation is not READ)
        assert (caught.value.component, caught.value.driver) == ("box", "state.plain")
        assert caught.value.operation == operation.name
        assert caught.value.__cause__ is None
        assert cancelling() == 0
        assert await component.do(answer) == "answer"

    async with box() as component:
        task = asyncio.create_task(call())
        await gate.reached.wait()
        clock.advance(5)
        await task
        assert gate.cancelled == 1


async def answer() -> str:
    return "answer"


async def test_a_write_that_was_certainly_not_sent_missed_its_deadline_and_nothing_else(clock: Clock) -> None:
    busy = Gate()

    async def flush(operations: list[str]) -> list[str]:
        await busy()
        return operations

    coalescer: Coalescer[str, str] = Coalescer(flush, max_items=1)
    async with box() as component:
        sent = asyncio.create_task(component.do(lambda: coalescer.submit("first"), WRITE))
        await busy.reached.wait()
        queued = asyncio.create_task(component.do(lambda: coalescer.submit("second"), WRITE))
        await asyncio.sleep(0)
        clock.advance(5)
        outcomes = await asyncio.gather(sent, queued, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OutcomeUnknownTimeoutError, DeadlineExceededError]
        busy.go.set()
        await coalescer.close()


@pytest.mark.parametrize("operation", [READ, WRITE])
async def test_cancellation_by_the_caller_passes_through(operation: Operation) -> None:
    gate = Gate()
    async with box() as component:
        call = asyncio.create_task(component.do(gate, operation))
        await gate.reached.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()
        assert await component.do(answer) == "answer"


async def test_a_shorter_timeout_of_the_caller_wins_and_looks_like_itself(clock: Clock) -> None:
    gate = Gate()

    async def call() -> None:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1):
                await component.do(gate)
        assert not isinstance(caught.value, LapelError)
        assert cancelling() == 0

    async with box() as component:
        task = asyncio.create_task(call())
        await gate.reached.wait()
        clock.advance(1)
        await task


async def test_a_longer_timeout_of_the_caller_does_not_hide_the_deadline(clock: Clock) -> None:
    gate = Gate()

    async def call() -> None:
        async with asyncio.timeout(60):
            with pytest.raises(DeadlineExceededError):
                await component.do(gate)
            assert await component.do(answer) == "answer"

    async with box() as component:
        task = asyncio.create_task(call())
        await gate.reached.wait()
        clock.advance(6)
        await task


@pytest.mark.parametrize("order", ["caller first", "deadline first"])
async def test_a_deadline_and_a_cancellation_at_one_moment_cancel_the_caller(order: str, clock: Clock) -> None:
    gate, cleaning = Gate(), Gate()

    async def tidy() -> None:
        try:
            await gate()
        finally:
            await cleaning()

    async with box() as component:
        call = asyncio.create_task(component.do(tidy))
        await gate.reached.wait()
        if order == "caller first":
            call.cancel()
            await cleaning.reached.wait()
            clock.advance(6)
            while not cleaning.cancelled:
                await asyncio.sleep(0)
        else:
            clock.advance(6)
            await cleaning.reached.wait()
            call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelling() == 1, "only the caller's own request is left"


async def test_both_in_one_turn_of_the_loop(clock: Clock) -> None:
    gate = Gate()

    async def call() -> None:
        async with asyncio.timeout(5):
            await component.do(gate)

    async with box() as component:
        task = asyncio.create_task(call())
        await gate.reached.wait()
        clock.advance(6)
        with pytest.raises(TimeoutError):
            await task
        assert task.cancelling() == 0


@pytest.mark.parametrize(("outer_seconds", "inner_seconds"), [(1.0, 9.0), (9.0, 1.0), (5.0, 5.0)])
async def test_a_call_within_a_call_of_another_component(
    outer_seconds: float, inner_seconds: float, clock: Clock
) -> None:
    gate = Gate()
    inner, outer = box(timeout=inner_seconds), box(timeout=outer_seconds)
    inner.name, outer.name = "inner", "outer"

    async def call() -> None:
        with pytest.raises(DeadlineExceededError, match=r"within (1|5) s") as caught:
            await outer.do(lambda: inner.do(gate))
        assert caught.value.component == ("inner" if inner_seconds < outer_seconds else "outer")
        assert cancelling() == 0

    async with inner, outer:
        task = asyncio.create_task(call())
        await gate.reached.wait()
        clock.advance(min(outer_seconds, inner_seconds))
        await task


async def test_a_call_in_the_cleanup_of_a_cancelled_task_has_its_deadline_too(clock: Clock) -> None:
    working, cleaning = Gate(), Gate()

    async def work() -> None:
        try:
            await working()
        finally:
            with pytest.raises(DeadlineExceededError) as caught:
                await component.do(cleaning)
            missed.append(caught.value)

    missed: list[DeadlineExceededError] = []
    async with box() as component:
        task = asyncio.create_task(work())
        await working.reached.wait()
        task.cancel()
        await cleaning.reached.wait()
        clock.advance(5)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(missed) == 1
        assert task.cancelling() == 1


@pytest.mark.parametrize("reaction", ["answers", "fails"])
async def test_a_driver_that_swallows_the_cancellation_leaves_none_behind(reaction: str, clock: Clock) -> None:
    gate = Gate()

    async def swallow() -> str:
        try:
            return await gate()
        except asyncio.CancelledError:
            if reaction == "fails":
                raise UnavailableError("gone") from None
            return "late"

    async def call() -> Any:
        try:
            return await component.do(swallow)
        finally:
            assert cancelling() == 0

    async with box() as component:
        task = asyncio.create_task(call())
        await gate.reached.wait()
        clock.advance(5)
        if reaction == "fails":
            with pytest.raises(UnavailableError, match="gone"):
                await task
        else:
            assert await task == "late"


async def test_a_cancellation_that_a_driver_makes_up_is_not_a_missed_deadline() -> None:
    async with box() as component:
        with pytest.raises(asyncio.CancelledError):
            await component.do(raising(asyncio.CancelledError()))
        assert not component._deadlines.busy if component._deadlines else False


async def test_the_deadline_covers_all_tries_together(clock: Clock) -> None:
    gate = Gate()
    tries = 0

    async def fail_then_hang() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            clock.advance(3)
            raise UnavailableError("busy")
        await gate()

    async with box() as component:
        call = asyncio.create_task(component.do(fail_then_hang))
        await gate.reached.wait()
        clock.advance(2)
        with pytest.raises(DeadlineExceededError):
            await call
        assert tries == 2


@pytest.mark.parametrize("marked", [False, True])
async def test_what_the_first_try_may_have_done_is_not_forgotten_by_a_second_one_in_the_queue(
    marked: bool, clock: Clock
) -> None:
    gate = Gate()
    first = True

    async def lose_then_queue() -> None:
        nonlocal first
        if first:
            first = False
            raise OutcomeUnknownError("connection lost") if marked else UnavailableError("refused")
        try:
            await gate()
        except asyncio.CancelledError as exc:
            mark_not_sent(exc)
            raise

    async with box() as component:
        call = asyncio.create_task(component.do(lose_then_queue, WRITE_IF))
        await gate.reached.wait()
        clock.advance(5)
        with pytest.raises(OutcomeUnknownTimeoutError if marked else DeadlineExceededError):
            await call


async def test_calls_leave_nothing_behind_and_share_one_timer() -> None:
    loop = asyncio.get_running_loop()
    async with box() as component:
        deadlines = component._deadlines
        assert deadlines is not None
        timers = len(loop._scheduled)  # type: ignore[attr-defined]
        for _ in range(100_000):
            await component.do(answer)
        await asyncio.gather(*(component.do(lambda: asyncio.sleep(0)) for _ in range(1000)))
        assert not deadlines.busy
        assert len(deadlines._tickets) == 0
        assert len(loop._scheduled) <= timers + 1  # type: ignore[attr-defined]
    assert len(loop._scheduled) <= timers + 1  # type: ignore[attr-defined]


@given(st.lists(st.tuples(st.sampled_from(["call", "end", "wait"]), st.integers(0, 7)), max_size=40))
async def test_exactly_the_calls_that_last_too_long_are_cancelled(steps: list[tuple[str, int]]) -> None:
    clock, loop = Clock(), asyncio.get_running_loop()
    deadlines = Deadlines(10.0)
    running: list[tuple[asyncio.Task[None], float, Gate]] = []

    async def call(gate: Gate) -> None:
        task = asyncio.current_task()
        assert task is not None
        ticket = deadlines.enter(task)
        try:
            await gate()
        finally:
            deadlines.leave(ticket)

    async def settle() -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    for action, number in steps:
        if action == "call":
            gate = Gate()
            running.append((asyncio.create_task(call(gate)), loop.time(), gate))
        elif action == "end" and running:
            task, _, gate = running.pop(number % len(running))
            gate.go.set()
            await settle()
            assert not task.cancelled()
        elif action == "wait":
            clock.advance(number)
            await settle()
            for task, began, _ in running:
                assert task.cancelled() == (loop.time() - began >= 10.0)
            running = [entry for entry in running if not entry[0].done()]
        await settle()
    for _, _, gate in running:
        gate.go.set()
    await asyncio.gather(*(task for task, _, _ in running))
    assert not deadlines.busy
    deadlines.close()


async def test_closing_stops_the_clock(clock: Clock) -> None:
    deadlines, gate = Deadlines(1.0), Gate()

    async def call() -> None:
        task = asyncio.current_task()
        assert task is not None
        deadlines.enter(task)
        await gate()

    task = asyncio.create_task(call())
    await gate.reached.wait()
    deadlines.close()
    clock.advance(2)
    await asyncio.sleep(0)
    gate.go.set()
    await task
    assert gate.cancelled == 0
