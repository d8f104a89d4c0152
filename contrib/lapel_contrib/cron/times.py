"""When a schedule comes due, in UTC, whatever the clocks of its time zone do.

The calendar is cronsim's: a small library without dependencies, kept up by its author for Healthchecks, used by Home
Assistant, and tested against Debian's cron. (croniter does more and is larger; APScheduler and aiocron bring a
scheduler of their own, whose jobs no dispatcher can take over.) Its own treatment of clock changes covers five fields
only, so it computes on plain local time here, and the rule is this:

* A schedule whose hour field is `*` runs by elapsed time: an hour that comes twice has its runs twice.
* Any other runs by the clock on the wall: a time that comes twice is taken the first time only, and one that does not
  exist is taken when the clock jumps over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from tzlocal import get_localzone

from lapel.errors import ConfigurationError

from .expression import Schedule, parse_schedule

__all__ = ["Times"]

_MINUTE = timedelta(minutes=1)


class Times:
    """The due times of one schedule. `local` is the time zone of schedules without one; None is this machine's.

    `zone_name` is the zone's name in the schedule, `Local` without one. Building may read files; computing does not
    block.
    """

    def __init__(self, schedule: Schedule, local: tzinfo | None = None) -> None:
        self.every = schedule.every
        self.zone_name = schedule.zone or "Local"
        self.zone: tzinfo = ZoneInfo(schedule.zone) if schedule.zone else local or get_localzone()
        self._expression = " ".join(schedule.fields)
        self._by_the_clock = schedule.by_the_clock
        if self.every is None:
            try:
                next(CronSim(self._expression, datetime(2000, 1, 1)))  # noqa: DTZ001  # only to try the expression
            except (CronSimError, StopIteration):
                raise ConfigurationError("the field 'schedule' never comes due") from None

    @classmethod
    def read(cls, text: str) -> Times:
        """Return the due times of a schedule in text form. May read files."""
        return cls(parse_schedule(text))

    def after(self, moment: datetime) -> datetime:
        """Return the first due time later than `moment`, both in UTC. Intervals count from `moment`."""
        if self.every is not None:
            return moment + self.every
        for candidate in self._candidates(moment.astimezone(self.zone)):
            due = candidate.astimezone(UTC)
            if due > moment:
                return due
        raise ConfigurationError("the field 'schedule' never comes due")

    def _candidates(self, start: datetime) -> Iterator[datetime]:
        if not self._by_the_clock:
            yield from CronSim(self._expression, start)
            return
        for wall in CronSim(self._expression, start.replace(tzinfo=None)):
            yield self._existing(wall)

    def _existing(self, wall: datetime) -> datetime:
        """Return the first time on that clock which is not skipped."""
        found = wall.replace(tzinfo=self.zone)
        while found.astimezone(UTC).astimezone(self.zone).replace(tzinfo=None) != wall:
            # The jump is at a full minute; the seconds of the skipped time do not matter.
            wall = wall.replace(second=0) + _MINUTE
            found = wall.replace(tzinfo=self.zone)
        return found
