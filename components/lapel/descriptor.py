"""What a driver is and can do, known without importing its SDK.

An entry point of a group `lapel.<kind>` resolves to a `Descriptor`. The driver class, and with it the SDK, is
imported only when a component is opened.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, StrEnum, auto
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["DRIVER_API", "Capability", "Descriptor", "Kind", "Limits", "capability_names"]

DRIVER_API = 1
"""The version of the contract between lapel and drivers. A driver built for another one is refused."""


class Kind(StrEnum):
    """The seven building blocks; the value is the prefix of the type in component files."""

    STATE = "state"
    PUBSUB = "pubsub"
    BINDINGS = "bindings"
    SECRETSTORES = "secretstores"
    CONFIGURATION = "configuration"
    LOCK = "lock"
    CRYPTO = "crypto"


class Capability(Flag):
    """What a driver may offer beyond the minimum of its kind.

    A driver declares the flags in its descriptor; `open` may withdraw some with a reason and never adds one.
    A call that needs a missing flag raises `UnsupportedError` before anything is sent. Names shared with Dapr
    mean what they mean there.
    """

    # state
    ETAG = auto()
    """`get` returns an etag; `set` and `delete` compare it; first-write creates only."""
    TRANSACTIONAL = auto()
    """`transaction` is all or nothing, over any keys."""
    SAME_SLOT_TRANSACTIONAL = auto()
    """`transaction` is all or nothing for keys of one hash slot; others are refused."""
    TTL = auto()
    """Items can expire; expired ones are invisible at once and `expires_at` is returned."""
    QUERY_API = auto()
    """`query` filters, sorts and pages JSON values."""
    KEYS_LIKE = auto()
    """`keys` lists keys by LIKE pattern."""
    DELETE_WITH_PREFIX = auto()
    """`delete_with_prefix` removes the keys directly below a prefix."""
    PARTITION_KEY = auto()
    """Request metadata `partitionKey` limits a query to one partition."""
    BULK_STATE = auto()
    """Bulk get, set and delete are native: one or few round trips."""
    CONTENT_TYPE = auto()
    """The content type given to `set` comes back with `get`."""
    STRONG_CONSISTENCY = auto()
    """`consistency="strong"` changes what is waited for; elsewhere every acknowledged write is already strong."""

    # publish/subscribe
    MESSAGE_TTL = auto()
    """The broker drops messages whose time to live has passed."""
    SUBSCRIBE_WILDCARDS = auto()
    """Topics may be patterns in the broker's own syntax."""
    BULK_PUBSUB = auto()
    """`bulk_publish` is native."""
    BULK_SUBSCRIBE_IMMEDIATE = auto()
    """Bulk subscriptions hand over what is there instead of waiting for a full batch."""
    CONSUMER_GROUPS = auto()
    """Subscribers with one `consumerID` share the messages; different ids get all of them."""
    DURABLE = auto()
    """Messages published while nobody is connected are kept for a group that exists."""
    ORDER_BY_KEY = auto()
    """`ordering="key"` holds across all members of a consumer group."""
    ORDER_ALL = auto()
    """`ordering="all"` holds across all members of a consumer group."""
    DEAD_LETTER = auto()
    """The broker moves messages to a dead-letter topic by itself; elsewhere lapel publishes them there."""
    DELAYED_DELIVERY = auto()
    """A message can be published now and delivered later."""
    DELIVERY_COUNT = auto()
    """The broker counts attempts, across processes and restarts; elsewhere the count is per process."""
    ATTRIBUTES = auto()
    """Publish metadata reaches the subscriber."""
    PAUSE = auto()
    """Intake can be stopped without leaving the group."""
    PRIORITY = auto()
    """Request metadata `priority` is honoured."""

    # bindings
    INPUT = auto()
    """The binding delivers events to a handler."""
    OUTPUT = auto()
    """The binding can be invoked."""
    REPLY = auto()
    """The handler's return value is sent back to the source of the event."""
    REDELIVERY = auto()
    """An event whose handler failed is delivered again."""

    # secret stores
    MULTIPLE_KEY_VALUES_PER_SECRET = auto()
    """One secret may hold several fields."""
    BULK_SECRETS = auto()
    """All secrets can be read in one call."""
    SECRET_VERSIONS = auto()
    """Request metadata `version_id` selects an older version."""

    # configuration stores
    WATCH = auto()
    """Changes are delivered to subscribers."""

    # locks
    RENEW = auto()
    """A held lock can be extended by its owner."""
    FENCING_TOKEN = auto()
    """Each acquisition returns a number greater than all before it for that resource."""

    # cryptography
    DOCUMENTS = auto()
    """`encrypt` and `decrypt` of documents of any length (Dapr's scheme version 1)."""
    PUBLIC_KEYS = auto()
    """`subtle.get_key` returns the public part of asymmetric keys."""
    SIGNATURES = auto()
    """`subtle.sign` and `subtle.verify`."""


def capability_names(capabilities: Capability) -> list[str]:
    """Return the names of the flags that are set, in the order of declaration."""
    return [flag.name for flag in Capability if flag in capabilities and flag.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Numbers that a backend imposes. None means no limit of its own. Sizes are in bytes."""

    key_bytes: int | None = None
    """Longest key, in bytes of UTF-8, prefix included."""
    value_bytes: int | None = None
    """Largest value, message or payload."""
    transaction_operations: int | None = None
    """Most operations in one transaction."""
    bulk_items: int | None = None
    """Most items in one native bulk call; lapel splits larger ones."""
    ttl_seconds: int = 2**31 - 1
    """Longest time to live."""
    delay_seconds: int | None = None
    """Longest delay of a delayed delivery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """The catalogue entry of one driver.

    `name` is the type without its kind (`redis`, `aws.sqs`); `aliases` are further names under which Dapr
    knows it. `version` is `v1` unless the entry point ends in `/v2`. `driver` and `settings` are `"module:Class"`; the
    settings module must not import the SDK. `extra` is the
    extra of `distribution` that brings the SDK, or None when nothing further is needed. `capabilities` and
    `limits` are what the driver offers at best. `operations` are those of an output binding. `algorithms`
    are those of a crypto provider, by operation (`encrypt`, `wrap`, `sign`).
    """

    kind: Kind
    name: str
    driver: str
    settings: str
    summary: str
    version: str = "v1"
    aliases: tuple[str, ...] = ()
    capabilities: Capability = Capability(0)
    limits: Limits = field(default_factory=Limits)
    operations: tuple[str, ...] = ()
    algorithms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extra: str | None = None
    distribution: str = "lapel"
    driver_api: int = DRIVER_API

    @property
    def type(self) -> str:
        """The type as component files write it, for example `state.sqlite`."""
        return f"{self.kind.value}.{self.name}"

    def settings_model(self) -> builtins.type[Settings]:
        """Import and return the settings class. Never imports the SDK."""
        module, _, name = self.settings.partition(":")
        return cast("type[Settings]", getattr(import_module(module), name))
