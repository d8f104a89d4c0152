"""bindings.aws.sqs, on an ordinary queue and on one that keeps an order."""

from __future__ import annotations

from tests.backends.aws import AwsBackend
from tests.conformance.aws_subject import COMPONENTS, OnAws, client

from lapel.testing import BindingSuite


class OnQueue(OnAws):
    backend = "sqs_server"
    fresh = True
    suffix = ""

    def prepare(self, backend: AwsBackend, unique: str) -> dict[str, str]:
        name = f"conformance-{unique}{self.suffix}"
        attributes = {"VisibilityTimeout": "3"} | ({"FifoQueue": "true"} if self.suffix else {})
        client(backend, "sqs").create_queue(QueueName=name, Attributes=attributes)
        return {"queueName": name}


class TestQueue(OnQueue, BindingSuite):
    component = COMPONENTS / "bindings.aws.sqs.yaml"


class TestFifoQueue(OnQueue, BindingSuite):
    component = COMPONENTS / "bindings.aws.sqs-fifo.yaml"
    suffix = ".fifo"
