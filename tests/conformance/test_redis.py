"""The drivers that keep everything in Redis, on each of its shapes."""

from __future__ import annotations

from tests.conformance.redis_subject import COMPONENTS, OnRedis

from lapel.testing import StateSuite


class TestState(OnRedis, StateSuite):
    component = COMPONENTS / "state.redis.yaml"
    backend = "redis_server"


class TestStateDocuments(OnRedis, StateSuite):
    component = COMPONENTS / "state.redis-stack.yaml"
    backend = "redis_stack"


class TestStateCluster(OnRedis, StateSuite):
    component = COMPONENTS / "state.redis-cluster.yaml"
    backend = "redis_cluster"


class TestStateSentinel(OnRedis, StateSuite):
    component = COMPONENTS / "state.redis-sentinel.yaml"
    backend = "redis_sentinel"
