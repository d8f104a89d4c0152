"""Fields that every binding has, handled above the driver."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ..settings import Settings, setting

__all__ = ["BindingSettings"]


class BindingSettings(Settings):
    """Base of the settings of every binding driver."""

    direction: tuple[str, ...] = setting(
        "direction",
        default=(),
        doc="`input`, `output` or both, comma-separated. Default: what the driver can do.",
        choices=("input", "output"),
    )
    route: str | None = setting("route", default=None, doc="Path at which an application receives the events.")

    offered_directions: ClassVar[tuple[str, ...]] = ("input", "output")
    """What the driver can do; a subclass for one direction narrows it."""

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Refuse a `direction` that the driver does not have."""
        for direction in self.direction:
            if direction not in self.offered_directions:
                yield "direction", f"names {direction}, but this binding has only {self.offered_directions[0]}"
