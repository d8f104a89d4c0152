"""What every component promises about its life: its states, who may use it when, and what it says about itself."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Callable

import pytest
from tests.unit.component_support import answer, lapel_tasks
from tests.unit.component_support import clock as clock
from tests.unit.plain_component import Box, Clock, Gate, Plain, box, raising

from lapel.component import ComponentOptions, Health, HealthState
from lapel.descriptor import Capability
from lapel.errors import (
    ClosedError,
    InvalidArgumentError,
    NotOpenError,
    UnavailableError,
    UnsupportedError,
    WrongLoopError,
)


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
