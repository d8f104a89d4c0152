"""pubsub.aws.snssqs on ordinary topics.

FIFO topics have tests of their own in `tests/faults/test_aws_pubsub.py`: SQS hands out a group to one consumer at a
time, while the suite's tests of bare consumers take several messages without settling any.
"""

from __future__ import annotations

from tests.backends.aws import AwsBackend
from tests.conformance.aws_subject import COMPONENTS, OnAws

from lapel.testing import PubSubSuite


class TestTopics(OnAws, PubSubSuite):
    """Each test has a consumer group of its own, so that it finds nothing of others in its queue."""

    component = COMPONENTS / "pubsub.aws.snssqs.yaml"
    backend = "aws_server"
    fresh = True

    def prepare(self, backend: AwsBackend, unique: str) -> dict[str, str]:
        return {"consumerID": f"conformance-{unique}"}
