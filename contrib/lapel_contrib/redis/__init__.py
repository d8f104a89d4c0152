"""Drivers that keep their data in Redis, or in what speaks its protocol."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind, Limits

__all__ = ["BINDING", "CONFIGURATION", "LOCK", "PUBSUB", "STATE"]

STATE = Descriptor(
    kind=Kind.STATE,
    name="redis",
    driver="lapel_contrib.redis.state:RedisState",
    settings="lapel_contrib.redis.settings:RedisStateSettings",
    summary="Keys and values in Redis, in Dapr's layout: single node, sentinel or cluster.",
    capabilities=Capability.ETAG
    | Capability.TRANSACTIONAL
    | Capability.SAME_SLOT_TRANSACTIONAL
    | Capability.TTL
    | Capability.QUERY_API
    | Capability.KEYS_LIKE
    | Capability.BULK_STATE
    | Capability.STRONG_CONSISTENCY,
    # Redis' own limit of a text. A transaction is one script, during which the server does nothing else.
    limits=Limits(
        key_bytes=512 * 1024 * 1024,
        value_bytes=512 * 1024 * 1024,
        transaction_operations=1000,
        bulk_items=1000,
    ),
    extra="redis",
)

CONFIGURATION = Descriptor(
    kind=Kind.CONFIGURATION,
    name="redis",
    driver="lapel_contrib.redis.configuration:RedisConfiguration",
    settings="lapel_contrib.redis.component_settings:RedisConfigurationSettings",
    summary="Configuration in texts of Redis, watched through keyspace notifications.",
    capabilities=Capability.WATCH,
    extra="redis",
)

LOCK = Descriptor(
    kind=Kind.LOCK,
    name="redis",
    driver="lapel_contrib.redis.lock:RedisLock",
    settings="lapel_contrib.redis.component_settings:RedisLockSettings",
    summary="Locks in Redis that exclude Dapr's sidecars too, with fencing tokens.",
    capabilities=Capability.RENEW | Capability.FENCING_TOKEN,
    # More would hold up the shared connection.
    limits=Limits(key_bytes=16 * 1024),
    extra="redis",
)

BINDING = Descriptor(
    kind=Kind.BINDINGS,
    name="redis",
    driver="lapel_contrib.redis.binding:RedisBinding",
    settings="lapel_contrib.redis.component_settings:RedisBindingSettings",
    summary="Texts and counters in Redis: create, get, delete, increment.",
    capabilities=Capability.OUTPUT,
    operations=("create", "get", "delete", "increment"),
    extra="redis",
)

PUBSUB = Descriptor(
    kind=Kind.PUBSUB,
    name="redis",
    driver="lapel_contrib.redis.pubsub:RedisPubSub",
    settings="lapel_contrib.redis.pubsub_settings:RedisPubSubSettings",
    summary="Streams of Redis with consumer groups, in Dapr's layout: single node, sentinel or cluster.",
    capabilities=Capability.CONSUMER_GROUPS
    | Capability.DURABLE
    | Capability.DELIVERY_COUNT
    | Capability.ATTRIBUTES
    | Capability.PAUSE,
    # Redis' own limit of a text.
    limits=Limits(value_bytes=512 * 1024 * 1024),
    extra="redis",
)
