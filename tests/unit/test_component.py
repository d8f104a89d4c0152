"""What every component promises about its life: opening, reviving, closing, and who may use it when."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import warnings
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from tests.unit.plain_component import WRITE, Box, Clock, Gate, Plain, box, raising

from lapel import component as component_module
from lapel.component import CLOSE_SECONDS, ComponentOptions, Health, HealthState
from lapel.descriptor import Capability
from lapel.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    LapelError,
    NotOpenError,
    OperationFailedError,
    OutcomeUnknownTimeoutError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
    WrongLoopError,
)


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
def quick_revival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component_module, "REOPEN_SECONDS", (0.0, 0.0))


async def answer() -> str:
    return "answer"


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


def lapel_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("lapel")]


async def test_a_life_from_new_to_closed() -> None:
    component = box()
    assert (await component.health()).state is HealthState.INIT
    assert repr(component) == "<Box 'box' (state.plain) new>"
    async with component as entered:
        assert entered is component
        assert await component.health() == Health(state=HealthState.READY)
        assert (await component.health()).ok
        assert await component.do(answer) == "answer"
    assert (await component.health()).state is HealthState.CLOSED
    assert component.driver.journal == ["open", "do", "close"]
    assert lapel_tasks() == []


async def test_calls_before_open_and_after_close_are_refused_without_reaching_the_driver() -> None:
    component = box()
    with pytest.raises(NotOpenError, match="call `open") as early:
        await component.do(answer)
    assert (early.value.component, early.value.driver, early.value.operation) == ("box", "state.plain", "read")
    await component.open()
    await component.aclose()
    with pytest.raises(ClosedError):
        await component.do(answer)
    assert component.driver.journal == ["open", "close"]


async def test_what_is_open_or_closed_is_not_opened_again() -> None:
    component = await box().open()
    with pytest.raises(InvalidArgumentError, match="open already"):
        await component.open()
    assert await component.do(answer) == "answer"
    async with component as same:
        assert same is component
    with pytest.raises(ClosedError):
        await component.open()
    with pytest.raises(ClosedError):
        async with component:
            pass
    assert component.driver.journal == ["open", "do", "close"]


async def test_a_component_closed_before_open_stays_closed() -> None:
    component = box()
    await component.aclose()
    await component.aclose()
    with pytest.raises(ClosedError):
        await component.open()
    assert component.driver.journal == []


# opening that fails


async def test_a_failed_open_closes_the_driver_says_where_and_is_final() -> None:
    component = box(Plain(open=raising(PermissionDeniedError("wrong password"))))
    with pytest.raises(PermissionDeniedError) as caught:
        await component.open()
    assert (caught.value.component, caught.value.driver, caught.value.operation) == ("box", "state.plain", "open")
    assert component.driver.journal == ["open", "close"]
    health = await component.health()
    assert health.state is HealthState.CLOSED
    assert "wrong password" in str(health.reason)
    for use in (component.open(), component.do(answer)):
        with pytest.raises(ClosedError, match=r"did not open.*wrong password"):
            await use
    await component.aclose()
    await component.aclose()
    assert component.driver.journal == ["open", "close"]
    assert lapel_tasks() == []


async def test_open_that_takes_longer_than_init_timeout_is_unavailable(clock: Clock) -> None:
    gate = Gate()
    component = Box(Plain(open=gate), options=ComponentOptions(init_timeout=timedelta(minutes=2)))
    opening = asyncio.create_task(component.open())
    await gate.reached.wait()
    assert (await component.health()).state is HealthState.INIT
    clock.advance(121)
    with pytest.raises(UnavailableError, match=r"within 120 s \(initTimeout\)"):
        await opening
    assert gate.cancelled == 1
    assert component.driver.journal == ["open", "close"]
    assert opening.cancelling() == 0


async def test_what_a_kind_does_after_opening_counts_as_opening(clock: Clock) -> None:
    gate = Gate()

    class Slow(Box):
        async def _opened(self) -> None:
            await gate()

    component = Slow(Plain())
    opening = asyncio.create_task(component.open())
    await gate.reached.wait()
    with pytest.raises(NotOpenError):
        await component.do(answer)
    clock.advance(6)
    with pytest.raises(UnavailableError, match="initTimeout"):
        await opening
    assert component.driver.journal == ["open", "close"]


async def test_an_error_that_the_driver_did_not_translate_is_named_by_its_class() -> None:
    component = box(Plain(open=raising(ConnectionResetError("peer 10.0.0.1"))))
    with pytest.raises(OperationFailedError, match="ConnectionResetError") as caught:
        await component.open()
    assert "10.0.0.1" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_driver_that_cannot_even_close_after_a_failed_open_does_not_hide_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = Plain(open=raising(UnavailableError("nobody home")), close=raising(RuntimeError("cannot close")))
    with pytest.raises(UnavailableError, match="nobody home"):
        await box(driver).open()
    assert "closing box failed" in caplog.text


@pytest.mark.parametrize("cancels", [1, 2])
async def test_cancelled_opening_closes_the_driver_and_passes_the_cancellation_on(cancels: int) -> None:
    opening_gate, closing_gate = Gate(), Gate()
    component = box(Plain(open=opening_gate, close=closing_gate))
    opening = asyncio.create_task(component.open())
    await opening_gate.reached.wait()
    opening.cancel()
    await closing_gate.reached.wait()
    if cancels == 2:
        opening.cancel()
        await asyncio.wait([opening])
    ended = asyncio.create_task(component.aclose())
    await asyncio.sleep(0)
    assert not ended.done(), "aclose waits for the driver"
    closing_gate.go.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await ended
    assert closing_gate.cancelled == 0
    assert component.driver.journal == ["open", "close"]
    with pytest.raises(ClosedError):
        await component.do(answer)


async def test_a_caller_with_less_time_than_init_timeout_gets_its_own_timeout(clock: Clock) -> None:
    gate = Gate()
    component = box(Plain(open=gate))

    async def impatient() -> None:
        async with asyncio.timeout(1):
            await component.open()

    opening = asyncio.create_task(impatient())
    await gate.reached.wait()
    clock.advance(1)
    with pytest.raises(TimeoutError) as caught:
        await opening
    assert not isinstance(caught.value, LapelError)
    assert component.driver.journal == ["open", "close"]


@pytest.mark.parametrize("stubborn", [False, True])
async def test_close_while_opening_ends_the_opening_and_closes_the_driver_once(stubborn: bool) -> None:
    gate = Gate()

    async def swallow() -> None:
        try:
            await gate()
        except asyncio.CancelledError:
            if not stubborn:
                raise

    component = box(Plain(open=swallow))
    opening = asyncio.create_task(component.open())
    await gate.reached.wait()
    await asyncio.gather(component.aclose(), component.aclose())
    assert component.driver.journal == ["open", "close"]
    with pytest.raises(ClosedError):
        await opening
    assert opening.cancelling() == 0
    assert (await component.health()).state is HealthState.CLOSED


async def test_close_while_the_opening_reacts_to_its_timeout(clock: Clock) -> None:
    gate, cleaning = Gate(), Gate()

    async def tidy() -> None:
        try:
            await gate()
        finally:
            await cleaning()

    component = box(Plain(open=tidy))
    opening = asyncio.create_task(component.open())
    await gate.reached.wait()
    clock.advance(6)
    await cleaning.reached.wait()
    closing = asyncio.create_task(component.aclose())
    await asyncio.sleep(0)
    cleaning.go.set()
    await closing
    with pytest.raises(ClosedError):
        await opening
    assert component.driver.journal == ["open", "close"]


# closing


async def test_close_lets_work_under_way_finish_and_refuses_new_work() -> None:
    gate = Gate()
    component = await box().open()
    work = asyncio.create_task(component.do(gate, WRITE))
    await gate.reached.wait()
    closings = [asyncio.create_task(component.aclose()) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(ClosedError):
        await component.do(answer)
    assert component.driver.journal == ["open", "do"]
    gate.go.set()
    assert await work == "through"
    await asyncio.gather(*closings)
    assert component.driver.journal == ["open", "do", "close"]
    await component.aclose()
    assert component.driver.journal == ["open", "do", "close"]


async def test_close_ends_work_that_hangs_and_waits_for_its_cleanup(clock: Clock) -> None:
    reading, writing, cleaning = Gate(), Gate(), Gate()

    async def tidy() -> None:
        try:
            await writing()
        finally:
            await cleaning()
            component.driver.journal.append("cleaned")

    component = await box(timeout=600).open()
    read, write = asyncio.create_task(component.do(reading)), asyncio.create_task(component.do(tidy, WRITE))
    await writing.reached.wait()
    closing = asyncio.create_task(component.aclose())
    while not cleaning.reached.is_set():
        clock.advance(1)
        await asyncio.sleep(0)
    cleaning.go.set()
    await closing
    with pytest.raises(DeadlineExceededError, match="had been closing for 5 s"):
        await read
    with pytest.raises(OutcomeUnknownTimeoutError, match="may or may not"):
        await write
    assert component.driver.journal == ["open", "do", "do", "cleaned", "close"]


@pytest.mark.parametrize("stubborn", [False, True])
async def test_close_goes_on_without_a_driver_that_hangs(
    stubborn: bool, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    gate, deaf = Gate(), Gate()

    async def hang() -> None:
        try:
            await gate()
        except asyncio.CancelledError:
            if not stubborn:
                raise
            await deaf()

    component = await box(Plain(close=hang)).open()
    closing = asyncio.create_task(component.aclose())
    await gate.reached.wait()
    clock.advance(CLOSE_SECONDS)
    await until(lambda: gate.cancelled)
    if stubborn:
        await deaf.reached.wait()
        clock.advance(1)
    await closing
    assert "box did not close within 5 s" in caplog.text
    assert (await component.health()).state is HealthState.CLOSED
    deaf.go.set()
    await until(lambda: lapel_tasks() == [])


@pytest.mark.parametrize("error", [ValueError("broken"), asyncio.CancelledError()])
async def test_close_survives_what_the_driver_raises(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    component = await box(Plain(close=raising(error))).open()
    await component.aclose()
    assert ("closing box failed" in caplog.text) == isinstance(error, Exception)
    assert (await component.health()).state is HealthState.CLOSED


async def test_a_caller_that_is_cancelled_while_closing_does_not_stop_the_closing() -> None:
    gate = Gate()
    component = await box(Plain(close=gate)).open()
    closing = asyncio.create_task(component.aclose())
    await gate.reached.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    gate.go.set()
    await component.aclose()
    assert gate.cancelled == 0
    assert component.driver.journal == ["open", "close"]


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_kind_that_cannot_drain_does_not_keep_the_driver_open(
    hangs: bool, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    class Full(Box):
        async def _drain(self) -> None:
            if not hangs:
                raise ValueError("stuck")
            await gate()

    component = await Full(Plain()).open()
    closing = asyncio.create_task(component.aclose())
    if hangs:
        await gate.reached.wait()
        clock.advance(CLOSE_SECONDS * 2)
    await closing
    assert "draining box failed" in caplog.text
    assert component.driver.journal == ["open", "close"]


def test_a_loop_that_shuts_down_while_closing_still_closes_the_driver() -> None:
    driver = Plain()
    gates: list[Gate] = []
    closing: list[asyncio.Task[None]] = []

    class Full(Box):
        async def _drain(self) -> None:
            await gates[0]()

    async def main() -> None:
        gates.append(Gate())
        component = await Full(driver).open()
        closing.append(asyncio.create_task(component.aclose()))
        await gates[0].reached.wait()

    asyncio.run(main())
    assert driver.journal == ["open", "close"]


# degraded start


async def test_a_component_that_cannot_open_starts_degraded_and_revives(quick_revival: None) -> None:
    drivers = [Plain(open=raising(UnavailableError(f"down {number}"))) for number in range(2)]
    works, gate = Plain(), Gate()

    async def rebuild() -> Plain:
        if len(drivers) == 1:
            await gate()
        return drivers.pop(0) if drivers else works

    component = box(drivers.pop(0))
    assert await component.open_or_keep_trying(rebuild) is component
    async with component:
        await gate.reached.wait()
        health = await component.health()
        assert health.state is HealthState.DEGRADED
        assert "down 0" in str(health.reason)
        with pytest.raises(UnavailableError, match=r"keeps trying; last failure: .*down 0"):
            await component.do(answer)
        with pytest.raises(InvalidArgumentError, match="open already"):
            await component.open()
        gate.go.set()
        await until(lambda: component.driver is works)
        await until(lambda: lapel_tasks() == [])
        assert (await component.health()).ok
        assert (await component.health()).reason is None
        assert await component.do(answer) == "answer"
    assert works.journal == ["open", "do", "close"]
    with pytest.raises(ClosedError):
        await component.do(answer)


async def test_it_is_degraded_also_while_it_tries(quick_revival: None) -> None:
    gate = Gate()

    async def rebuild() -> Plain:
        return Plain(open=gate)

    component = await box(Plain(open=raising(UnavailableError("down")))).open_or_keep_trying(rebuild)
    await gate.reached.wait()
    assert (await component.health()).state is HealthState.DEGRADED
    with pytest.raises(UnavailableError):
        await component.do(answer)
    await component.aclose()
    assert gate.cancelled == 1
    assert component.driver.journal == ["open", "close"]
    assert lapel_tasks() == []


async def test_what_goes_wrong_while_rebuilding_is_the_next_reason_not_the_end(quick_revival: None) -> None:
    outcomes: list[Callable[[], Awaitable[Plain]]] = [raising(ZeroDivisionError()), raising(UnavailableError("later"))]

    async def rebuild() -> Plain:
        return await outcomes.pop(0)() if outcomes else Plain()

    component = await box(Plain(open=raising(UnavailableError("down")))).open_or_keep_trying(rebuild)
    await until(lambda: not lapel_tasks())
    assert await component.do(answer) == "answer"
    await component.aclose()


@pytest.mark.parametrize("closers", [1, 3])
async def test_close_while_degraded_stops_trying(closers: int) -> None:
    rebuilt = 0

    async def rebuild() -> Plain:
        nonlocal rebuilt
        rebuilt += 1
        return Plain()

    component = await box(Plain(open=raising(UnavailableError("down")))).open_or_keep_trying(rebuild)
    await asyncio.gather(*(component.aclose() for _ in range(closers)))
    assert (await component.health()).state is HealthState.CLOSED
    assert component.driver.journal == ["open", "close"]
    assert rebuilt == 0
    assert lapel_tasks() == []


async def test_concurrent_closes_of_a_revived_component_all_wait_for_the_driver(quick_revival: None) -> None:
    gate = Gate()

    async def rebuild() -> Plain:
        return Plain(close=gate)

    component = await box(Plain(open=raising(UnavailableError("down")))).open_or_keep_trying(rebuild)
    await until(lambda: not lapel_tasks())
    closings = [asyncio.create_task(component.aclose()) for _ in range(2)]
    await gate.reached.wait()
    assert not any(closing.done() for closing in closings)
    gate.go.set()
    await asyncio.gather(*closings)
    assert component.driver.journal == ["open", "close"]


async def test_a_revived_component_takes_the_policy_and_deadline_of_its_new_driver(quick_revival: None) -> None:
    class Patient(Plain):
        @property
        def call_timeout(self) -> float:
            return 77.0

    async def rebuild() -> Plain:
        return Patient()

    component = await box(Plain(open=raising(UnavailableError("down")))).open_or_keep_trying(rebuild)
    await until(lambda: not lapel_tasks())
    assert component._deadlines is not None
    assert component._deadlines.timeout == 77.0
    await component.aclose()


async def test_misuse_does_not_make_an_open_component_degraded() -> None:
    component = await box().open()

    async def rebuild() -> Plain:
        raise AssertionError

    with pytest.raises(InvalidArgumentError):
        await component.open_or_keep_trying(rebuild)
    assert await component.do(answer) == "answer"
    await component.aclose()
    with pytest.raises(ClosedError):
        await component.open_or_keep_trying(rebuild)
    assert lapel_tasks() == []


# who may use it


def test_another_loop_is_refused_for_calls_and_for_closing() -> None:
    component = box()
    with asyncio.Runner() as home, asyncio.Runner() as other:
        home.run(component.open())
        with pytest.raises(WrongLoopError, match="another event loop"):
            other.run(component.do(answer))
        with pytest.raises(WrongLoopError, match="by the loop that opened it"):
            other.run(component.aclose())
        assert home.run(component.do(answer)) == "answer"
        home.run(component.aclose())
        other.run(component.aclose())
    assert component.driver.journal == ["open", "do", "close"]


@pytest.mark.blocking_allowed
async def test_another_thread_is_refused() -> None:
    component = await box().open()
    caught: list[BaseException] = []

    def use() -> None:
        try:
            asyncio.run(component.do(answer))
        except WrongLoopError as exc:
            caught.append(exc)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(caught) == 1
    await component.aclose()
    assert component.driver.journal == ["open", "close"]


def in_child(check: Callable[[], bool]) -> bool:
    """Run a check in a forked process and tell whether it held."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the test process do not matter here
        child = os.fork()
    if child == 0:
        code = 2
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("state", ["open", "degraded", "opening"])
@pytest.mark.blocking_allowed
def test_a_forked_child_is_told_to_open_its_own_and_can(state: str) -> None:
    async def rebuild() -> Plain:
        raise AssertionError

    async def prepare() -> Box:
        if state == "open":
            return await box().open()
        if state == "degraded":
            return await box(Plain(open=raising(UnavailableError("down")))).open_or_keep_trying(rebuild)
        gate = Gate()
        component = box(Plain(open=gate))
        openings.append(asyncio.create_task(component.open()))
        await gate.reached.wait()
        return component

    async def use() -> bool:
        told = False
        try:
            await component.do(answer)
        except WrongLoopError as exc:
            told = "before fork" in str(exc)
        closed = (await component.health()).state is HealthState.CLOSED
        await component.aclose()
        async with box() as own:
            return told and closed and await own.do(answer) == "answer"

    def check() -> bool:
        asyncio.events._set_running_loop(None)
        with asyncio.Runner() as runner:
            return runner.run(use())

    openings: list[asyncio.Task[Box]] = []
    with asyncio.Runner() as home:
        component = home.run(prepare())
        assert in_child(check)
        home.run(component.aclose())
        assert "close" in component.driver.journal
        assert all(isinstance(opening.exception(), ClosedError) for opening in openings)


# health and capabilities


async def test_health_follows_the_ping() -> None:
    outcomes: list[Exception] = [UnavailableError("no pong"), ValueError("broken")]

    async def ping() -> None:
        if outcomes:
            raise outcomes.pop(0)

    async with Box(Plain(ping=ping), options=ComponentOptions(retries=None)) as component:
        component._retries = component._retries.off()
        for reason in ("no pong", "ValueError"):
            health = await component.health()
            assert health.state is HealthState.RECONNECTING
            assert not health.ok
            assert reason in str(health.reason)
        assert (await component.health()).ok


async def test_health_does_not_wait_longer_than_a_call_may_take(clock: Clock) -> None:
    gate = Gate()
    async with box(Plain(ping=gate)) as component:
        asking = asyncio.create_task(component.health())
        await gate.reached.wait()
        clock.advance(6)
        health = await asking
        assert health.state is HealthState.RECONNECTING
        assert "no answer within 5 s" in str(health.reason)


async def test_what_it_says_about_itself_comes_from_the_driver() -> None:
    component = box()
    assert component.type == "state.plain"
    assert component.descriptor is Plain.descriptor
    assert component.capabilities == Capability.ETAG | Capability.TTL
    component.driver.withdraw(Capability.TTL | Capability.QUERY_API, "the server is too old")
    assert component.capabilities == Capability.ETAG
    assert component.withdrawn == {Capability.TTL: "the server is too old"}
    assert component.limits is Plain.descriptor.limits
    with pytest.raises(LookupError, match=r"state\.plain offers no builtins\.dict"):
        component.unwrap(dict)
    with pytest.raises(UnsupportedError) as caught:
        component._need(Capability.TTL | Capability.ETAG, "set")
    text = str(caught.value)
    assert "TTL" in text
    assert "ETAG" not in text
    assert "the server is too old" in text
    assert "state.in-memory" in text, "it names installed drivers that can"
    assert caught.value.component == "box"
    component._need(Capability.ETAG, "set")


async def test_degraded_start_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def rebuild() -> Plain:
        raise AssertionError

    with caplog.at_level(logging.WARNING, "lapel.component.box"):
        component = await box(Plain(open=raising(UnavailableError("down")))).open_or_keep_trying(rebuild)
    assert "box starts degraded" in caplog.text
    assert "down" in caplog.text
    await component.aclose()
