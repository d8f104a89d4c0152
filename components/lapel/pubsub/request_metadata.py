"""Read the keys of publish and subscription metadata that mean the same to every driver.

Sources: Dapr's metadata rules for pub/sub and bindings; Go's `strconv.ParseBool`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ..errors import InvalidArgumentError
from ..values import parse_duration

__all__ = ["raw_payload", "ttl_of"]

_INTEGER: Final = re.compile(r"([+-]?)([0-9]+)", re.ASCII)
_BARE_NUMBER: Final = re.compile(r"[+-]?[0-9.]+", re.ASCII)
_LONGEST: Final = (2**63 - 1) // 10**9
"""Seconds in the longest Go duration, some 292 years."""

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def ttl_of(metadata: Mapping[str, str]) -> float | None:
    """Return the time to live in seconds that `ttl`, else `ttlInSeconds`, gives; None when neither does.

    Names match in any case and an empty value counts as absent. A value is a whole number of seconds, a Go duration
    such as `1h30m` or an ISO 8601 one such as `PT10S`. A negative duration is 0; anything longer than some 292 years is
    cut to that.

    Raises `InvalidArgumentError` naming the key when the value is none of these, or is a number of 0 or less.
    """
    seconds: tuple[str, str] | None = None
    for name, value in metadata.items():
        if value and len(name) in (len("ttl"), len("ttlInSeconds")):
            match name.lower():
                case "ttl":
                    return _ttl(name, value)
                case "ttlinseconds":
                    seconds = (name, value)
    return _ttl(*seconds) if seconds else None


def raw_payload(metadata: Mapping[str, str]) -> bool:
    """Tell whether `rawPayload`, in any case, asks for messages without an envelope; False when absent or empty.

    Raises `InvalidArgumentError` for a value that Go's ParseBool does not know.
    """
    for name, value in metadata.items():
        if value and len(name) == len("rawPayload") and name.lower() == "rawpayload":
            if value in _TRUE:
                return True
            if value not in _FALSE:
                raise InvalidArgumentError(f"rawPayload value must be a valid boolean: actual is '{value}'")
    return False


def _ttl(name: str, value: str) -> float:
    text = value.strip()
    number = _INTEGER.fullmatch(text)
    if number is not None:
        sign, digits = number[1], number[2].lstrip("0")
        if sign == "-" or not digits:
            raise InvalidArgumentError(f"metadata {name} must be higher than zero, got {value!r}")
        # `int` refuses numbers of thousands of digits.
        return float(min(int(digits[:20]), _LONGEST))
    problem = f"metadata {name} must be a whole number of seconds or a duration such as 1h30m, got {value!r}"
    if _BARE_NUMBER.fullmatch(text):
        raise InvalidArgumentError(problem)
    try:
        duration = parse_duration(text).total_seconds()
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(problem) from exc
    return float(min(max(duration, 0.0), _LONGEST))
