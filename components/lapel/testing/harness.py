"""What every suite stands on: fixtures, the choice of tests by capability, and the ban on overriding tests."""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
import pytest_asyncio

from ..component import Component, ComponentOptions
from ..descriptor import Capability, Kind, capability_names
from ..driver import Driver
from ..policy import Operation
from ..registry import default_registry
from .plugin import DECLARED, NOT_DECLARED
from .report import SUBJECT
from .rows import ROWS
from .subject import Subject, read_components

__all__ = ["ComponentHooks", "Operations", "SuiteBase", "bare"]

Operations = Mapping[str, Callable[[], Awaitable[object]]]
"""Calls by name, each ready to be made any number of times."""

_FOLDER: pytest.StashKey[Path] = pytest.StashKey()


class SuiteBase:
    """Base of all suites. Tests run on the component of `component`, or of an overridden fixture `subject`.

    A subclass sets hooks and overrides fixtures, and may add tests; overriding or hiding a test of a suite is a
    `TypeError`. Each test gets a new component on the same backend, and names nothing that another test could use.
    """

    __test__ = False
    pytestmark: ClassVar[Any] = [pytest.mark.asyncio(loop_scope="function")]

    lapel_suite: ClassVar[bool] = True
    """What the plugin knows suites by, without importing them."""
    kind: ClassVar[Kind]
    """The kind that the suite is for."""
    front: ClassVar[type[Component[Any]]]
    """The class that the application holds."""
    component: ClassVar[str | os.PathLike[str] | None] = None
    """The component file to test, or YAML text."""
    component_name: ClassVar[str | None] = None
    """Which component of a file with several; None for the only one of this kind."""
    options: ClassVar[Mapping[str, Any]] = {}
    """The knobs that `options` of a Conformance document may set, with their defaults. Values in files are text."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in {name for base in cls.__mro__ for name in vars(base)}:
            if name.startswith("test") or name == "_choose":
                owners = [base for base in cls.__mro__ if name in vars(base)]
                if len(owners) > 1:
                    raise TypeError(
                        f"{owners[0].__qualname__}.{name} overrides a test of {owners[-1].__qualname__}; the suite is "
                        "the same for every driver. Declare a known fault with its reason in `knownFaults` instead"
                    )
        if "__test__" not in vars(cls):
            cls.__test__ = not cls.__module__.startswith(f"{__package__}.")

    # what a subclass may override

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest, folder: Path) -> Subject:
        """Return the component under test. Override it to test a driver without a component file.

        Best return the same object each time: it is opened once to learn its flags.
        """
        stash = _owner(request).stash
        if SUBJECT not in stash:
            stash[SUBJECT] = self._read(folder)
        return stash[SUBJECT]

    def _read(self, folder: Path) -> Subject:
        if self.component is None:
            pytest.fail(f"{type(self).__name__} sets no `component` and overrides no fixture `subject`")
        found = [
            (manifest, pins)
            for manifest, pins in read_components(self.component, folder)
            if manifest.kind is self.kind and self.component_name in (None, manifest.name)
        ]
        if len(found) != 1:
            names = ", ".join(manifest.name for manifest, _ in found) or "none"
            pytest.fail(f"need exactly one {self.kind.value} component in {self.component}, found {names}")
        return Subject.from_manifest(*found[0])

    def build(self, subject: Subject, options: ComponentOptions | None = None) -> Component[Any]:
        """Return a new, unopened component."""
        return self.front(subject.driver(), options=options)

    # fixtures

    @pytest.fixture
    def folder(self, request: pytest.FixtureRequest) -> Path:
        """Return a folder for the files of the component, for all tests of the class; `${TMP}` in component files."""
        owner = _owner(request)
        if _FOLDER not in owner.stash:
            temporary = tempfile.TemporaryDirectory(prefix="lapel-")
            owner.addfinalizer(temporary.cleanup)
            owner.stash[_FOLDER] = Path(temporary.name)
        return owner.stash[_FOLDER]

    @pytest_asyncio.fixture(loop_scope="function", autouse=True)
    async def _choose(self, request: pytest.FixtureRequest, subject: Subject) -> None:
        """Skip the test if it is not about this component, and expect it to fail if the author says so."""
        request.node.stash[SUBJECT] = subject
        unknown = set(subject.pins.options) - set(self.options)
        if unknown:
            pytest.fail(f"unknown options {', '.join(sorted(unknown))}; there are {', '.join(self.options) or 'none'}")
        names = {request.node.originalname, *_arguments(request.node, "lapel_row")}
        for name in set(subject.pins.known_faults) - set(ROWS):
            if not hasattr(self, name):
                pytest.fail(f"knownFaults names {name!r}, which is neither a row nor a test")
        # What a refusal suggests instead is read from the disk, once in a process.
        await asyncio.to_thread(default_registry().with_capability, self.kind, Capability(0))
        await subject.probe(lambda: self.build(subject))
        for needed in _arguments(request.node, "lapel_needs"):
            if not needed & subject.flags:
                pytest.skip(NOT_DECLARED + " or ".join(capability_names(needed)))
        for lacked in _arguments(request.node, "lapel_lacks"):
            if lacked & subject.flags:
                pytest.skip(DECLARED + ", ".join(capability_names(lacked & subject.flags)))
        for name in sorted(names & set(subject.pins.known_faults)):
            request.node.add_marker(pytest.mark.xfail(reason=subject.pins.known_faults[name], strict=True))

    @pytest.fixture
    def via(self, request: pytest.FixtureRequest) -> str:
        """Return the way calls take: `front`, the application's class, or `driver`, for tests marked `contract`."""
        return str(getattr(request, "param", "front"))

    @pytest_asyncio.fixture(loop_scope="function")
    async def opened(self, subject: Subject, via: str) -> AsyncIterator[Component[Any]]:
        """Provide an open component, closed after the test. Its calls go straight to the driver if `via` says so."""
        component = self.build(subject)
        async with component if via == "front" else bare(component) as ready:
            yield ready

    @pytest_asyncio.fixture(loop_scope="function")
    async def stack(self) -> AsyncIterator[AsyncExitStack]:
        """Provide a stack for what a test opens itself."""
        async with AsyncExitStack() as stack:
            yield stack

    @pytest.fixture
    def base(self) -> str:
        """Return a text that no other test uses, to begin names with; in braces, for keys of one hash slot."""
        return f"{{{uuid.uuid4().hex}}}"

    def option(self, subject: Subject, name: str) -> Any:
        """Return a knob of the component's Conformance document, or its default."""
        return subject.pins.options.get(name, self.options[name])


class ComponentHooks(SuiteBase):
    """How the tests of all kinds use a component; each kind has a base with its own hooks."""

    options: ClassVar[Mapping[str, Any]] = {"broken": ()}
    methods: ClassVar[Mapping[Capability, tuple[str, ...]]] = {}
    """For each flag, the methods of a driver that it switches on."""
    driver_base: ClassVar[type[Any]] = Driver
    """The class that drivers of the kind subclass."""

    async def exercise(self, component: Component[Any], payload: str) -> None:
        """Make one ordinary round trip with `payload`, a text not used before, and assert that the reply is right."""
        raise NotImplementedError

    def operations(self, component: Component[Any], payload: str) -> Operations:
        """Return every operation that the component's flags allow, by name, ready to be called any number of times.

        `payload` is a text not used before.
        """
        raise NotImplementedError


def bare(component: Component[Any]) -> Component[Any]:
    """Return a component of the same class on the same driver, whose calls nothing comes between.

    No deadline, no retry, no translation of errors: what the driver does is what the test sees.
    """
    front = type(component)
    made: Component[Any] = type(f"Bare{front.__name__}", (_Bare, front), {})(
        component.driver, options=component.options
    )
    return made


class _Bare(Component[Any]):
    async def open(self) -> Self:
        await self.driver.open()
        self._loop = self._home = asyncio.get_running_loop()
        await self._opened()
        self._state = "open"
        return self

    async def aclose(self) -> None:
        if self._state == "open":
            await self._drain()
            self._state, self._loop = "closed", None
            await self.driver.close()

    async def _call(
        self, operation: Operation, method: Callable[[Any], Awaitable[Any]], request: Any, *, guarded: bool = True
    ) -> Any:
        return await method(request)


def _owner(request: pytest.FixtureRequest) -> pytest.Class:
    owner = request.node.getparent(pytest.Class)
    assert isinstance(owner, pytest.Class)
    return owner


def _arguments(node: Any, mark: str) -> list[Any]:
    return [argument for found in node.iter_markers(mark) for argument in found.args]
