"""A key set as text becomes keys by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lapel.errors import KeyTypeError
from lapel_contrib.local.keys import LocalKey, parse_jwk
from lapel_contrib.local.parsed_file import MalformedError

__all__ = ["MAX_SET_BYTES", "KeySet", "parse_key_set"]

MAX_SET_BYTES: Final = 1_048_576
"""Bytes that a key set may have."""

_SHOWN: Final = 100


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class KeySet:
    """Keys by `kid`. `unusable` has those that cannot be read here, each with the reason."""

    keys: Mapping[str, LocalKey]
    unusable: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<KeySet of {len(self.keys)}>"

    def find(self, name: str) -> LocalKey | None:
        """Return a key, None when there is none. Raises `KeyTypeError` for one that is unusable."""
        if name in self.unusable:
            raise KeyTypeError(self.unusable[name])
        return self.keys.get(name)


def parse_key_set(text: str | bytes, *, strict: bool) -> KeySet:
    """Return the keys of a JWKS, or of a single JWK.

    A key that cannot be read is an error if `strict`; else it becomes unusable, since a set made by others may hold
    kinds that are not known here (RFC 7517, 5). So is a set without keys. A `kid` that is missing or there twice is
    always one, because the key is chosen by it. Raises `MalformedError`, which holds nothing of the text but the `kid`.
    Takes a while for many keys.
    """
    entries = _entries(text)
    if strict and not entries:
        raise MalformedError("holds no keys")
    keys: dict[str, LocalKey] = {}
    unusable: dict[str, str] = {}
    for number, members in enumerate(entries, 1):
        name = members.get("kid") if isinstance(members, dict) else None
        if not isinstance(name, str) or not name:
            raise MalformedError(f"has no kid for key {number} of {len(entries)}; keys are chosen by it")
        if name in keys or name in unusable:
            raise MalformedError(f"has the kid {name[:_SHOWN]!r} twice; every key needs one of its own")
        problem = None
        try:
            keys[name] = parse_jwk(members, name)
        except KeyTypeError as exc:
            problem = exc.message
        if problem is not None:
            if strict:
                raise MalformedError(f"cannot be used: {problem}")
            unusable[name] = problem
    return KeySet(keys, unusable)


def _entries(text: str | bytes) -> list[Any]:
    if len(text) > MAX_SET_BYTES:
        raise MalformedError(f"is longer than the {MAX_SET_BYTES} bytes that a key set may have")
    line: int | None = None
    try:
        data = json.loads(text)
    except json.JSONDecodeError as exc:
        line = exc.lineno
    except (ValueError, RecursionError):
        pass
    else:
        if isinstance(data, dict) and isinstance(data.get("keys"), list):
            entries: list[Any] = data["keys"]
            return entries
        if isinstance(data, dict) and "kty" in data:
            return [data]
        raise MalformedError('is not a key set: expected a JSON object with a list of "keys"')
    # Raised out here because the decoder's error holds the whole text.
    raise MalformedError("is not valid JSON", line)
