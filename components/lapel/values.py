"""How the text of a setting becomes a number, a flag, a size or a duration.

The parsers are strict: they raise `InvalidArgumentError` saying what is allowed. The text itself is not part of the
error, because it may be secret; the caller who knows better adds it. Drivers use them for request metadata as well.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Decimal, DecimalException, localcontext
from typing import Literal

from .errors import InvalidArgumentError

__all__ = [
    "ByteSize",
    "DurationUnit",
    "format_duration",
    "format_size",
    "parse_bool",
    "parse_duration",
    "parse_float",
    "parse_int",
    "parse_size",
]

DurationUnit = Literal["ns", "us", "ms", "s", "m", "h"]
"""The unit of a bare number where a duration is expected."""

_UNIT_NAMES = {
    "ns": "nanoseconds",
    "us": "microseconds",
    "ms": "milliseconds",
    "s": "seconds",
    "m": "minutes",
    "h": "hours",
}
_MICROSECONDS = {
    "ns": Decimal("0.001"),
    "us": Decimal(1),
    "µs": Decimal(1),
    "μs": Decimal(1),
    "ms": Decimal(1_000),
    "s": Decimal(1_000_000),
    "m": Decimal(60_000_000),
    "h": Decimal(3_600_000_000),
    "d": Decimal(86_400_000_000),
    "w": Decimal(604_800_000_000),
}
_LONGEST = 64
"""No number, size or duration needs more characters; longer text is refused before any arithmetic."""

_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_BARE = re.compile(rf"([+-]?)({_NUMBER})")
_GO_PART = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)")
_GO = re.compile(rf"([+-]?)((?:{_NUMBER}(?:ns|us|µs|μs|ms|s|m|h))+)")
_ISO_NUMBER = r"[0-9]+(?:[.,][0-9]+)?"
_ISO = re.compile(
    rf"([+-]?)P(?=[0-9T])(?:({_ISO_NUMBER})W)?(?:({_ISO_NUMBER})D)?"
    rf"(?:T(?=[0-9])(?:({_ISO_NUMBER})H)?(?:({_ISO_NUMBER})M)?(?:({_ISO_NUMBER})S)?)?",
    re.IGNORECASE,
)
_INT = re.compile(
    r"([+-]?)(0[xX](?:_?[0-9a-fA-F])+|0[oO]?(?:_?[0-7])+|0[bB](?:_?[01])+|0|[1-9](?:_?[0-9])*)",
)
_FLOAT = re.compile(rf"[+-]?{_NUMBER}(?:[eE][+-]?[0-9]+)?")
_QUANTITY = re.compile(rf"([+-]?{_NUMBER})(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{{1,3}}))?")
_DECIMAL_SUFFIX = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_SUFFIX = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_TRUE = frozenset({"y", "yes", "true", "t", "on", "1"})
_FALSE = frozenset({"n", "no", "false", "f", "off", "0"})
_INT64 = range(-(2**63), 2**63)


class ByteSize(int):
    """A number of bytes, written in component files as a Kubernetes quantity (`64Ki`, `1.5M`)."""


def parse_bool(text: str) -> bool:
    """Read a flag: `true yes y t on 1` or `false no n f off 0`, in any case.

    Raises `InvalidArgumentError` for anything else, empty text included.
    """
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise InvalidArgumentError("expected true or false (also yes/no, y/n, t/f, on/off, 1/0)")


def parse_int(text: str) -> int:
    """Read a whole number of at most 64 bits as Go does: `10`, `-1`, `0x1f`, `0o17`, `0b11`, `1_000`.

    A leading `0` means octal (`0644` is 420). Raises `InvalidArgumentError`.
    """
    match = _INT.fullmatch(text.strip()) if len(text) <= 2 * _LONGEST else None
    if match is None:
        raise InvalidArgumentError("expected a whole number (0x for hexadecimal; a leading 0 means octal)")
    sign, digits = match.groups()
    digits = digits.replace("_", "")
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    number = int(digits, 8) if octal else int(digits, 0)
    number = -number if sign == "-" else number
    if number not in _INT64:
        raise InvalidArgumentError("expected a whole number that fits into 64 bits")
    return number


def parse_float(text: str) -> float:
    """Read a finite decimal number such as `0.5` or `1e3`. Raises `InvalidArgumentError`."""
    trimmed = text.strip()
    number = float(trimmed) if len(trimmed) <= _LONGEST and _FLOAT.fullmatch(trimmed) else math.nan
    if not math.isfinite(number):
        raise InvalidArgumentError("expected a decimal number")
    return number


def parse_size(text: str) -> ByteSize:
    """Read a Kubernetes quantity as whole bytes: `100`, `1k`, `10Ki`, `1.5Mi`, `1e3`.

    Decimal suffixes are `k M G T P E`, binary ones `Ki Mi Gi Ti Pi Ei`. Raises `InvalidArgumentError`, also when
    the result is not a whole number of bytes or does not fit into 64 bits.
    """
    trimmed = text.strip()
    match = _QUANTITY.fullmatch(trimmed) if len(trimmed) <= _LONGEST else None
    if match is None:
        raise InvalidArgumentError("expected a size in bytes such as 512, 64Ki, 1.5Mi or 10M (k is 1000, Ki is 1024)")
    number, suffix, exponent = match.groups()
    with localcontext(prec=1100):
        size = Decimal(number)
        if suffix in _BINARY_SUFFIX:
            size *= 1 << _BINARY_SUFFIX[suffix]
        else:
            size = size.scaleb(_DECIMAL_SUFFIX[suffix] if suffix else int(exponent or 0))
        whole = size == size.to_integral_value()
    if not whole:
        raise InvalidArgumentError("expected a whole number of bytes")
    if abs(size) > _INT64.stop - 1:
        raise InvalidArgumentError("expected a size that fits into 64 bits")
    return ByteSize(int(size))


def format_size(size: int) -> str:
    """Write a number of bytes with the largest binary suffix that keeps it whole: `65536` is `64Ki`."""
    for suffix, bits in reversed(_BINARY_SUFFIX.items()):
        if size and size % (1 << bits) == 0:
            return f"{size >> bits}{suffix}"
    return str(int(size))


def parse_duration(text: str, unit: DurationUnit = "s") -> timedelta:
    """Read `1h30m`, `500ms`, `1.5h` (Go), `PT10S`, `P1D` (ISO 8601) or a bare number of `unit`.

    Go units are `ns us µs ms s m h`; ISO years and months have no fixed length and are refused. The result is
    rounded to microseconds, but never to zero unless it is zero. The sign is kept; limits are the caller's.
    Raises `InvalidArgumentError`.
    """
    trimmed = text.strip()
    amount = _microseconds(trimmed, unit) if len(trimmed) <= _LONGEST else None
    if amount is None:
        hint = "; write a day as 24h or P1D" if re.search(r"[0-9]\s*d", trimmed[:_LONGEST], re.IGNORECASE) else ""
        raise InvalidArgumentError(
            "expected a duration such as 1h30m, 500ms or PT10S, "
            f"or a bare number, which means {_UNIT_NAMES[unit]}{hint}"
        )
    whole = int(amount.to_integral_value(ROUND_HALF_EVEN))
    if not whole and amount:
        whole = 1 if amount > 0 else -1
    try:
        return timedelta(microseconds=whole)
    except OverflowError:
        raise InvalidArgumentError("expected a duration of less than a billion days") from None


def _microseconds(text: str, unit: DurationUnit) -> Decimal | None:
    """Return the signed number of microseconds, or None when the text is in none of the forms."""
    if match := _BARE.fullmatch(text):
        sign, number = match.groups()
        parts = [(number, str(unit))]
    elif match := _GO.fullmatch(text):
        sign, rest = match.groups()
        parts = [(number, name) for number, name in _GO_PART.findall(rest)]
    elif match := _ISO.fullmatch(text):
        sign, *numbers = match.groups()
        parts = [(number, name) for number, name in zip(numbers, "wdhms", strict=True) if number]
    else:
        return None
    with localcontext(prec=4 * _LONGEST):
        try:
            total = sum((Decimal(number.replace(",", ".")) * _MICROSECONDS[name] for number, name in parts), Decimal(0))
        except DecimalException:
            return None
    return -total if sign == "-" else total


def format_duration(duration: timedelta) -> str:
    """Write a duration in Go form, exactly: `1h30m`, `1s500ms`, `0s`. `parse_duration` reads it back."""
    rest = duration // timedelta(microseconds=1)
    sign, rest = ("-", -rest) if rest < 0 else ("", rest)
    text = ""
    for unit in ("h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, int(_MICROSECONDS[unit]))
        if count:
            text += f"{count}{unit}"
    return f"{sign}{text}" if text else "0s"
