"""The suite of pub/sub."""

from __future__ import annotations

from ..lifecycle import ComponentSuite
from .bulk import BulkTests
from .consumer import ConsumerTests
from .deadletter import DeadLetterTests
from .delivery import DeliveryTests
from .flow import FlowTests
from .groups import GroupTests
from .lifetimes import LifetimeTests
from .ordering import OrderingTests
from .payloads import PayloadTests

__all__ = ["PubSubSuite"]


class PubSubSuite(
    DeliveryTests,
    GroupTests,
    OrderingTests,
    BulkTests,
    DeadLetterTests,
    PayloadTests,
    LifetimeTests,
    FlowTests,
    ConsumerTests,
    ComponentSuite,
):
    """What every pub/sub component must show.

    Options of the Conformance document: `shared: "true"` when two components with the same settings exchange messages;
    `newGroup: beginning` when a new group also gets what was published before it; `contentType: "false"` when the
    broker carries none with raw messages; `pendingLimit`, how many messages may wait for a group before publish waits;
    `wildcards`, a list of patterns, each with topics that match (`matching`) and that do not (`strangers`), in all of
    which `TOPIC` is replaced by a name of its own; `oneActive: "true"` when of a group that keeps an order only one
    member works at a time.
    """
