"""Wrong drivers, to show that the suite can fail.

A mutant is a subclass of a right driver with one fault. All mutants of a kind run in one session with the original:
each must be killed by the row it names, and the original must pass the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from ..driver import Driver, DriverContext
from ..settings import Settings
from .harness import SuiteBase
from .report import ComponentReport, Status
from .run import run_classes
from .subject import Pins, Subject

__all__ = ["Mutant", "assert_killed", "judge", "judge_classes"]

ORIGINAL = "TestOriginal"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A wrong driver and the row that must catch it."""

    driver: type[Driver[Any]]
    row: str

    @property
    def id(self) -> str:
        """The name of the fault, for use as a test id."""
        return self.driver.__name__


def judge(
    suite: type[SuiteBase],
    original: type[Driver[Any]],
    settings: Settings,
    mutants: Iterable[Mutant],
    *,
    pins: Pins | None = None,
) -> Mapping[str, ComponentReport]:
    """Run the tests of the rows named on the original and on each mutant; return the outcomes by class name.

    Every instance is built with `settings`. Blocks; not for a running event loop.
    """

    def make(name: str, driver: type[Driver[Any]]) -> type[SuiteBase]:
        return _class(name, suite, driver, settings, pins)

    return judge_classes(make, original, mutants)


def judge_classes(
    make: Callable[[str, type[Driver[Any]]], type[SuiteBase]],
    original: type[Driver[Any]],
    mutants: Iterable[Mutant],
) -> Mapping[str, ComponentReport]:
    """Do what `judge` does with suite classes of one's own: `make` returns that of a name and a driver class."""
    wanted = list(mutants)
    classes = {ORIGINAL: make(ORIGINAL, original)}
    rows = {ORIGINAL: {mutant.row for mutant in wanted}}
    for mutant in wanted:
        name = f"Test{mutant.driver.__name__}"
        classes[name] = make(name, mutant.driver)
        rows[name] = {*rows.get(name, ()), mutant.row}
    report = run_classes(classes, plugins=[_OnlyRows(rows)])
    assert report.problem is None, report.problem
    return {key.rpartition("::")[2]: component for key, component in report.components.items()}


def assert_killed(outcomes: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    """Fail unless the mutant failed a test of its row that the original passed, and the original failed none of it."""
    original = [result for result in outcomes[ORIGINAL].results if mutant.row in result.rows]
    faults = [f"{result.test}: {result.detail}" for result in original if result.status is Status.FAILED]
    assert not faults, f"the original fails {mutant.row}:\n" + "\n".join(faults)
    proved = {result.test for result in original if result.status in (Status.PROVED, Status.REFUSED)}
    assert proved, f"no test of {mutant.row} ran on the original"
    failed = outcomes[f"Test{mutant.driver.__name__}"].of(Status.FAILED)
    killed = {result.test for result in failed if mutant.row in result.rows}
    assert killed & proved, f"{mutant.driver.__name__} survived {mutant.row}"


def _class(
    name: str, suite: type[SuiteBase], driver: type[Driver[Any]], settings: Settings, pins: Pins | None
) -> type[SuiteBase]:
    def make(context: DriverContext) -> Driver[Any]:
        return driver(settings, context)

    one = Subject(driver.__name__, make, pins=pins)

    @pytest.fixture
    def subject(self: SuiteBase) -> Subject:
        return one

    return type(name, (suite,), {"subject": subject, "__module__": "lapel_mutants"})


class _OnlyRows:
    def __init__(self, rows: Mapping[str, set[str]]) -> None:
        self._rows = rows

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests that carry a wanted row."""
        items[:] = [item for item in items if self._rows[_class_name(item)] & _rows(item)]


def _class_name(item: pytest.Item) -> str:
    owner = item.getparent(pytest.Class)
    assert owner is not None
    return owner.name


def _rows(item: pytest.Item) -> set[str]:
    return {row for mark in item.iter_markers("lapel_row") for row in mark.args}
