"""What callers of a coalescer may rely on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapel.coalesce import Coalescer, was_sent
from lapel.errors import (
    ClosedError,
    EtagMismatchError,
    InvalidArgumentError,
    OutcomeUnknownError,
    UnavailableError,
    WrongLoopError,
)


class Backend:
    """Records batches and doubles numbers; a batch waits while `gate` is clear."""

    def __init__(self, *, blocked: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.running = 0
        self.most_running = 0
        self.gate = asyncio.Event()
        if not blocked:
            self.gate.set()

    async def flush(self, ops: list[int]) -> Sequence[int | BaseException]:
        self.batches.append(ops)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        return [EtagMismatchError("odd one out") if op < 0 else op * 2 for op in ops]


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_concurrent_calls_go_out_together_in_order() -> None:
    backend = Backend()
    coalescer = Coalescer(backend.flush, max_items=100)
    assert await asyncio.gather(*(coalescer.submit(n) for n in range(10))) == [n * 2 for n in range(10)]
    assert backend.batches == [list(range(10))]


async def test_a_lone_call_does_not_wait_for_company() -> None:
    backend = Backend(blocked=True)
    call = asyncio.ensure_future(Coalescer(backend.flush, max_items=100).submit(1))
    await turns(2)
    assert backend.batches == [[1]]
    backend.gate.set()
    assert await call == 2


async def test_calls_during_a_round_trip_share_the_next_one() -> None:
    backend = Backend(blocked=True)
    coalescer = Coalescer(backend.flush, max_items=100)
    first = asyncio.ensure_future(coalescer.submit(1))
    await turns()
    others = [asyncio.ensure_future(coalescer.submit(n)) for n in (2, 3, 4)]
    await turns()
    assert (backend.batches, coalescer.pending) == ([[1]], 3)
    backend.gate.set()
    await asyncio.gather(first, *others)
    assert backend.batches == [[1], [2, 3, 4]]


async def test_callers_just_answered_join_those_who_queued_meanwhile() -> None:
    backend = Backend()
    coalescer = Coalescer(backend.flush, max_items=100)

    async def caller(start: int) -> None:
        for n in range(start, start + 5):
            await coalescer.submit(n)

    await asyncio.gather(caller(0), caller(100), caller(200))
    assert [len(batch) for batch in backend.batches] == [3] * 5


async def test_a_call_right_after_the_queue_ran_empty_is_served() -> None:
    coalescer = Coalescer(Backend().flush, max_items=1)
    for gap in range(8):
        assert await coalescer.submit(gap) == gap * 2
        await turns(gap)


async def test_a_bad_operation_fails_alone() -> None:
    coalescer = Coalescer(Backend().flush, max_items=100)
    results = await asyncio.gather(*(coalescer.submit(n) for n in (1, -1, 3)), return_exceptions=True)
    assert (results[0], results[2]) == (2, 6)
    assert isinstance(results[1], EtagMismatchError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(UnavailableError("gone"), UnavailableError), (KeyError("bug"), KeyError), (StopIteration(), RuntimeError)],
)
async def test_every_caller_gets_its_own_copy_of_the_error_of_a_batch(error: Exception, kind: type[Exception]) -> None:
    async def flush(ops: list[int]) -> Sequence[int]:
        future: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        if not isinstance(error, StopIteration):
            future.set_exception(error)
            return await future
        return [error for _ in ops]  # type: ignore[misc]  # an exception in a slot

    coalescer = Coalescer(flush, max_items=100)
    failures = await asyncio.gather(*(coalescer.submit(n) for n in range(3)), return_exceptions=True)
    assert [type(failure) for failure in failures] == [kind] * 3
    assert len({id(failure) for failure in failures}) == 3
    again = await asyncio.gather(coalescer.submit(1), return_exceptions=True)
    assert isinstance(again[0], kind)


async def test_an_error_that_cannot_be_copied_still_reaches_every_caller() -> None:
    class StubbornError(Exception):
        def __init__(self, first: str, second: str) -> None:
            super().__init__(first)

    async def flush(ops: list[int]) -> Sequence[int]:
        raise StubbornError("a", "b")

    coalescer = Coalescer(flush, max_items=100)
    failures = await asyncio.gather(*(coalescer.submit(n) for n in range(3)), return_exceptions=True)
    assert all(isinstance(failure, StubbornError) for failure in failures)


@pytest.mark.parametrize("answer", [[1], [1, 2, 3]])
async def test_a_wrong_number_of_results_leaves_the_outcome_unknown(answer: list[int]) -> None:
    async def flush(ops: list[int]) -> Sequence[int]:
        return answer

    coalescer = Coalescer(flush, max_items=100)
    failures = await asyncio.gather(coalescer.submit(1), coalescer.submit(2), return_exceptions=True)
    assert [type(failure) for failure in failures] == [OutcomeUnknownError] * 2


async def test_a_batch_has_at_most_max_items_and_max_bytes() -> None:
    backend = Backend()
    coalescer = Coalescer(backend.flush, max_items=3, max_bytes=100)
    sizes = [0, 0, 0, 0, 60, 40, 1, 500, 1]
    await asyncio.gather(*(coalescer.submit(n, size) for n, size in enumerate(sizes)))
    assert backend.batches == [[0, 1, 2], [3, 4, 5], [6], [7], [8]]


async def test_no_more_batches_are_under_way_than_allowed() -> None:
    backend = Backend(blocked=True)
    coalescer = Coalescer(backend.flush, max_items=1, concurrency=3)
    calls = [asyncio.ensure_future(coalescer.submit(n)) for n in range(10)]
    await turns()
    assert backend.batches == [[0], [1], [2]]
    backend.gate.set()
    await asyncio.gather(*calls)
    assert backend.most_running == 3


async def test_an_operation_cancelled_in_the_queue_is_never_sent_and_says_so() -> None:
    backend = Backend(blocked=True)
    coalescer = Coalescer(backend.flush, max_items=100)
    sent = asyncio.ensure_future(coalescer.submit(1))
    await turns()
    told: list[bool] = []

    async def caller(op: int) -> int:
        try:
            return await coalescer.submit(op)
        except asyncio.CancelledError as exc:
            told.append(was_sent(exc))
            raise

    queued, neighbour = asyncio.ensure_future(caller(2)), asyncio.ensure_future(caller(3))
    await turns()
    queued.cancel()
    await turns()
    backend.gate.set()
    assert (await sent, await neighbour) == (2, 6)
    assert backend.batches == [[1], [3]]
    assert told == [False]


async def test_a_call_cancelled_under_way_is_read_to_the_end_and_discarded() -> None:
    backend = Backend(blocked=True)
    coalescer = Coalescer(backend.flush, max_items=100)
    told: list[bool] = []

    async def caller() -> None:
        try:
            await coalescer.submit(1)
        except asyncio.CancelledError as exc:
            told.append(was_sent(exc))
            raise

    cancelled, neighbour = asyncio.ensure_future(caller()), asyncio.ensure_future(coalescer.submit(2))
    await turns()
    cancelled.cancel()
    await turns()
    backend.gate.set()
    assert await neighbour == 4
    assert (backend.batches, told) == ([[1, 2]], [True])


def test_errors_that_promise_nothing_was_done_count_as_not_sent() -> None:
    assert not was_sent(ClosedError("closed"))
    assert not was_sent(UnavailableError("away"))
    assert was_sent(OutcomeUnknownError("lost"))
    assert was_sent(asyncio.CancelledError())


async def test_the_flush_sees_no_variable_of_a_caller() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("the caller's")

    async def flush(ops: list[int]) -> Sequence[str]:
        return [variable.get() for _ in ops]

    assert await Coalescer(flush, max_items=1).submit(1) == "unset"


async def test_close_waits_for_what_is_under_way_and_refuses_the_rest() -> None:
    backend = Backend(blocked=True)
    coalescer = Coalescer(backend.flush, max_items=1)
    running, queued = asyncio.ensure_future(coalescer.submit(1)), asyncio.ensure_future(coalescer.submit(2))
    await turns()
    closing = [asyncio.ensure_future(coalescer.close()) for _ in range(2)]
    await turns()
    assert not closing[0].done()
    with pytest.raises(ClosedError):
        await queued
    with pytest.raises(ClosedError):
        await coalescer.submit(3)
    backend.gate.set()
    assert await running == 2
    await asyncio.gather(*closing, coalescer.close())
    assert (backend.batches, coalescer.closed) == ([[1]], True)


async def test_close_gives_up_on_a_batch_at_the_deadline() -> None:
    backend = Backend(blocked=True)
    coalescer = Coalescer(backend.flush, max_items=1)
    running = asyncio.ensure_future(coalescer.submit(1))
    await turns()
    await coalescer.close(deadline=0.01)
    with pytest.raises(OutcomeUnknownError):
        await running
    assert backend.running == 0


async def test_close_returns_although_a_flush_ignores_cancellation() -> None:
    release = asyncio.Event()

    async def flush(ops: list[int]) -> Sequence[int]:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return ops

    coalescer = Coalescer(flush, max_items=1)
    running = asyncio.ensure_future(coalescer.submit(1))
    await turns()
    await coalescer.close(deadline=0.01)
    with pytest.raises(OutcomeUnknownError):
        await running
    release.set()
    await turns()


async def test_a_flush_may_close_its_own_coalescer() -> None:
    async def flush(ops: list[int]) -> Sequence[int]:
        await coalescer.close()
        return ops

    coalescer = Coalescer(flush, max_items=1)
    assert await coalescer.submit(1) == 1


async def test_close_of_an_unused_coalescer_returns() -> None:
    await Coalescer(Backend().flush, max_items=1).close()


def test_a_loop_that_shuts_down_leaves_no_caller_waiting() -> None:
    ends: list[type[BaseException]] = []

    async def main() -> None:
        coalescer = Coalescer(Backend(blocked=True).flush, max_items=1)

        async def caller(op: int) -> None:
            try:
                await coalescer.submit(op)
            except BaseException as exc:
                ends.append(type(exc))
                raise

        tasks = [asyncio.ensure_future(caller(op)) for op in range(3)]
        await turns()
        for task in asyncio.all_tasks() - {*tasks, asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert sorted(end.__name__ for end in ends) == ["ClosedError", "ClosedError", "OutcomeUnknownError"]


def test_another_event_loop_is_refused() -> None:
    async def flush(ops: list[int]) -> Sequence[int]:
        return ops

    coalescer = Coalescer(flush, max_items=1)

    async def call() -> int:
        return await coalescer.submit(1)

    assert asyncio.run(call()) == 1
    with pytest.raises(WrongLoopError, match="another event loop"):
        asyncio.run(call())


@pytest.mark.parametrize(("items", "size", "concurrency"), [(0, None, 1), (1, 0, 1), (1, None, 0)])
async def test_limits_below_one_are_refused(items: int, size: int | None, concurrency: int) -> None:
    with pytest.raises(InvalidArgumentError):
        Coalescer(Backend().flush, max_items=items, max_bytes=size, concurrency=concurrency)


@given(
    cancels=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    max_items=st.integers(1, 8),
    concurrency=st.integers(1, 3),
    slow=st.integers(0, 4),
)
def test_cancelling_anyone_at_any_time_harms_nobody_else(
    cancels: list[int], max_items: int, concurrency: int, slow: int
) -> None:
    """Each number is the turn in which that caller is cancelled; 0 lets it finish."""

    async def main() -> None:
        sent: list[int] = []

        async def flush(ops: list[int]) -> Sequence[int | BaseException]:
            sent.extend(ops)
            await turns(slow)
            return [op * 2 for op in ops]

        coalescer = Coalescer(flush, max_items=max_items, concurrency=concurrency)
        unsent: set[int] = set()

        async def caller(op: int) -> int:
            await turns(op % 5)
            try:
                return await coalescer.submit(op)
            except asyncio.CancelledError as exc:
                if not was_sent(exc):
                    unsent.add(op)
                raise

        tasks = [asyncio.ensure_future(caller(op)) for op in range(len(cancels))]
        for turn in range(1, 13):
            await asyncio.sleep(0)
            for task, when in zip(tasks, cancels, strict=True):
                if when == turn:
                    task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await coalescer.close()
        for op, (result, when) in enumerate(zip(results, cancels, strict=True)):
            assert result == op * 2 or (when and isinstance(result, asyncio.CancelledError))
        assert len(set(sent)) == len(sent)
        assert not unsent & set(sent)
        assert coalescer.pending == 0

    asyncio.run(main())
