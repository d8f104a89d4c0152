"""pubsub.redis on each of its shapes."""

from __future__ import annotations

from tests.conformance.redis_subject import COMPONENTS, OnRedis

from lapel.testing import PubSubSuite


class TestPubSub(OnRedis, PubSubSuite):
    component = COMPONENTS / "pubsub.redis.yaml"
    backend = "redis_server"


class TestPubSubCluster(OnRedis, PubSubSuite):
    component = COMPONENTS / "pubsub.redis-cluster.yaml"
    backend = "redis_cluster"


class TestPubSubSentinel(OnRedis, PubSubSuite):
    component = COMPONENTS / "pubsub.redis-sentinel.yaml"
    backend = "redis_sentinel"
