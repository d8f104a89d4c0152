"""Configuration, locks and the binding in Redis, on each of its shapes."""

from __future__ import annotations

import pytest
from tests.conformance.redis_subject import COMPONENTS, OnRedis

from lapel.configuration import ConfigurationItem
from lapel.testing import BindingSuite, ConfigurationSuite, LockSuite
from lapel.testing.configuration import ConfigurationWriter
from lapel.testing.configuration.base import SEED

# Configuration first: on a cluster it reads the texts of all others too, and those of locks expire.


class Seeded(OnRedis):
    @pytest.fixture(autouse=True)
    def seed(self, writer: ConfigurationWriter) -> None:
        writer.put({SEED: ConfigurationItem("seeded")})


class TestConfiguration(Seeded, ConfigurationSuite):
    component = COMPONENTS / "configuration.redis.yaml"
    backend = "redis_server"


class TestConfigurationCluster(Seeded, ConfigurationSuite):
    component = COMPONENTS / "configuration.redis-cluster.yaml"
    backend = "redis_cluster"


class TestConfigurationSentinel(Seeded, ConfigurationSuite):
    component = COMPONENTS / "configuration.redis-sentinel.yaml"
    backend = "redis_sentinel"


class TestLock(OnRedis, LockSuite):
    component = COMPONENTS / "lock.redis.yaml"
    backend = "redis_server"


class TestLockCluster(OnRedis, LockSuite):
    component = COMPONENTS / "lock.redis-cluster.yaml"
    backend = "redis_cluster"


class TestLockSentinel(OnRedis, LockSuite):
    component = COMPONENTS / "lock.redis-sentinel.yaml"
    backend = "redis_sentinel"


class TestBinding(OnRedis, BindingSuite):
    component = COMPONENTS / "bindings.redis.yaml"
    backend = "redis_server"


class TestBindingCluster(OnRedis, BindingSuite):
    component = COMPONENTS / "bindings.redis-cluster.yaml"
    backend = "redis_cluster"


class TestBindingSentinel(OnRedis, BindingSuite):
    component = COMPONENTS / "bindings.redis-sentinel.yaml"
    backend = "redis_sentinel"
