"""Run suites from a program: the `conformance` command, and the tests of the suite itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..errors import ConfigurationError
from .plugin import module_of, recorder_of
from .report import Report
from .suites import suites_for

__all__ = ["run_classes", "run_conformance"]

_ISOLATED = (
    *("--disable-plugin-autoload", "-p", "pytest_asyncio.plugin", "-p", "lapel.testing.plugin"),
    *("-p", "no:cacheprovider", "--import-mode=importlib", "--strict-markers"),
    *("-o", "asyncio_mode=strict", "-o", "asyncio_default_fixture_loop_scope=function"),
)


def run_conformance(
    path: str | os.PathLike[str],
    *,
    json_report: str | os.PathLike[str] | None = None,
    html_report: str | os.PathLike[str] | None = None,
    select: str | None = None,
    progress: bool = False,
) -> Report:
    """Run the suites of all components in a file or folder and return what they found.

    `select` limits the run as pytest's `-k` does. `progress` prints pytest's own output; without it nothing is printed.
    Blocks until the run is over, and must not be called from a running event loop. Raises `ConfigurationError` when the
    files are wrong; a component that does not open is a failure in the report.
    """
    report = run_classes(suites_for(path), arguments=["-k", select] if select else [], progress=progress)
    for target, text in ((json_report, report.to_json), (html_report, report.to_html)):
        if target is not None:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            Path(target).write_text(text(), "utf-8")
    return report


def run_classes(
    classes: Mapping[str, type[Any]],
    *,
    arguments: Sequence[str] = (),
    plugins: Sequence[object] = (),
    progress: bool = False,
) -> Report:
    """Run suite classes in a pytest session of their own, with no configuration or plugins of the surroundings."""
    if not classes:
        raise ConfigurationError("there is no suite to run")
    with tempfile.TemporaryDirectory(prefix="lapel-run-") as name:
        anchor = Path(name).resolve() / "components"
        anchor.touch()
        session = _Session(anchor, classes)
        quiet = [] if progress else ["-p", "no:terminal", "--capture=no"]
        command = [*_ISOLATED, *quiet, f"--rootdir={name}", "-c", os.devnull, *arguments, str(anchor)]
        with _bare_environment():
            code = pytest.main(command, plugins=[session, *plugins])
    report = session.report
    if report is None or code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        report = report or Report()
        report.problem = f"the run did not complete (pytest's exit code {int(code)})"
    return report


@contextmanager
def _bare_environment() -> Iterator[None]:
    """Hide the variables that add to every command line of pytest."""
    hidden = {name: value for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS") if (value := os.environ.pop(name, None))}
    try:
        yield
    finally:
        os.environ.update(hidden)


class _Session:
    def __init__(self, anchor: Path, classes: Mapping[str, type[Any]]) -> None:
        self._anchor = anchor
        self._classes = classes
        self.report: Report | None = None

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
        """Return the classes as a module."""
        return module_of(file_path, parent, dict(self._classes)) if file_path == self._anchor else None

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keep the report."""
        self.report = recorder_of(session.config).report
