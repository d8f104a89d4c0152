"""Fixtures of all fault suites, and the requests that faults are aimed at."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from ...component import Component, ComponentOptions
from ...driver import Driver
from ...errors import LapelError
from ...policy import Effect
from ..harness import ComponentHooks
from ..proxy import FaultProxy
from ..subject import Subject, read_components
from .backend import FaultBackend

__all__ = ["PATIENCE", "REPLIES", "FaultBase", "Request", "new_name", "until"]

PATIENCE = 30.0
"""How long a component may take to work again, in seconds, once the fault is over."""
REPLIES = 100
"""How many correct replies prove that it does."""
IMPATIENT = ComponentOptions(call_timeout=timedelta(seconds=1))
"""For components that meet a backend which does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call that a fault is aimed at.

    `mark` is a text that only this call puts on the wire, at least once; empty when it has none, and then the fault
    hits whatever is sent next. `prepare` makes, past the proxy, what the call needs. `send` makes the call; it raises
    the error of a bulk call's item, and asserts that what a read returns is right. `done` tells, past the proxy, how
    often the backend has done what the call asks; None when that cannot be told. `reads` is for calls that change
    nothing, and are not repeated all the same.
    """

    name: str
    effect: Effect
    send: Callable[[], Awaitable[object]]
    mark: str = ""
    prepare: Callable[[], Awaitable[object]] | None = None
    done: Callable[[], Awaitable[int]] | None = None
    reads: bool = False


class FaultBase(ComponentHooks):
    """Fixtures and hooks of the fault suites. A subclass names its `component` file and overrides `backend`."""

    resends: ClassVar[bool] = False
    """Whether the protocol lets the driver send a write again so that the backend does it once (an idempotent
    producer). Then a lost reply may also end in success; what is done twice is still a fault."""
    replacement: ClassVar[type[Driver[Any]] | None] = None
    """The driver class to test in place of the catalogue's; for mutants."""
    observer: ClassVar[type[Driver[Any]] | None] = None
    """The driver class that looks past the proxy, in place of the catalogue's."""

    # what a subclass overrides

    @pytest.fixture
    def backend(self) -> FaultBackend:
        """Return the backend under the component; override it. May be shared by all tests of the class."""
        pytest.fail(f"{type(self).__name__} overrides no fixture `backend`; return a FaultBackend")

    # what a kind overrides

    def requests(self, component: Component[Any], behind: Component[Any], name: str) -> Sequence[Request]:
        """Return the calls that the flags of `component` allow, each with names of its own made from `name`.

        `behind` is another component, which reaches the backend past the proxy. `name` is a text of letters and digits
        not used before.
        """
        raise NotImplementedError

    async def load(self, component: Component[Any], name: str) -> None:
        """Make one ordinary round trip under a load that is interrupted; what was done may be done twice."""
        await self.exercise(component, name)

    async def replies(self, component: Component[Any], name: str, count: int = REPLIES) -> None:
        """Get `count` correct replies, several at a time."""
        for start in range(0, count, 10):
            await asyncio.gather(*(self.exercise(component, f"{name}{start + number}") for number in range(10)))

    # fixtures

    @pytest_asyncio.fixture(loop_scope="function")
    async def proxy(self, backend: FaultBackend) -> AsyncIterator[FaultProxy]:
        """Provide the proxy in front of the backend."""
        async with FaultProxy(backend.host, backend.port, listen=backend.proxy_port) as proxy:
            yield proxy

    @pytest.fixture
    def subject(self, backend: FaultBackend, proxy: FaultProxy, folder: Path) -> Subject:
        """Return the component under test, whose way to the backend leads through the proxy."""
        return self._at(backend, proxy.host, proxy.port, folder, self.replacement)

    @pytest.fixture
    def direct(self, backend: FaultBackend, folder: Path) -> Subject:
        """Return the same component on the direct way to the backend."""
        return self._at(backend, backend.host, backend.port, folder, self.observer)

    @pytest_asyncio.fixture(loop_scope="function")
    async def behind(self, direct: Subject) -> AsyncIterator[Component[Any]]:
        """Provide an open component that looks behind the fault."""
        async with self.build(direct) as ready:
            yield ready

    @pytest_asyncio.fixture(loop_scope="function")
    async def impatient(self, subject: Subject) -> AsyncIterator[Component[Any]]:
        """Provide an open component through the proxy, whose calls have a second."""
        async with self.build(subject, IMPATIENT) as ready:
            yield ready

    # helpers

    async def works_again(self, component: Component[Any]) -> None:
        """Wait until the component works, as an application does that can repeat what it asks for."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                await self.load(component, new_name())
                return
            except LapelError:
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.05)

    def _at(
        self, backend: FaultBackend, host: str, port: int, folder: Path, driver: type[Driver[Any]] | None
    ) -> Subject:
        if self.component is None:
            pytest.fail(f"{type(self).__name__} sets no `component`")
        found = [
            (manifest, pins)
            for manifest, pins in read_components(os.fspath(self.component), folder)
            if manifest.kind is self.kind and self.component_name in (None, manifest.name)
        ]
        if len(found) != 1:
            names = ", ".join(manifest.name for manifest, _ in found) or "none"
            pytest.fail(f"need exactly one {self.kind.value} component in {self.component}, found {names}")
        subject = Subject.from_manifest(*found[0], driver=driver).variant(backend.fields(host, port))
        assert subject is not None
        return subject


async def until(condition: Callable[[], object], what: str, seconds: float | None = None) -> None:
    """Return as soon as `condition` holds; fail with `what` when it does not within `seconds`, None for `PATIENCE`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + (PATIENCE if seconds is None else seconds)
    while not condition():
        if loop.time() > end:
            pytest.fail(what)
        await asyncio.sleep(0.01)


def new_name() -> str:
    """Return a text of letters and digits that was not used before."""
    return f"n{uuid.uuid4().hex}"
