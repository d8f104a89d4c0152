"""pubsub.aws.snssqs, on ordinary topics and on those that keep an order.

SQS hands out a group to one consumer at a time, and the messages behind one that is not settled to nobody; the suite's
tests of bare consumers and of brokers without an order take several without settling any, so FIFO topics do without.
"""

from __future__ import annotations

import pytest
from tests.backends.aws import AwsBackend
from tests.conformance.aws_subject import COMPONENTS, OnAws

from lapel.testing import PubSubSuite
from lapel.testing.pubsub import base
from lapel.testing.pubsub.ordering import OrderingTests

pytestmark = pytest.mark.timeout(240)

SECONDS = 60.0
"""A failed message of SQS comes again after a second at the soonest, and all others of its group wait for it."""


class OnTopics(OnAws):
    """Each test has a consumer group of its own, so that it finds nothing of others in its queue."""

    backend = "aws_server"
    fresh = True

    def prepare(self, backend: AwsBackend, unique: str) -> dict[str, str]:
        return {"consumerID": f"conformance-{unique}"}


class TestTopics(OnTopics, PubSubSuite):
    component = COMPONENTS / "pubsub.aws.snssqs.yaml"


class TestFifoOrder(OnTopics, OrderingTests):
    """Each key is a group."""

    component = COMPONENTS / "pubsub.aws.snssqs-fifo.yaml"


class TestFifoGroupOrder(OnTopics, OrderingTests):
    """All messages are one group."""

    component = COMPONENTS / "pubsub.aws.snssqs-fifo-group.yaml"

    @pytest.fixture(autouse=True)
    def patience(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wait longer where twenty messages fail one after another."""
        if "in_order_across" in request.node.name:
            monkeypatch.setattr(base, "WAIT_SECONDS", SECONDS)
