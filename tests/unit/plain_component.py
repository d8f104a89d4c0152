"""The smallest component: its driver does what the test hands it. And a clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from lapel.component import Component, ComponentOptions
from lapel.descriptor import Capability, Descriptor, Kind
from lapel.driver import Driver, DriverContext
from lapel.policy import Effect, Operation, RetryPolicy
from lapel.settings import Secret, Settings, setting

__all__ = [
    "FAST",
    "READ",
    "SETTINGS",
    "WRITE",
    "WRITE_IF",
    "Box",
    "Clock",
    "Gate",
    "Plain",
    "PlainSettings",
    "Step",
    "box",
    "raising",
]

READ = Operation("read", Effect.SAFE)
WRITE = Operation("write", Effect.UNSAFE)
WRITE_IF = Operation("write_if", Effect.CONDITIONAL)
FAST = RetryPolicy(initial_delay=0.0, maximum_delay=0.0)

Step = Callable[[], Awaitable[Any]]


class PlainSettings(Settings):
    """Settings of state.plain."""

    password: Secret | None = setting("password", default=None, doc="What the backend asks for.")


SETTINGS = PlainSettings(password=Secret("canary-7d1b93"))


class Plain(Driver[PlainSettings]):
    """Runs the steps it was given; without one it answers at once. `journal` has what was begun."""

    descriptor = Descriptor(
        kind=Kind.STATE,
        name="plain",
        driver="tests.unit.plain_component:Plain",
        settings="tests.unit.plain_component:PlainSettings",
        summary="For tests.",
        capabilities=Capability.ETAG | Capability.TTL,
    )

    def __init__(self, open: Step | None = None, close: Step | None = None, ping: Step | None = None) -> None:
        super().__init__(SETTINGS, DriverContext(component="box"))
        self.journal: list[str] = []
        self.steps = {"open": open, "close": close, "ping": ping}

    async def _step(self, name: str) -> None:
        self.journal.append(name)
        step = self.steps[name]
        if step is not None:
            await step()

    async def open(self) -> None:
        await self._step("open")

    async def close(self) -> None:
        await self._step("close")

    async def ping(self) -> None:
        if self.steps["ping"] is None:
            await super().ping()
        await self._step("ping")

    async def do(self, step: Step) -> Any:
        self.journal.append("do")
        return await step()


class Box(Component[Plain]):
    """Hands steps to its driver."""

    async def do(self, step: Step, operation: Operation = READ) -> Any:
        return await self._call(operation, self._driver.do, step)


class Clock:
    """Moves the time of the running event loop, so that what waits for a moment need not be waited for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._real = self._loop.time
        self._ahead = 0.0
        self._loop.time = self._now  # type: ignore[method-assign]  # the loop looks its clock up on itself

    def _now(self) -> float:
        return self._real() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


class Gate:
    """A step that waits until it is let through, and tells when it was reached and whether it was cancelled."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = 0

    async def __call__(self) -> str:
        self.reached.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "through"


def raising(error: BaseException) -> Step:
    async def step() -> None:
        raise error

    return step


def box(driver: Plain | None = None, *, timeout: float | None = None, retries: RetryPolicy | None = FAST) -> Box:
    call_timeout = None if timeout is None else timedelta(seconds=timeout)
    return Box(driver or Plain(), options=ComponentOptions(call_timeout=call_timeout, retries=retries))
