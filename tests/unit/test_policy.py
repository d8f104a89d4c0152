"""What is tried again, how often, after which pause, and what is never claimed afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.plain_component import FAST, READ, WRITE, WRITE_IF, Clock, Plain, box

from lapel.component import ComponentOptions
from lapel.errors import (
    ClosedError,
    EtagMismatchError,
    LapelError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StorageError,
    ThrottledError,
    UnavailableError,
)
from lapel.policy import Effect, Operation, RetryPolicy

TRANSIENT = [UnavailableError, ThrottledError]
FINAL = [PermissionDeniedError, EtagMismatchError, NotFoundError, StorageError, ClosedError]


class Script:
    """A step that fails with each error in turn and then answers."""

    def __init__(self, *errors: LapelError) -> None:
        self.errors = list(errors)
        self.tries = 0

    async def __call__(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.mark.parametrize("error", TRANSIENT)
@pytest.mark.parametrize("operation", [READ, WRITE_IF])
async def test_safe_and_conditional_operations_are_tried_three_times(
    operation: Operation, error: type[LapelError]
) -> None:
    async with box() as component:
        script = Script(error("1"), error("2"))
        assert await component.do(script, operation) == "answer"
        script = Script(error("1"), error("2"), error("3"), error("4"))
        with pytest.raises(error, match="3") as caught:
            await component.do(script, operation)
        assert script.tries == 3
        assert (caught.value.component, caught.value.operation) == ("box", operation.name)


@pytest.mark.parametrize("error", [*TRANSIENT, OutcomeUnknownError, *FINAL])
async def test_unsafe_operations_are_never_repeated(error: type[LapelError]) -> None:
    async with box() as component:
        script = Script(error("once"))
        with pytest.raises(error, match="once"):
            await component.do(script, WRITE)
        assert script.tries == 1


@pytest.mark.parametrize("error", FINAL)
@pytest.mark.parametrize("operation", [READ, WRITE_IF])
async def test_errors_that_trying_again_does_not_mend_are_raised_at_once(
    operation: Operation, error: type[LapelError]
) -> None:
    async with box() as component:
        script = Script(error("final"))
        with pytest.raises(error, match="final"):
            await component.do(script, operation)
        assert script.tries == 1


async def test_errors_of_other_libraries_are_not_repeated() -> None:
    tries = 0

    async def broken() -> None:
        nonlocal tries
        tries += 1
        raise ConnectionResetError

    async with box() as component:
        with pytest.raises(LapelError):
            await component.do(broken)
    assert tries == 1


async def test_policy_off_tries_once() -> None:
    async with box(retries=RetryPolicy.off()) as component:
        script = Script(UnavailableError("busy"))
        with pytest.raises(UnavailableError):
            await component.do(script)
        assert script.tries == 1


async def test_the_component_file_sets_the_policy_and_the_options_win() -> None:
    class Own(Plain):
        @property
        def retry_policy(self) -> RetryPolicy:
            return RetryPolicy(max_tries=5, initial_delay=0.0)

    for retries, tries in ((None, 5), (FAST, 3)):
        async with box(Own(), retries=retries) as component:
            script = Script(*(UnavailableError("busy") for _ in range(9)))
            with pytest.raises(UnavailableError):
                await component.do(script)
            assert script.tries == tries
    async with box(retries=None) as component:
        assert component._retries == RetryPolicy()
    assert ComponentOptions().retries is None


# what is known afterwards


async def test_a_conditional_write_whose_reply_was_lost_is_repeated() -> None:
    async with box() as component:
        script = Script(OutcomeUnknownError("lost"))
        assert await component.do(script, WRITE_IF) == "answer"
        assert script.tries == 2


async def test_a_write_that_was_done_but_is_not_safe_is_not_repeated_and_says_so() -> None:
    unsafe = OutcomeUnknownError("one copy only")
    unsafe.repeatable = False
    async with box() as component:
        for before in ([], [OutcomeUnknownError("lost")]):
            script = Script(*before, unsafe)
            with pytest.raises(OutcomeUnknownError, match="one copy only"):
                await component.do(script, WRITE_IF)
            assert script.tries == len(before) + 1


async def test_a_mismatch_after_a_lost_reply_is_an_unknown_outcome() -> None:
    async with box() as component:
        script = Script(OutcomeUnknownError("lost"), EtagMismatchError("another etag"))
        with pytest.raises(OutcomeUnknownError, match="either try may have been") as caught:
            await component.do(script, WRITE_IF)
        assert isinstance(caught.value.__cause__, EtagMismatchError)
        assert caught.value.operation == "write_if"
        script = Script(UnavailableError("refused"), EtagMismatchError("another etag"))
        with pytest.raises(EtagMismatchError):
            await component.do(script, WRITE_IF)


@pytest.mark.parametrize(
    "errors",
    [
        [OutcomeUnknownError("lost"), UnavailableError("refused"), UnavailableError("refused")],
        [UnavailableError("refused"), OutcomeUnknownError("lost"), UnavailableError("refused")],
        [OutcomeUnknownError("lost"), PermissionDeniedError("revoked")],
        [OutcomeUnknownError("lost"), StorageError("disk full")],
    ],
)
async def test_an_error_that_promises_that_nothing_was_done_does_not_cover_a_lost_reply(
    errors: Sequence[LapelError],
) -> None:
    async with box() as component:
        with pytest.raises(OutcomeUnknownError, match="lost"):
            await component.do(Script(*errors), WRITE_IF)


async def test_a_read_has_no_outcome_to_be_unknown() -> None:
    async with box() as component:
        with pytest.raises(UnavailableError, match="refused"):
            await component.do(Script(OutcomeUnknownError("lost"), *(UnavailableError("refused") for _ in "ab")), READ)


# pauses


@given(
    policy=st.builds(
        RetryPolicy,
        initial_delay=st.floats(0, 10),
        maximum_delay=st.floats(0, 100),
        multiplier=st.floats(1, 1e9),
    ),
    tries=st.integers(1, 5000),
)
def test_pauses_grow_stay_below_the_ceiling_and_are_never_less_than_half_of_it(policy: RetryPolicy, tries: int) -> None:
    try:
        ceiling = min(policy.maximum_delay, policy.initial_delay * policy.multiplier ** (tries - 1))
    except OverflowError:
        ceiling = policy.maximum_delay if policy.initial_delay else 0.0
    assert 0.5 * ceiling <= policy.delay(tries) <= ceiling


def test_pauses_differ() -> None:
    assert len({RetryPolicy().delay(3) for _ in range(20)}) > 1


@given(st.sampled_from(list(Effect)), st.integers(1, 10), st.integers(0, 10))
def test_no_policy_allows_more_tries_than_its_maximum_or_any_of_an_unsafe_operation(
    effect: Effect, tries: int, maximum: int
) -> None:
    allowed = RetryPolicy(max_tries=maximum).allows(UnavailableError("busy"), effect, tries)
    assert allowed == (effect is not Effect.UNSAFE and tries < maximum)


async def test_a_pause_that_would_outlast_the_deadline_is_not_begun() -> None:
    script = Script(UnavailableError("the real reason"))
    async with box(timeout=5, retries=RetryPolicy(initial_delay=100, maximum_delay=100)) as component:
        with pytest.raises(UnavailableError, match="the real reason"):
            await component.do(script, WRITE_IF)
    assert script.tries == 1


@pytest.mark.parametrize("error", [UnavailableError("refused"), OutcomeUnknownError("lost")])
async def test_time_that_runs_out_in_a_pause_says_what_is_known(error: LapelError) -> None:
    clock, script = Clock(), Script(error)
    async with box(timeout=5, retries=RetryPolicy(initial_delay=4, maximum_delay=4)) as component:
        call = asyncio.create_task(component.do(script, WRITE_IF))
        while not script.tries:
            await asyncio.sleep(0)
        assert component._deadlines is not None
        component._deadlines.expire_all()
        with pytest.raises(TimeoutError) as caught:
            await call
        assert isinstance(caught.value, OutcomeUnknownError) == isinstance(error, OutcomeUnknownError)
        assert script.tries == 1
        clock.advance(0)


async def test_a_caller_can_cancel_the_pause() -> None:
    script = Script(UnavailableError("busy"))
    async with box(timeout=50, retries=RetryPolicy(initial_delay=10, maximum_delay=10)) as component:
        call = asyncio.create_task(component.do(script))
        while not script.tries:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert script.tries == 1
