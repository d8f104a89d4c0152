"""Strict JSON whose numbers stay the text that was written, and whose errors repeat nothing but keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .parsed_file import MalformedError

__all__ = ["parse_object", "plain_text"]


def parse_object(text: str) -> dict[str, Any]:
    """Return a JSON object made of text, true, false, None, lists and dicts; numbers are text as written.

    Raises `MalformedError` for what is not JSON (NaN included), not an object, or has a key twice in one object.
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_int=str, parse_float=str, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        message, line = exc.msg, exc.lineno
    else:
        if not isinstance(data, dict):
            raise MalformedError("must be a JSON object")
        return data
    # Raised out here because the decoder's error holds the whole text.
    raise MalformedError(f"is not valid JSON: {message}", line)


def plain_text(value: str | bool | None, key: str) -> str:
    """Return a leaf as text: `true` and `false` in lower case, null as the empty text.

    Raises `MalformedError`, which names `key`, for a lone surrogate: no other program could read that text.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not value.isascii() and not _encodable(value):
        raise MalformedError(f"has a lone surrogate, which is not text, in the value of {key!r}")
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise MalformedError(f"has the key {key!r} twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise MalformedError(f"is not valid JSON: {name} is not a JSON number")
