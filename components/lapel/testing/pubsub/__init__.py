"""The suite of pub/sub."""

from __future__ import annotations

from .bulk import BulkTests
from .deadletter import DeadLetterTests
from .delivery import DeliveryTests
from .groups import GroupTests
from .ordering import OrderingTests

__all__ = ["PubSubSuite"]


class PubSubSuite(DeliveryTests, GroupTests, OrderingTests, BulkTests, DeadLetterTests):
    """What every pub/sub component must show."""
