"""Fixtures that hand real backends to tests. What the selected tests ask for starts in the background at once.

A backend that cannot be had skips the tests that need it; with `CI=true`, or if `REQUIRE` lists it, they fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from .backend import Backend, Facts
from .launcher import Launcher, One, is_required
from .provision import Unavailable
from .redis import RedisBackend, RedisServer
from .redis_groups import RedisCluster, RedisSentinel
from .redis_node import RedisOptions

_SHARED = {
    "redis_server": "redis",
    "redis_tls": "redis-tls",
    "redis_stack": "redis-stack",
    "redis_cluster": "redis-cluster",
    "redis_sentinel": "redis-sentinel",
}
_launcher = pytest.StashKey[Launcher]()


def pytest_runtestloop(session: pytest.Session) -> None:
    """Start what the selected tests ask for while the first of them run."""
    if session.config.option.collectonly:
        return
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    _of(session.config).begin(technology for fixture, technology in _SHARED.items() if fixture in used)


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


def _shared(config: pytest.Config, name: str) -> Backend:
    try:
        return _of(config).get(name)
    except Unavailable as error:
        _missing(name, error)


def _redis(config: pytest.Config, name: str) -> RedisBackend:
    backend = _shared(config, name)
    assert isinstance(backend, RedisBackend)
    return backend


@pytest.fixture(scope="session")
def redis_server(pytestconfig: pytest.Config) -> RedisBackend:
    """A single Redis with a user of its own, shared by the run: use keys of your own."""
    return _redis(pytestconfig, "redis")


@pytest.fixture(scope="session")
def redis_tls(pytestconfig: pytest.Config) -> RedisBackend:
    """The same behind TLS, for clients with a certificate."""
    return _redis(pytestconfig, "redis-tls")


@pytest.fixture(scope="session")
def redis_stack(pytestconfig: pytest.Config) -> RedisBackend:
    """A single Redis with JSON and search, shared by the run."""
    return _redis(pytestconfig, "redis-stack")


@pytest.fixture(scope="session")
def redis_cluster(pytestconfig: pytest.Config) -> RedisBackend:
    """A cluster of three primaries and three replicas, shared by the run."""
    return _redis(pytestconfig, "redis-cluster")


@pytest.fixture(scope="session")
def redis_sentinel(pytestconfig: pytest.Config) -> RedisBackend:
    """A primary and a replica under three sentinels, shared by the run."""
    return _redis(pytestconfig, "redis-sentinel")


class OwnRedis:
    """Makes Redis backends that belong to one test, which may stop, freeze and kill them."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._made: list[Backend] = []

    def server(self, options: RedisOptions | None = None) -> RedisServer:
        """Start a single node."""
        return self._add("redis", lambda folder: RedisServer(folder, options))

    def cluster(self, options: RedisOptions | None = None) -> RedisCluster:
        """Start a cluster of six."""
        return self._add("redis-cluster", lambda folder: RedisCluster(folder, options))

    def sentinel(self, options: RedisOptions | None = None) -> RedisSentinel:
        """Start a primary and a replica under three sentinels."""
        return self._add("redis-sentinel", lambda folder: RedisSentinel(folder, options))

    def close(self) -> None:
        """End them all."""
        while self._made:
            self._launcher.drop(self._made.pop())

    def _add(self, name: str, make: Callable[[Path], One]) -> One:
        try:
            backend = self._launcher.add(make)
        except Unavailable as error:
            _missing(name, error)
        self._made.append(backend)
        return backend


@pytest.fixture
def own_redis(pytestconfig: pytest.Config) -> Iterator[OwnRedis]:
    """Start Redis backends that belong to this test; they end with it."""
    made = OwnRedis(_of(pytestconfig))
    yield made
    made.close()
