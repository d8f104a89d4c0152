"""Drivers that keep everything in the memory of the process: for tests, demonstrations and caches."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind

__all__ = ["LOCK", "PUBSUB", "STATE"]

STATE = Descriptor(
    kind=Kind.STATE,
    name="in-memory",
    driver="lapel_contrib.memory.state:MemoryState",
    settings="lapel_contrib.memory.settings:MemoryStateSettings",
    summary="Keys and values in the memory of this process; gone when the component closes.",
    capabilities=Capability.ETAG
    | Capability.TRANSACTIONAL
    | Capability.TTL
    | Capability.QUERY_API
    | Capability.KEYS_LIKE
    | Capability.DELETE_WITH_PREFIX
    | Capability.BULK_STATE
    | Capability.CONTENT_TYPE,
)

LOCK = Descriptor(
    kind=Kind.LOCK,
    name="in-memory",
    driver="lapel_contrib.memory.lock:MemoryLock",
    settings="lapel_contrib.memory.settings:MemoryLockSettings",
    summary="Locks between the tasks of one event loop; gone when the component closes.",
    capabilities=Capability.RENEW | Capability.FENCING_TOKEN,
)

PUBSUB = Descriptor(
    kind=Kind.PUBSUB,
    name="in-memory",
    driver="lapel_contrib.memory.pubsub:MemoryPubSub",
    settings="lapel_contrib.memory.settings:MemoryPubSubSettings",
    summary="Messages between the subscriptions of one component in one process.",
    capabilities=Capability.MESSAGE_TTL
    | Capability.SUBSCRIBE_WILDCARDS
    | Capability.CONSUMER_GROUPS
    | Capability.ORDER_BY_KEY
    | Capability.ORDER_ALL
    | Capability.DELAYED_DELIVERY
    | Capability.DELIVERY_COUNT
    | Capability.ATTRIBUTES
    | Capability.PAUSE,
)
