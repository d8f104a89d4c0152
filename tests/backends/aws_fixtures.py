"""Fixtures that hand emulators of AWS to tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .aws import AwsBackend, MotoServer
from .aws_proxy import AwsProxy, proxy_to
from .elasticmq import ElasticMq
from .fixtures import Own, shared


def _aws(config: pytest.Config, name: str) -> AwsBackend:
    backend = shared(config, name)
    assert isinstance(backend, AwsBackend)
    return backend


@pytest.fixture(scope="session")
def aws_server(pytestconfig: pytest.Config) -> AwsBackend:
    """All services, shared by the run: use queues, topics, buckets and secrets of your own."""
    return _aws(pytestconfig, "aws")


@pytest.fixture(scope="session")
def sqs_server(pytestconfig: pytest.Config) -> AwsBackend:
    """SQS alone, shared by the run: use queues of your own."""
    return _aws(pytestconfig, "sqs")


class OwnAws(Own):
    """Makes emulators that belong to one test, which may stop, freeze and kill them."""

    def moto(self) -> MotoServer:
        """Start one with all services."""
        return self.add("aws", MotoServer)

    def elasticmq(self) -> ElasticMq:
        """Start one with SQS alone."""
        return self.add("sqs", ElasticMq)


@pytest.fixture
def own_aws(pytestconfig: pytest.Config) -> Iterator[OwnAws]:
    """Start emulators of AWS that belong to this test; they end with it."""
    made = OwnAws(pytestconfig)
    yield made
    made.close()


@pytest.fixture
def aws_proxy(aws_server: AwsBackend) -> Iterator[AwsProxy]:
    """Provide a proxy in front of all services."""
    with proxy_to(aws_server.url) as proxy:
        yield proxy


@pytest.fixture
def sqs_proxy(sqs_server: AwsBackend) -> Iterator[AwsProxy]:
    """Provide a proxy in front of SQS."""
    with proxy_to(sqs_server.url) as proxy:
        yield proxy
