"""What goes between an application, `ConfigurationStore` and a `ConfigurationDriver`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["ConfigurationEvent", "ConfigurationItem", "GetConfigurationRequest", "WatchRequest"]

NO_METADATA: Mapping[str, str] = {}


class ConfigurationItem(msgspec.Struct, frozen=True):
    """One configuration value. `version` is free text written by the operator, empty when there is none.

    `deleted` is true only in events, for a key that is gone; its value is then empty.
    """

    value: str
    version: str = ""
    metadata: Mapping[str, str] = NO_METADATA
    deleted: bool = False


class ConfigurationEvent(msgspec.Struct, frozen=True):
    """Items that changed since the last event of the subscription `id`."""

    id: str
    items: Mapping[str, ConfigurationItem]


class GetConfigurationRequest(msgspec.Struct, frozen=True):
    """Read items. No `keys` means all."""

    keys: tuple[str, ...] = ()
    metadata: Mapping[str, str] = NO_METADATA


class WatchRequest(msgspec.Struct, frozen=True):
    """Watch keys for changes. No `keys` means all, those created later included."""

    keys: tuple[str, ...] = ()
    metadata: Mapping[str, str] = NO_METADATA
