from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.state_fake import Fake, never, stores

from lapel.coalesce import Coalescer
from lapel.errors import (
    ClosedError,
    DeadlineExceededError,
    EtagMismatchError,
    LapelError,
    NotOpenError,
    OperationFailedError,
    OutcomeUnknownError,
    OutcomeUnknownTimeoutError,
    UnavailableError,
    WrongLoopError,
)
from lapel.policy import RetryPolicy
from lapel.state import (
    IfAbsent,
    IfMatch,
    StateItem,
    StateStore,
)


@pytest.fixture
async def open_store() -> AsyncIterator[Callable[..., Any]]:
    async with stores() as make:
        yield make


async def test_deadline_of_a_read_is_a_plain_timeout(open_store: Any) -> None:
    store = await open_store(Fake(never), call_timeout=timedelta(milliseconds=10))
    with pytest.raises(DeadlineExceededError, match=r"within 0\.01 s"):
        await store.get("k")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_deadline_of_a_write_leaves_the_outcome_unknown(open_store: Any) -> None:
    store = await open_store(Fake(never, never, never), call_timeout=timedelta(milliseconds=10))
    for call in (store.set("k", 1), store.set("k", 1, etag="x"), store.delete("k")):
        with pytest.raises(OutcomeUnknownTimeoutError):
            await call


async def test_deadline_of_a_write_that_was_never_sent_says_so(open_store: Any) -> None:
    async def stuck(operations: list[Any]) -> list[Any]:
        await never(operations)
        return []

    coalescer: Coalescer[Any, Any] = Coalescer(stuck, max_items=1)
    driver = Fake(coalescer.submit, coalescer.submit)
    store = await open_store(driver, call_timeout=timedelta(milliseconds=20))
    calls = [store.set("a", 1), store.set("b", 1)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [OutcomeUnknownTimeoutError, DeadlineExceededError]
    await coalescer.close(0)


async def test_cancellation_by_the_caller_passes_through(open_store: Any) -> None:
    driver = Fake(never, never)
    store = await open_store(driver)
    task = asyncio.create_task(store.set("k", 1))
    while not driver.seen:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await store.get("k")
    assert not isinstance(caught.value, LapelError)


async def test_deadline_that_the_driver_swallows_leaves_no_cancellation_behind(open_store: Any) -> None:
    async def swallow(request: Any) -> StateItem:
        try:
            await never(request)
        except asyncio.CancelledError:
            return StateItem(data=b"late")
        raise AssertionError

    store = await open_store(Fake(swallow), call_timeout=timedelta(milliseconds=10))
    assert (await store.get("k")).data == b"late"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_safe_and_conditional_calls_are_tried_three_times_unsafe_ones_once(open_store: Any) -> None:
    driver = Fake(*[UnavailableError("down")] * 7)
    store = await open_store(driver)
    for tries, call in ((3, store.get("k")), (3, store.set("k", 1, etag="x")), (1, store.set("k", 1))):
        before = len(driver.seen)
        with pytest.raises(UnavailableError):
            await call
        assert len(driver.seen) - before == tries


async def test_policy_off_tries_once(open_store: Any) -> None:
    driver = Fake(UnavailableError("down"))
    with pytest.raises(UnavailableError):
        await (await open_store(driver, retries=RetryPolicy.off())).get("k")
    assert len(driver.seen) == 1


async def test_mismatch_after_a_lost_reply_is_an_unknown_outcome(open_store: Any) -> None:
    store = await open_store(Fake(OutcomeUnknownError("lost"), EtagMismatchError("changed")))
    with pytest.raises(OutcomeUnknownError, match="either try"):
        await store.set("k", 1, etag="x")


async def test_error_that_the_driver_did_not_translate_is_wrapped_and_located(open_store: Any) -> None:
    store = await open_store(Fake(KeyError("boom")))
    with pytest.raises(OperationFailedError, match=r"component 'store' \(state.fake\) get: .*KeyError") as caught:
        await store.get("k")
    assert isinstance(caught.value.__cause__, KeyError)


async def test_update_repeats_after_each_conflict_and_gives_up_after_its_tries(open_store: Any) -> None:
    driver = Fake(None, EtagMismatchError("made meanwhile"), StateItem(data=b"1", etag="x"), "new")
    store = await open_store(driver)
    assert await store.update("k", lambda item: 1 if item is None else item.json() + 1) == 2
    assert [request.precondition for request in driver.seen[1::2]] == [IfAbsent(), IfMatch("x")]
    driver.script = [StateItem(data=b"1", etag="x"), EtagMismatchError("again")] * 2
    with pytest.raises(EtagMismatchError):
        await store.update("k", lambda item: 1, tries=2)
    assert driver.script == []


async def test_calls_before_open_and_after_close_are_refused() -> None:
    store = StateStore(Fake())
    with pytest.raises(NotOpenError):
        await store.get("k")
    await store.open()
    await store.aclose()
    await store.aclose()
    for call in (store.get("k"), store.bulk_get(["k"]), store.bulk_get([]), store.transaction([])):
        with pytest.raises(ClosedError):
            await call


async def test_close_ends_calls_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapel.component.CLOSE_SECONDS", 0.01)
    store = await StateStore(Fake(never)).open()
    call = asyncio.create_task(store.set("k", 1))
    await asyncio.sleep(0)
    await store.aclose()
    with pytest.raises(OutcomeUnknownTimeoutError):
        await call


def test_other_loop_is_refused() -> None:
    store = StateStore(Fake())
    with asyncio.Runner() as home, asyncio.Runner() as other:
        home.run(store.open())
        with pytest.raises(WrongLoopError):
            other.run(store.get("k"))
        home.run(store.aclose())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_is_told_to_open_its_own() -> None:
    store = StateStore(Fake())
    with asyncio.Runner() as home:
        home.run(store.open())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.run(store.get("k"))
            except WrongLoopError as exc:
                code = 0 if "before fork" in str(exc) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        home.run(store.aclose())
