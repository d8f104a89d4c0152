"""What hands real backends to tests; the fixtures themselves are in a module for each technology.

What the selected tests ask for starts in the background at once. A backend that cannot be had skips the tests that
need it; with `CI=true`, or if `REQUIRE` lists it, they fail.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from .backend import Backend, Facts
from .launcher import Launcher, One, is_required, technologies
from .provision import Unavailable

_launcher = pytest.StashKey[Launcher]()


def pytest_runtestloop(session: pytest.Session) -> None:
    """Start what the selected tests ask for while the first of them run."""
    if session.config.option.collectonly:
        return
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    _of(session.config).begin(name for name, technology in technologies().items() if technology.fixture in used)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the tests ran against."""
    launcher = config.stash.get(_launcher, None)
    for name, found in ({} if launcher is None else launcher.ready()).items():
        what = f"{found.nature} {found.version}, {found.origin}" if isinstance(found, Facts) else f"missing: {found}"
        terminalreporter.write_line(f"backend {name}: {what}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what was started, however the run ended."""
    if launcher := config.stash.get(_launcher, None):
        launcher.close()


def _of(config: pytest.Config) -> Launcher:
    if _launcher not in config.stash:
        config.stash[_launcher] = Launcher()
    return config.stash[_launcher]


def _missing(name: str, error: Unavailable) -> NoReturn:
    if is_required(name):
        pytest.fail(f"backend {name}: {error}", pytrace=False)
    pytest.skip(f"backend {name}: {error}")


def shared(config: pytest.Config, name: str) -> Backend:
    """Return the backend of this technology that the whole run shares; skip or fail the test if it cannot be had."""
    try:
        return _of(config).get(name)
    except Unavailable as error:
        _missing(name, error)


class Own:
    """Makes backends that belong to one test, which may stop, freeze and kill them."""

    def __init__(self, config: pytest.Config) -> None:
        self._launcher = _of(config)
        self._made: list[Backend] = []

    def add(self, name: str, make: Callable[[Path], One]) -> One:
        """Start one of the technology `name`; skip or fail the test if it cannot be had."""
        try:
            backend = self._launcher.add(make)
        except Unavailable as error:
            _missing(name, error)
        self._made.append(backend)
        return backend

    def close(self) -> None:
        """End them all."""
        while self._made:
            self._launcher.drop(self._made.pop())
