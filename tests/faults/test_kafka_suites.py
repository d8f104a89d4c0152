"""The fault suites on pubsub.kafka and bindings.kafka."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from tests.backends.kafka_fixtures import OwnKafka
from tests.backends.kafka_node import LOOPBACK, OPEN, KafkaOptions
from tests.backends.ports import free_port
from tests.conformance.test_kafka import COMPONENTS

from lapel.testing import BindingFaultSuite, FaultBackend, PubSubFaultSuite

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def broker(pytestconfig: pytest.Config) -> Iterator[FaultBackend]:
    """Provide a broker with two listeners: one sends clients to the proxy, the other one leads past it."""
    own, port, proxy_port = OwnKafka(pytestconfig), free_port(), free_port()
    try:
        kafka = own.cluster(KafkaOptions(port=port, advertised=proxy_port, listeners=OPEN))

        def fields(host: str, port: int) -> Mapping[str, str]:
            brokers = kafka.at("PLAINTEXT" if port == proxy_port else "DIRECT")
            return {**kafka.properties, "brokers": ",".join(brokers), "readTimeout": "2s"}

        def restart() -> None:
            kafka.kill()
            kafka.start()

        yield FaultBackend(host=LOOPBACK, port=port, fields=fields, restart=restart, proxy_port=proxy_port)
    finally:
        own.close()


class OnKafka:
    """Puts the suite on a broker that these tests have for themselves."""

    resends = True

    @pytest.fixture
    def backend(self, broker: FaultBackend) -> FaultBackend:
        return broker


class TestPubSub(OnKafka, PubSubFaultSuite):
    component = COMPONENTS / "pubsub.kafka.yaml"


class TestBinding(OnKafka, BindingFaultSuite):
    component = COMPONENTS / "bindings.kafka.yaml"
