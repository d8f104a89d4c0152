"""Which path of the application an event goes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cel

from ...errors import InvalidArgumentError

__all__ = ["Rule", "Rules"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One route. `match` is a CEL condition over `event`; empty text always holds.

    Raises `InvalidArgumentError` for text that is no CEL expression.
    """

    match: str
    path: str
    _program: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not self.match:
            return
        try:
            object.__setattr__(self, "_program", cel.compile(self.match))
        except Exception as exc:
            raise InvalidArgumentError(f"the rule {self.match!r} is not a CEL expression: {exc}") from None

    def holds(self, event: Mapping[str, Any]) -> bool:
        """Tell whether the event matches. Raises `InvalidArgumentError` when the condition cannot be evaluated."""
        if self._program is None:
            return True
        try:
            answer = self._program.execute({"event": event})
        except Exception as exc:
            text = f"the rule {self.match!r} cannot be evaluated on this event: {type(exc).__name__}"
            raise InvalidArgumentError(text) from None
        if not isinstance(answer, bool):
            raise InvalidArgumentError(f"the rule {self.match!r} gives {type(answer).__name__} and not true or false")
        return answer


class Rules:
    """The routes of a subscription, in order; the first that matches counts."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.conditional = any(rule.match for rule in self.rules)
        """Whether events must be looked at."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and self.rules == other.rules

    def __hash__(self) -> int:
        return hash(self.rules)

    def path(self, event: Mapping[str, Any]) -> str | None:
        """Return where an event goes, None when no rule matches. Raises `InvalidArgumentError` as `Rule.holds`."""
        return next((rule.path for rule in self.rules if rule.holds(event)), None)
