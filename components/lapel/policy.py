"""Decide what is tried again: the one owner of retries.

Drivers do not retry. A component asks its `RetryPolicy` after each failure; nothing else in lapel repeats a call.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from .errors import LapelError, OutcomeUnknownError

__all__ = ["Effect", "Operation", "RetryPolicy"]


class Effect(Enum):
    """What sending an operation twice would do."""

    SAFE = "safe"
    """Nothing: it only reads."""
    CONDITIONAL = "conditional"
    """Nothing more than once: the backend checks a precondition that the first success makes false."""
    UNSAFE = "unsafe"
    """Possibly a second effect. Never sent again."""


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One method of a kind: its `name` in errors, spans and metrics, and its `effect`.

    `traced` false: the kind makes the span itself, because it needs more than a name.
    """

    name: str
    effect: Effect
    traced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast a failed call is repeated. Times are in seconds.

    `max_tries` counts the first try. The pause before try n + 1 is drawn from 0.5 to 1.0 times
    `min(maximum_delay, initial_delay * multiplier ** (n - 1))`. The component's deadline covers all tries together.
    """

    max_tries: int = 3
    initial_delay: float = 0.05
    maximum_delay: float = 2.0
    multiplier: float = 2.0

    @classmethod
    def off(cls) -> RetryPolicy:
        """Return the policy that never repeats, for runtimes that bring their own."""
        return cls(max_tries=1)

    def allows(self, error: LapelError, effect: Effect, tries: int) -> bool:
        """Tell whether a call that failed with `error` after `tries` tries may be sent again.

        Safe and conditional operations are repeated after errors marked `retryable`, and also when a lost
        connection hides the outcome and they may tell it. Unsafe ones never are.
        """
        if tries >= self.max_tries or effect is Effect.UNSAFE:
            return False
        return error.retryable or (isinstance(error, OutcomeUnknownError) and error.repeatable)

    def delay(self, tries: int) -> float:
        """Return the pause in seconds after `tries` tries, with jitter."""
        try:
            ceiling = min(self.maximum_delay, self.initial_delay * self.multiplier ** (tries - 1))
        except OverflowError:
            ceiling = self.maximum_delay if self.initial_delay else 0.0
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load; nothing secret depends on it
