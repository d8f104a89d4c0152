"""Fixtures that hand Redis in each of its shapes to tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fixtures import Own, shared
from .redis import RedisBackend, RedisServer
from .redis_groups import RedisCluster, RedisSentinel
from .redis_node import RedisOptions


def _redis(config: pytest.Config, name: str) -> RedisBackend:
    backend = shared(config, name)
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


class OwnRedis(Own):
    """Makes Redis backends that belong to one test, which may stop, freeze and kill them."""

    def server(self, options: RedisOptions | None = None) -> RedisServer:
        """Start a single node."""
        return self.add("redis", lambda folder: RedisServer(folder, options))

    def cluster(self, options: RedisOptions | None = None) -> RedisCluster:
        """Start a cluster of six."""
        return self.add("redis-cluster", lambda folder: RedisCluster(folder, options))

    def sentinel(self, options: RedisOptions | None = None) -> RedisSentinel:
        """Start a primary and a replica under three sentinels."""
        return self.add("redis-sentinel", lambda folder: RedisSentinel(folder, options))


@pytest.fixture
def own_redis(pytestconfig: pytest.Config) -> Iterator[OwnRedis]:
    """Start Redis backends that belong to this test; they end with it."""
    made = OwnRedis(pytestconfig)
    yield made
    made.close()
