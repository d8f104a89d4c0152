"""What a component promises when its opening fails, takes too long, is cancelled or meets its closing."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.unit.component_support import answer, lapel_tasks
from tests.unit.component_support import clock as clock
from tests.unit.plain_component import Box, Clock, Gate, Plain, box, raising

from lapel.component import ComponentOptions, HealthState
from lapel.errors import (
    ClosedError,
    LapelError,
    NotOpenError,
    OperationFailedError,
    PermissionDeniedError,
    UnavailableError,
)


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
