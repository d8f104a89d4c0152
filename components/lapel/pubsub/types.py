"""What goes between an application, `PubSub` and a `PubSubDriver`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..delivery import Ordering
from ..delivery.consumer import Revoked
from ..errors import LapelError

__all__ = ["BulkPublishRequest", "PublishEntry", "PublishOutcome", "PublishRequest", "SubscribeRequest"]

NO_METADATA: Mapping[str, str] = {}


class PublishRequest(msgspec.Struct, frozen=True):
    """Publish one message; `data` is final, any envelope is around it already.

    `key` orders (and partitions) messages, None for no order. `ttl` and `delay` are seconds and come only with
    `MESSAGE_TTL` and `DELAYED_DELIVERY`. `content_type` is that of `data`. `dead_letter`: this is a message that was
    given up, which stays until it is read; a component's own default for `ttl` does not hold for it.
    """

    topic: str
    data: bytes
    content_type: str | None = None
    key: str | None = None
    ttl: float | None = None
    delay: float | None = None
    metadata: Mapping[str, str] = NO_METADATA
    dead_letter: bool = False


class BulkPublishRequest(msgspec.Struct, frozen=True):
    """Publish several messages to one topic, in order as far as the broker keeps it."""

    topic: str
    entries: tuple[PublishRequest, ...]
    metadata: Mapping[str, str] = NO_METADATA


class SubscribeRequest(msgspec.Struct, frozen=True):
    """Arm one subscription.

    `group` is the `consumerID`: consumers of one group share the messages of the topic, each group gets all.
    `prefetch` is how many deliveries the dispatcher means to hold at once. `revoked` is to be called when deliveries
    are taken away (a rebalance).
    """

    topic: str
    group: str
    ordering: Ordering
    prefetch: int
    revoked: Revoked
    metadata: Mapping[str, str] = NO_METADATA


class PublishEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One message of `bulk_publish`; the fields mean what they mean in `PubSub.publish`.

    `entry_id` None is numbered by lapel; ids of one call must differ.
    """

    data: Any
    entry_id: str | None = None
    content_type: str | None = None
    key: str | None = None
    metadata: Mapping[str, str] = NO_METADATA


class PublishOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one entry of `bulk_publish`: the broker has stored it unless `error` is set."""

    entry_id: str
    error: LapelError | None = None
