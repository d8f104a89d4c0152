"""Fields that every lock store has, handled above the driver."""

from __future__ import annotations

from collections.abc import Iterable

from ..keyprefix import check_strategy
from ..settings import Settings, setting

__all__ = ["LockSettings"]


class LockSettings(Settings):
    """Base of the settings of every lock driver."""

    key_prefix: str = setting(
        "keyPrefix",
        default="appid",
        doc="What goes before every resource id when an app id is given: `appid`, `name`, `none` or other text.",
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the key prefix."""
        yield from super().check()
        yield from check_strategy(self.key_prefix)
