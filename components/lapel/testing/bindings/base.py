"""What the tests of bindings have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, cast
from weakref import WeakKeyDictionary

import pytest
import pytest_asyncio

from ...bindings import BindingDriver, BindingEvent, InputBinding, OutputBinding, Reading
from ...component import Component, ComponentOptions
from ...deadlines import Deadlines
from ...descriptor import Capability, Kind
from ..harness import ComponentHooks, Operations
from ..marks import TEST_SECONDS
from ..subject import Subject

__all__ = ["BindingBase", "Events"]

EVENT_SECONDS = 10.0

_locks: WeakKeyDictionary[Component[Any], asyncio.Lock] = WeakKeyDictionary()


class Events:
    """A handler that keeps what it gets, and does with it what `act` says."""

    def __init__(self, act: Callable[[BindingEvent], Awaitable[Any]] | None = None) -> None:
        self.seen: list[BindingEvent] = []
        self._act = act
        self._came = asyncio.Event()

    async def __call__(self, event: BindingEvent) -> Any:
        """Handle one event."""
        self.seen.append(event)
        self._came.set()
        return await self._act(event) if self._act else None

    async def reach(self, count: int) -> None:
        """Wait until there were that many; fail when they do not come."""
        async with asyncio.timeout(EVENT_SECONDS):
            while len(self.seen) < count:
                self._came.clear()
                await self._came.wait()


class BindingBase(ComponentHooks):
    """Fixtures and hooks of the binding suite."""

    kind = Kind.BINDINGS
    front = OutputBinding
    driver_base = BindingDriver
    options: ClassVar[Mapping[str, Any]] = {
        **ComponentHooks.options,
        "target": "",
        "required": "",
        "root": "",
        "cause": "",
    }
    methods = {  # noqa: RUF012  # declared as a ClassVar by the base class
        Capability.OUTPUT: ("invoke",),
        Capability.INPUT: ("read",),
    }

    def build(self, subject: Subject, options: ComponentOptions | None = None) -> Component[Any]:
        """Return the output side, or the input side of a binding that has no other."""
        driver = cast("BindingDriver[Any]", subject.driver())
        output = Capability.OUTPUT in driver.descriptor.capabilities
        self._target = str(self.option(subject, "target"))
        return OutputBinding(driver, options=options) if output else InputBinding(driver, options=options)

    @pytest_asyncio.fixture(loop_scope="function")
    async def output(self, opened: Component[Any]) -> OutputBinding:
        """Return the open output side."""
        binding = cast("OutputBinding", opened)
        if binding._deadlines is None:
            # A streamed reply has a deadline for each chunk, also where nothing else comes between test and driver.
            binding._deadlines = Deadlines(TEST_SECONDS)
        return binding

    @pytest.fixture
    def target(self, subject: Subject) -> str:
        """Return the request metadata that names an object; skip the test without one."""
        target = str(self.option(subject, "target"))
        if not target:
            pytest.skip("the component file names no `target`: the binding keeps no objects under names")
        return target

    def reader(self, subject: Subject) -> InputBinding:
        """Return a new, unopened input side."""
        return InputBinding(cast("BindingDriver[Any]", subject.driver()))

    @asynccontextmanager
    async def reading(
        self, subject: Subject, handler: Callable[[BindingEvent], Awaitable[Any]], **options: Any
    ) -> AsyncIterator[Reading]:
        """Read with a component of its own."""
        async with self.reader(subject) as binding, await binding.read(handler, **options) as reading:
            yield reading

    async def cause(self, subject: Subject, payload: bytes) -> None:
        """Make an event where that can be done; elsewhere it comes by itself."""
        operation = str(self.option(subject, "cause"))
        if operation:
            async with OutputBinding(cast("BindingDriver[Any]", subject.driver())) as binding:
                await binding.invoke(operation, payload)

    def makes_events(self, subject: Subject) -> bool:
        """Tell whether `cause` makes an event of its payload."""
        return bool(self.option(subject, "cause"))

    async def exercise(self, component: Component[Any], payload: str) -> None:
        """Store and read back an object of its own, or begin and end a reading."""
        if isinstance(component, InputBinding):
            await _read_once(component)
        else:
            await self._round_trip(cast("OutputBinding", component), f"exercise-{hash(payload):x}", payload.encode())

    async def _round_trip(self, binding: OutputBinding, name: str, data: bytes) -> None:
        metadata = {self._target: name} if self._target else {}
        await binding.invoke(_first(binding, "create"), data, metadata=metadata)
        if self._target and "get" in binding.operations:
            assert await (await binding.invoke("get", metadata=metadata)).read() == data

    def operations(self, component: Component[Any], payload: str) -> Operations:
        """Return the operations that the suite knows, each able to succeed by itself, or a reading."""
        if isinstance(component, InputBinding):
            return {"read": lambda: _read_once(component)}
        binding = cast("OutputBinding", component)
        name, data = f"operations-{hash(payload):x}", payload.encode()
        metadata = {self._target: name} if self._target else {}

        async def parts() -> AsyncIterator[bytes]:
            yield data

        async def delete() -> None:
            await binding.invoke(_first(binding, "create"), data, metadata=metadata)
            await binding.invoke("delete", metadata=metadata)

        create = _first(binding, "create")
        offered: dict[str, Callable[[], Awaitable[object]]] = {
            "create": lambda: binding.invoke(create, data, metadata=metadata),
            "create from a stream": lambda: binding.invoke(create, parts(), metadata=metadata),
        }
        if self._target:
            offered["get"] = lambda: self._round_trip(binding, f"{name}-got", data)
            if "list" in binding.operations:
                offered["list"] = lambda: binding.invoke("list")
            if "delete" in binding.operations:
                offered["delete"] = delete
        return offered


def _first(binding: OutputBinding, preferred: str) -> str:
    return preferred if preferred in binding.operations else binding.operations[0]


async def _read_once(binding: InputBinding) -> None:
    """Begin and end one reading. One at a time: that is all that a binding allows."""
    lock = _locks.setdefault(binding, asyncio.Lock())
    async with lock, await binding.read(Events()):
        pass
