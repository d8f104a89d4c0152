"""What a component promises that could not open but may keep trying: it says so, revives, and stops when closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.component_support import answer, lapel_tasks, until
from tests.unit.plain_component import Gate, Plain, box, raising

from lapel import component as component_module
from lapel.component import HealthState
from lapel.errors import ClosedError, InvalidArgumentError, UnavailableError


@pytest.fixture
def quick_revival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component_module, "REOPEN_SECONDS", (0.0, 0.0))


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


async def test_degraded_start_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def rebuild() -> Plain:
        raise AssertionError

    with caplog.at_level(logging.WARNING, "lapel.component.box"):
        component = await box(Plain(open=raising(UnavailableError("down")))).open_or_keep_trying(rebuild)
    assert "box starts degraded" in caplog.text
    assert "down" in caplog.text
    await component.aclose()
