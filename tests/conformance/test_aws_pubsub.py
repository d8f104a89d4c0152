"""pubsub.aws.snssqs, on ordinary topics and on those that keep an order."""

from __future__ import annotations

from tests.backends.aws import AwsBackend
from tests.conformance.aws_subject import COMPONENTS, OnAws

from lapel.testing import PubSubSuite


class OnTopics(OnAws):
    """Each test has a consumer group of its own, so that it finds nothing of others in its queue."""

    backend = "aws_server"
    fresh = True

    def prepare(self, backend: AwsBackend, unique: str) -> dict[str, str]:
        return {"consumerID": f"conformance-{unique}"}


class TestTopics(OnTopics, PubSubSuite):
    component = COMPONENTS / "pubsub.aws.snssqs.yaml"


class TestFifoTopics(OnTopics, PubSubSuite):
    component = COMPONENTS / "pubsub.aws.snssqs-fifo.yaml"
