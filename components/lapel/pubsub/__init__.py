"""Publish and subscribe: messages as CloudEvents or raw bytes, over any broker."""

from ..delivery import Backoff, Consumer, Delivery, Dropped, Ordering, Outcome, Revoked, Settled, Settlement
from .cloudevents import CloudEvent, InvalidEventError
from .driver import PubSubDriver
from .message import Message
from .pubsub import BulkHandler, Handler, PubSub
from .settings import PubSubSettings
from .subscription import Subscription
from .types import BulkPublishRequest, PublishEntry, PublishOutcome, PublishRequest, SubscribeRequest

__all__ = [
    "Backoff",
    "BulkHandler",
    "BulkPublishRequest",
    "CloudEvent",
    "Consumer",
    "Delivery",
    "Dropped",
    "Handler",
    "InvalidEventError",
    "Message",
    "Ordering",
    "Outcome",
    "PubSub",
    "PubSubDriver",
    "PubSubSettings",
    "PublishEntry",
    "PublishOutcome",
    "PublishRequest",
    "Revoked",
    "Settled",
    "Settlement",
    "SubscribeRequest",
    "Subscription",
]
