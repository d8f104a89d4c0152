"""Settings of the Redis components other than state and pub/sub."""

from __future__ import annotations

from typing import ClassVar

from lapel.bindings.settings import BindingSettings
from lapel.lock.settings import LockSettings

from .settings import RedisConnectionSettings

__all__ = ["RedisBindingSettings", "RedisConfigurationSettings", "RedisLockSettings"]


class RedisConfigurationSettings(RedisConnectionSettings):
    """Settings of configuration.redis."""


class RedisLockSettings(RedisConnectionSettings, LockSettings):
    """Settings of lock.redis."""


class RedisBindingSettings(RedisConnectionSettings, BindingSettings):
    """Settings of bindings.redis."""

    offered_directions: ClassVar[tuple[str, ...]] = ("output",)
