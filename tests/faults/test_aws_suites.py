"""The fault suite on bindings.aws.sqs, without its restart: ElasticMQ serves again before it has its queues back."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from tests.backends.aws import AwsBackend
from tests.conformance.aws_subject import COMPONENTS, client

from lapel.testing import BindingFaultSuite, FaultBackend

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


class TestQueue(BindingFaultSuite):
    component = COMPONENTS / "bindings.aws.sqs.yaml"

    @pytest.fixture
    def backend(self, sqs_server: AwsBackend) -> FaultBackend:
        queue = f"faults-{uuid4().hex[:12]}"
        client(sqs_server, "sqs").create_queue(QueueName=queue)
        place = urlsplit(sqs_server.url)
        assert place.hostname is not None
        assert place.port is not None

        def fields(host: str, port: int) -> Mapping[str, str]:
            return {**sqs_server.properties, "endpoint": f"http://{host}:{port}", "queueName": queue}

        return FaultBackend(host=place.hostname, port=place.port, fields=fields)
