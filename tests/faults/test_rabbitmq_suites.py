"""The fault suites on pubsub.rabbitmq and bindings.rabbitmq."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from tests.backends.rabbitmq_fixtures import OwnRabbit
from tests.conformance.test_rabbitmq import COMPONENTS

from lapel.testing import BindingFaultSuite, FaultBackend, PubSubFaultSuite

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def broker(pytestconfig: pytest.Config) -> Iterator[FaultBackend]:
    own = OwnRabbit(pytestconfig)
    try:
        server = own.server()

        def fields(host: str, port: int) -> Mapping[str, str]:
            return server.address.through(host, port).properties

        def restart() -> None:
            server.kill()
            server.start()

        yield FaultBackend(host=server.address.host, port=server.address.port, fields=fields, restart=restart)
    finally:
        own.close()


class OnRabbit:
    """Puts the suite on a broker that these tests have for themselves."""

    @pytest.fixture
    def backend(self, broker: FaultBackend) -> FaultBackend:
        return broker


class TestPubSub(OnRabbit, PubSubFaultSuite):
    component = COMPONENTS / "pubsub.rabbitmq.yaml"


class TestBinding(OnRabbit, BindingFaultSuite):
    component = COMPONENTS / "bindings.rabbitmq.yaml"
