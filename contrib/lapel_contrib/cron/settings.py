"""Settings of bindings.cron."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from lapel.bindings.settings import BindingSettings
from lapel.errors import InvalidArgumentError
from lapel.settings import setting

from .expression import parse_schedule

__all__ = ["CronSettings"]


class CronSettings(BindingSettings):
    """Settings of bindings.cron."""

    offered_directions: ClassVar[tuple[str, ...]] = ("input",)

    schedule: str = setting(
        "schedule",
        doc="`@every` and a Go duration, a cron expression of 5 fields, or of 6 with seconds first, or one of @yearly, "
        "@annually, @monthly, @weekly, @daily, @midnight, @hourly. `CRON_TZ=Zone` in front sets the time zone. "
        "Default: the local one.",
        example="CRON_TZ=Europe/Paris 0 30 6 * * MON-FRI",
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Refuse a schedule that cannot be read, or that never comes due."""
        yield from super().check()
        try:
            parse_schedule(self.schedule)
        except InvalidArgumentError as exc:
            yield "schedule", exc.message
