"""Fixtures that hand Kafka in each of its shapes to tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fixtures import Own, shared
from .kafka import KafkaBackend, KafkaCluster
from .kafka_node import KafkaOptions


@pytest.fixture(scope="session")
def kafka_server(pytestconfig: pytest.Config) -> KafkaBackend:
    """One broker without a login, shared by the run: use topics and groups of your own."""
    backend = shared(pytestconfig, "kafka")
    assert isinstance(backend, KafkaBackend)
    return backend


@pytest.fixture(scope="session")
def kafka_secure(pytestconfig: pytest.Config) -> KafkaCluster:
    """One broker with a listener for each kind of login and encryption, shared by the run."""
    backend = shared(pytestconfig, "kafka-secure")
    assert isinstance(backend, KafkaCluster)
    return backend


class OwnKafka(Own):
    """Makes Kafkas that belong to one test, which may stop, freeze and kill them or one of their nodes."""

    def cluster(self, options: KafkaOptions | None = None) -> KafkaCluster:
        """Start one broker, or as many as the options say."""
        return self.add("kafka", lambda folder: KafkaCluster(folder, options))


@pytest.fixture
def own_kafka(pytestconfig: pytest.Config) -> Iterator[OwnKafka]:
    """Start Kafkas that belong to this test; they end with it."""
    made = OwnKafka(pytestconfig)
    yield made
    made.close()
