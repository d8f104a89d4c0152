"""The text of a schedule, checked without the library that computes its times.

The syntax is the one of Dapr's cron binding, which is stricter than that library's: weekdays are 0 to 6, `?` means `*`,
`N/step` runs to the end of its range, and a day field restricts the days unless one of its terms is a bare star.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from lapel.errors import InvalidArgumentError
from lapel.values import parse_duration

__all__ = ["Schedule", "parse_schedule"]

SHORTEST: Final = timedelta(milliseconds=1)

_DESCRIPTORS: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_MONTHS: Final = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_WEEKDAYS: Final = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
_TERM: Final = re.compile(r"(?:[*?]|([0-9]{1,2}|[A-Z]{3})(?:-([0-9]{1,2}|[A-Z]{3}))?)(?:/([0-9]{1,2}))?")


class _Field(NamedTuple):
    name: str
    lowest: int
    highest: int
    names: dict[str, int]


_FIELDS: Final = (
    _Field("second", 0, 59, {}),
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    _Field("day of week", 0, 6, {name: number for number, name in enumerate(_WEEKDAYS)}),
)


class Schedule(NamedTuple):
    """When events come: `every` so often, or by the six `fields` of a cron expression, in `zone`.

    `fields` are in a plain form: `*` or numbers and ranges, each range with its step. `zone` None is the local zone.
    """

    every: timedelta | None
    fields: tuple[str, ...]
    zone: str | None

    @property
    def by_the_clock(self) -> bool:
        """Whether it names hours of the day, so that each comes once a day, also when clocks change."""
        return self.every is None and self.fields[2] != "*"


def parse_schedule(text: str) -> Schedule:
    """Read a schedule. Raises `InvalidArgumentError` that says what is wrong, also when it never comes due."""
    words = text.split()
    zone: str | None = None
    if words and words[0].startswith(("TZ=", "CRON_TZ=")):
        zone = words.pop(0).partition("=")[2]
        try:
            ZoneInfo(zone)
        except (ValueError, OSError, KeyError):
            raise InvalidArgumentError(
                f"the time zone {zone!r} is not known here; expected a name such as Europe/Berlin"
            ) from None
    if not words:
        raise InvalidArgumentError("is empty; expected a cron expression or '@every 1m'")
    if words[0].lower() == "@every":
        return Schedule(_interval(words[1:]), (), zone)
    if words[0].startswith("@"):
        expression = _DESCRIPTORS.get(words[0].lower()) if len(words) == 1 else None
        if expression is None:
            raise InvalidArgumentError(f"expected @every <duration> or one of {', '.join(_DESCRIPTORS)}")
        words = expression.split()
    if len(words) == 5:
        words.insert(0, "0")
    if len(words) != 6:
        raise InvalidArgumentError(f"has {len(words)} fields; expected 5, or 6 with seconds first")
    fields = tuple(_normal(field, word) for field, word in zip(_FIELDS, words, strict=True))
    _check_days(fields)
    return Schedule(None, fields, zone)


def _interval(words: list[str]) -> timedelta:
    try:
        interval = parse_duration(words[0]) if len(words) == 1 and not words[0][-1:].isdigit() else timedelta()
    except InvalidArgumentError:
        interval = timedelta()
    if interval < SHORTEST:
        raise InvalidArgumentError("@every needs a duration with units of at least 1ms, such as '@every 90s'")
    return interval


def _normal(field: _Field, text: str) -> str:
    """Return a field in the plain form that means the same to the library."""
    terms = [_term(field, term) for term in text.upper().split(",")]
    return "*" if "*" in terms else ",".join(terms)


def _term(field: _Field, text: str) -> str:
    match = _TERM.fullmatch(text)
    if match is None:
        raise _bad(field, text)
    first, last, step = match.groups()
    if first is None:
        if step in (None, "1", "01"):
            return "*"
        low, high = field.lowest, field.highest
    else:
        low = _number(field, first, text)
        high = _number(field, last, text) if last else (field.highest if step else low)
    if low > high or (step is not None and int(step) == 0):
        raise _bad(field, text)
    return f"{low}-{high}" + (f"/{int(step)}" if step else "") if high > low else str(low)


def _number(field: _Field, text: str, term: str) -> int:
    number = int(text) if text.isdigit() else field.names.get(text, -1)
    if not field.lowest <= number <= field.highest:
        raise _bad(field, term)
    return number


def _bad(field: _Field, text: str) -> InvalidArgumentError:
    names = f" or {next(iter(field.names))} to {list(field.names)[-1]}" if field.names else ""
    return InvalidArgumentError(
        f"{text!r} is not a {field.name}; expected {field.lowest} to {field.highest}{names}, with * ? , - /"
    )


def _check_days(fields: tuple[str, ...]) -> None:
    """Refuse dates that no month has, such as the 31st of February; the weekday may still make it come due."""
    days, months, weekdays = fields[3:]
    if days == "*" or weekdays != "*":
        return
    first = min(int(re.split("[-/]", term)[0]) for term in days.split(","))
    if not any(first <= monthrange(2000, month)[1] for month in _members(months)):
        raise InvalidArgumentError(f"no month in {months!r} has a day in {days!r}, so it would never come due")


def _members(text: str) -> set[int]:
    if text == "*":
        return set(range(1, 13))
    found: set[int] = set()
    for term in text.split(","):
        span, _, step = term.partition("/")
        low, _, high = span.partition("-")
        found.update(range(int(low), int(high or low) + 1, int(step or 1)))
    return found
