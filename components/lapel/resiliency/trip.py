"""The condition on which a circuit breaker trips, in the Common Expression Language."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..errors import InvalidArgumentError
from .policies import Counts, five_in_a_row

__all__ = ["parse_trip"]

_log = logging.getLogger("lapel.resiliency")
_NAMES = ("requests", "totalSuccesses", "totalFailures", "consecutiveSuccesses", "consecutiveFailures")


def parse_trip(expression: str | None) -> Callable[[Counts], bool]:
    """Return the condition as a function of the counts; None is `consecutiveFailures > 5`.

    It is tried once with all counts at one. Raises `InvalidArgumentError` for what is no condition over the five
    counts, and when the extra that brings the language is not installed.
    """
    if expression is None:
        return five_in_a_row
    try:
        import cel
    except ModuleNotFoundError:
        raise InvalidArgumentError("needs the extra 'resiliency'; type: pip install \"lapel[resiliency]\"") from None

    text = str(expression)
    try:
        program: Any = cel.compile(text)
        unknown = sorted(set(program.variables()) - set(_NAMES))
        answer = None if unknown else program.execute(dict.fromkeys(_NAMES, 1))
    except Exception as exc:
        raise InvalidArgumentError(f"is not a CEL expression: {exc}") from None
    if unknown:
        raise InvalidArgumentError(f"does not know {', '.join(unknown)}; there are {', '.join(_NAMES)}")
    if not isinstance(answer, bool):
        raise InvalidArgumentError(f"must be true or false, and is {type(answer).__name__}")

    def trip(counts: Counts) -> bool:
        try:
            return program.execute(dict(counts)) is True
        except Exception:
            _log.exception("the condition %r of a circuit breaker failed; it does not trip", text)
            return False

    return trip
