"""A key set as text becomes keys by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
    """Keys by `kid`. `unusable` has those that cannot be read here, each with the reason.

    `left_out` says, in sentences for a log, which keys no name leads to.
    """

    keys: Mapping[str, LocalKey]
    unusable: Mapping[str, str]
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<KeySet of {len(self.keys)}>"

    def find(self, name: str) -> LocalKey | None:
        """Return a key, None when there is none. Raises `KeyTypeError` for one that is unusable."""
        if name in self.unusable:
            raise KeyTypeError(self.unusable[name])
        return self.keys.get(name)


def parse_key_set(text: str | bytes, *, strict: bool) -> KeySet:
    """Return the keys of a JWKS, or of a single JWK.

    With `strict`, for a set that its user wrote, a key that cannot be read is an error; so are a set without keys and a
    `kid` that is missing or there twice, because the key is chosen by it. Else the set is made by others, and its other
    keys must stay in use: what cannot be read becomes unusable, since there may be kinds that are not known here (RFC
    7517, 5); a key without a `kid` is left out; and of several keys with one `kid` the first that can be read counts.

    Raises `MalformedError`, which holds nothing of the text but the `kid`. Takes a while for many keys.
    """
    entries = _entries(text)
    if strict and not entries:
        raise MalformedError("holds no keys")
    keys: dict[str, LocalKey] = {}
    unusable: dict[str, str] = {}
    nameless = 0
    repeated: list[str] = []
    for number, members in enumerate(entries, 1):
        name = members.get("kid") if isinstance(members, dict) else None
        if not isinstance(name, str) or not name:
            if strict:
                raise MalformedError(f"has no kid for key {number} of {len(entries)}; keys are chosen by it")
            nameless += 1
            continue
        if strict and (name in keys or name in unusable):
            raise MalformedError(f"has the kid {name[:_SHOWN]!r} twice; every key needs one of its own")
        if name in keys:
            repeated.append(name)
            continue
        problem = None
        try:
            keys[name] = parse_jwk(members, name)
        except KeyTypeError as exc:
            problem = exc.message
        if problem is not None:
            if strict:
                raise MalformedError(f"cannot be used: {problem}")
            unusable.setdefault(name, problem)
        else:
            unusable.pop(name, None)
    return KeySet(keys, unusable, tuple(_left_out(nameless, len(entries), repeated)))


def _left_out(nameless: int, total: int, repeated: list[str]) -> Iterator[str]:
    if nameless:
        yield f"has no kid for {nameless} of {total} keys, which are left out; keys are chosen by it"
    if repeated:
        yield f"has the kid {repeated[0][:_SHOWN]!r} more than once; of keys with one kid the first counts"


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
