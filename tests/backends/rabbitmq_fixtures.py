"""Fixtures that hand RabbitMQ in each of its shapes to tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fixtures import Own, shared
from .rabbitmq import RabbitBackend, RabbitServer
from .rabbitmq_node import RabbitOptions


def _rabbitmq(config: pytest.Config, name: str) -> RabbitBackend:
    backend = shared(config, name)
    assert isinstance(backend, RabbitBackend)
    return backend


@pytest.fixture(scope="session")
def rabbitmq_server(pytestconfig: pytest.Config) -> RabbitBackend:
    """A RabbitMQ with a user of its own, shared by the run: use topics and queues of your own."""
    return _rabbitmq(pytestconfig, "rabbitmq")


@pytest.fixture(scope="session")
def rabbitmq_tls(pytestconfig: pytest.Config) -> RabbitBackend:
    """The same behind TLS, for clients with a certificate, which may log in with it."""
    return _rabbitmq(pytestconfig, "rabbitmq-tls")


class OwnRabbit(Own):
    """Makes RabbitMQ backends that belong to one test, which may stop, freeze and kill them."""

    def server(self, options: RabbitOptions | None = None) -> RabbitServer:
        """Start a node."""
        return self.add("rabbitmq", lambda folder: RabbitServer(folder, options))


@pytest.fixture
def own_rabbitmq(pytestconfig: pytest.Config) -> Iterator[OwnRabbit]:
    """Start RabbitMQ backends that belong to this test; they end with it."""
    made = OwnRabbit(pytestconfig)
    yield made
    made.close()
