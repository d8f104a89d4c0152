"""LIKE patterns of key listings, for backends that have none or another kind of pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

__all__ = ["Wildcard", "compile_like", "like_prefix", "parse_like"]


class Wildcard(Enum):
    """What is not literal in a pattern."""

    RUN = "%"
    """Any run of characters, also none."""
    ONE = "_"
    """Exactly one character, whichever it is."""


def parse_like(pattern: str) -> list[str | Wildcard]:
    """Split a pattern into literal texts and wildcards. A backslash makes the character after it literal."""
    parts: list[str | Wildcard] = []
    literal = ""
    characters = iter(pattern)
    for character in characters:
        if character in "%_":
            if literal:
                parts.append(literal)
                literal = ""
            wildcard = Wildcard(character)
            if wildcard is not Wildcard.RUN or parts[-1:] != [Wildcard.RUN]:
                parts.append(wildcard)
        else:
            literal += next(characters, character) if character == "\\" else character
    if literal:
        parts.append(literal)
    return parts


def like_prefix(parts: Sequence[str | Wildcard]) -> str:
    """Return the literal text that every match starts with."""
    return parts[0] if parts and isinstance(parts[0], str) else ""


def compile_like(pattern: str) -> re.Pattern[str]:
    """Return an expression whose `fullmatch` tells whether a key matches. It never backtracks more than one run."""
    segments = [""]
    for part in parse_like(pattern):
        if part is Wildcard.RUN:
            segments.append("")
        else:
            segments[-1] += "." if part is Wildcard.ONE else re.escape(str(part))
    if len(segments) == 1:
        return re.compile(segments[0], re.DOTALL)
    first, *middle, last = segments
    # The first place where a middle segment fits is as good as any other, so it is never given back.
    runs = "".join(f"(?>.*?{segment})" for segment in middle)
    return re.compile(f"{first}{runs}.*{last}", re.DOTALL)
