"""How a component closes: work under way ends first, and nothing keeps the driver from being closed."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.component_support import answer, lapel_tasks, until
from tests.unit.component_support import clock as clock
from tests.unit.plain_component import WRITE, Box, Clock, Gate, Plain, box, raising

from lapel.component import CLOSE_SECONDS, HealthState
from lapel.errors import ClosedError, DeadlineExceededError, OutcomeUnknownTimeoutError


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
