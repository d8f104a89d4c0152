"""Configuration: items that operators change while applications run."""

from .driver import ConfigurationDriver, Watcher
from .store import ConfigurationStore
from .types import ConfigurationEvent, ConfigurationItem, GetConfigurationRequest, WatchRequest

__all__ = [
    "ConfigurationDriver",
    "ConfigurationEvent",
    "ConfigurationItem",
    "ConfigurationStore",
    "GetConfigurationRequest",
    "WatchRequest",
    "Watcher",
]
