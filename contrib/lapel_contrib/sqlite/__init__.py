"""Drivers that keep their data in a SQLite file."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind, Limits

__all__ = ["CONFIGURATION", "LOCK", "PUBSUB", "STATE"]

STATE = Descriptor(
    kind=Kind.STATE,
    name="sqlite",
    aliases=("sqlite3",),
    driver="lapel_contrib.sqlite.state:SqliteState",
    settings="lapel_contrib.sqlite.settings:SqliteStateSettings",
    summary="Keys and values in a SQLite file, in Dapr's layout.",
    capabilities=Capability.ETAG
    | Capability.TRANSACTIONAL
    | Capability.TTL
    | Capability.QUERY_API
    | Capability.KEYS_LIKE
    | Capability.DELETE_WITH_PREFIX
    | Capability.BULK_STATE,
    # SQLite takes a billion bytes in a row, and base64 makes four of three.
    limits=Limits(value_bytes=512 * 1024 * 1024, bulk_items=1000),
)

CONFIGURATION = Descriptor(
    kind=Kind.CONFIGURATION,
    name="sqlite",
    driver="lapel_contrib.sqlite.configuration:SqliteConfiguration",
    settings="lapel_contrib.sqlite.settings:SqliteConfigurationSettings",
    summary="Configuration in a table of a SQLite file, watched for changes by any process.",
    capabilities=Capability.WATCH,
)

LOCK = Descriptor(
    kind=Kind.LOCK,
    name="sqlite",
    driver="lapel_contrib.sqlite.lock:SqliteLock",
    settings="lapel_contrib.sqlite.settings:SqliteLockSettings",
    summary="Locks between the processes of one machine, in a table of a SQLite file.",
    capabilities=Capability.RENEW | Capability.FENCING_TOKEN,
)

PUBSUB = Descriptor(
    kind=Kind.PUBSUB,
    name="sqlite",
    driver="lapel_contrib.sqlite.pubsub:SqlitePubSub",
    settings="lapel_contrib.sqlite.settings:SqlitePubSubSettings",
    summary="Durable messages between the processes of one machine, in a SQLite file.",
    capabilities=Capability.BULK_PUBSUB
    | Capability.CONSUMER_GROUPS
    | Capability.DURABLE
    | Capability.MESSAGE_TTL
    | Capability.DELAYED_DELIVERY
    | Capability.DELIVERY_COUNT
    | Capability.ORDER_BY_KEY
    | Capability.ORDER_ALL
    | Capability.ATTRIBUTES
    | Capability.PAUSE,
    # The default of maxMessageBytes.
    limits=Limits(value_bytes=16 * 1024 * 1024, bulk_items=1000),
)
