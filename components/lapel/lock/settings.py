"""Fields that every lock store has, handled above the driver."""

from __future__ import annotations

from ..settings import Settings, setting

__all__ = ["LockSettings"]


class LockSettings(Settings):
    """Base of the settings of every lock driver."""

    key_prefix: str = setting(
        "keyPrefix",
        default="appid",
        doc="What goes before every resource id when an app id is given: `appid`, `name`, `none` or other text.",
    )
