"""The pytest plugin: options, marks, tests from component files, and the report.

It loads in every pytest run of an environment that has lapel, so it imports no driver and no suite, has no
fixture, and does nothing unless a suite runs.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .report import Report

__all__ = ["DECLARED", "NOT_DECLARED", "ComponentFiles", "Recorder", "module_of", "recorder_of"]

_MARKS = (
    "lapel_row(*ids): the rows of the conformance table that the test carries",
    "lapel_needs(*capabilities): the capabilities without which the test does not apply",
    "lapel_lacks(*capabilities): the test shows that these capabilities are refused where they are not declared",
)
_RECORDER = "lapel-recorder"

NOT_DECLARED = "not declared: "
"""How the reason of a skip begins when the component lacks a flag that the test needs."""
DECLARED = "declared: "
"""How it begins when a test of a refusal meets a component that declares the flag."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the conformance suite."""
    group = parser.getgroup("lapel", "conformance suite for lapel drivers")
    group.addoption(
        "--lapel-component",
        action="append",
        default=[],
        metavar="FILE",
        help="run the conformance suite on the components of this file; may be given several times",
    )
    group.addoption("--lapel-report-json", metavar="FILE", help="write the conformance report as JSON")
    group.addoption("--lapel-report-html", metavar="FILE", help="write the conformance report as one HTML page")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and collect component files."""
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)
    from .suites import SUITE_PACKAGES

    pytest.register_assert_rewrite(*SUITE_PACKAGES, "lapel.testing.lifecycle", "lapel.testing.faults")
    config.pluginmanager.register(Recorder(config), _RECORDER)
    if chosen := config.getoption("--lapel-component"):
        paths = [Path(name).resolve() for name in chosen]
        if missing := [str(path) for path in paths if not path.is_file()]:
            raise pytest.UsageError(f"--lapel-component: no such file: {', '.join(missing)}")
        config.pluginmanager.register(ComponentFiles(paths))
        given = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [*given, *map(str, paths)]


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Count tests that are not about the component apart from those that were skipped for another reason."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith(NOT_DECLARED):
            return "not declared", "-", "NOT DECLARED"
        if reason.startswith(DECLARED):
            return "not applicable", "-", "NOT APPLICABLE"
    return None


class ComponentFiles:
    """Collects component files as modules of suite classes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = set(paths)

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
        """Return the tests of a chosen file."""
        if file_path not in self._paths:
            return None
        from ..errors import LapelError
        from .suites import suites_for

        try:
            return module_of(file_path, parent, suites_for(file_path))
        except LapelError as exc:
            raise pytest.UsageError(str(exc)) from exc


def module_of(path: Path, parent: pytest.Collector, classes: dict[str, Any]) -> pytest.Module:
    """Return a collector that stands for `path` and holds the classes given."""
    module = ModuleType("lapel_components")
    vars(module).update(classes)
    collector = pytest.Module.from_parent(parent, path=path)
    collector.obj = module
    return collector


class Recorder:
    """Gathers the outcomes of suite tests into a report."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._report: Report | None = None

    @property
    def report(self) -> Report:
        """What ran so far."""
        from .report import Report

        if self._report is None:
            self._report = Report()
        return self._report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note the outcome of a suite test."""
        outcome = yield
        owner = item.getparent(pytest.Class)
        if isinstance(owner, pytest.Class) and getattr(owner.obj, "lapel_suite", False):
            self.report.note(item, owner, outcome)
        return outcome

    def pytest_sessionfinish(self) -> None:
        """Write the reports asked for."""
        for option, form in (("--lapel-report-json", "to_json"), ("--lapel-report-html", "to_html")):
            if name := self._config.getoption(option):
                path = Path(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(getattr(self.report, form)(), "utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what was declared, proved, refused and failed."""
        if self._report is not None:
            terminalreporter.section("conformance")
            for line in self._report.lines():
                terminalreporter.line(line)


def recorder_of(config: pytest.Config) -> Recorder:
    """Return the recorder of a session."""
    recorder = config.pluginmanager.get_plugin(_RECORDER)
    assert isinstance(recorder, Recorder)
    return recorder
