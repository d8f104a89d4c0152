"""The class that authors of configuration store drivers subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from ..driver import Driver, SettingsT
from ..errors import UnsupportedError
from .types import ConfigurationItem, GetConfigurationRequest, WatchRequest

__all__ = ["ConfigurationDriver", "Watcher"]


class Watcher(ABC):
    """A sign that keys may have changed. The store reads and compares; a watcher only has to wake it up."""

    @abstractmethod
    async def changed(self) -> None:
        """Return when something may have changed since the last return, or since `watch`.

        No change after `watch` returned may be missed; waking up once too often is harmless. Safe to cancel.
        Raises `UnavailableError` when the connection is lost; the store then closes this watcher and makes another.
        """

    @abstractmethod
    async def close(self) -> None:
        """Stop watching. Bounded and idempotent."""


class ConfigurationDriver(Driver[SettingsT]):
    """A store of configuration items, read-only for applications."""

    @abstractmethod
    async def get(self, request: GetConfigurationRequest) -> Mapping[str, ConfigurationItem]:
        """Return the items that exist, by key; unknown keys are left out."""

    async def watch(self, request: WatchRequest) -> Watcher:
        """Return an armed watcher. Only called with `WATCH`."""
        raise UnsupportedError("is declared but not implemented", driver=self.descriptor.type, operation="watch")
