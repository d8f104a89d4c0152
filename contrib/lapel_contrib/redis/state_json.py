"""JSON documents and queries of state.redis, where the server has the modules for them.

A query's candidates come from the search index where that can narrow them down without losing one, else from a scan of
all documents; which of them match, and in which order, is decided by `lapel.state.query`, the same for every driver.
RediSearch alone could not: it splits texts into words, and leaves out a document that has a value of another type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lapel.errors import InvalidArgumentError
from lapel.jsontext import decode_json
from lapel.state.query import And, Compare, Filter, Operator, Or

from .client import RedisClient
from .errors import ReplyError
from .options import QueryIndex

__all__ = ["Indexes", "fits_document"]

_DEPTH = 100
"""RedisJSON takes 128 levels, two of which are ours."""
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_MOST_HITS = 1_000_000
"""What RediSearch returns at most unless it is set otherwise."""
_WORDS = re.compile(r"[A-Za-z0-9 ]+")
# fmt: off
_STOP_WORDS = frozenset(
    {
        "a", "is", "the", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "it",
        "no", "not", "of", "on", "or", "such", "that", "their", "then", "there", "these", "they", "this", "to",
        "was", "will", "with",
    }
)
# fmt: on


def fits_document(data: bytes) -> bool:
    """Tell whether RedisJSON gives these bytes back equal as JSON."""
    try:
        value = decode_json(data)
    except ValueError:
        return False
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, int):
            if not _SMALLEST <= item <= _LARGEST:
                return False
        elif isinstance(item, float):
            if item in (float("inf"), float("-inf")):
                return False
        elif isinstance(item, str):
            if not _is_text(item):
                return False
        elif isinstance(item, dict | list):
            if depth >= _DEPTH:
                return False
            inner = list(item.values()) if isinstance(item, dict) else item
            if isinstance(item, dict) and not all(_is_text(name) for name in item):
                return False
            waiting += [(each, depth + 1) for each in inner]
    return True


class Indexes:
    """The search indexes of one component."""

    def __init__(self, client: RedisClient, indexes: Sequence[QueryIndex]) -> None:
        self._client = client
        self._indexes = {index.name: index for index in indexes}

    async def create(self) -> None:
        """Make the indexes that are missing, and anew those that differ, as Dapr lays them out."""
        for index in self._indexes.values():
            (info,) = await self._client.apart(("FT.INFO", index.name), writes=False)
            if not isinstance(info, ReplyError):
                if _described(info) == _wanted(index):
                    continue
                await self._client.apart(("FT.DROPINDEX", index.name))
            schema: list[str] = []
            for number, (path, kind) in enumerate(index.fields):
                schema += [f"$.data.{path}", "AS", f"var{number}", kind, "SORTABLE"]
            (reply,) = await self._client.apart(("FT.CREATE", index.name, "ON", "JSON", "SCHEMA", *schema))
            # Another process may have made it in between.
            if isinstance(reply, ReplyError) and "already exists" not in str(reply):
                raise self._client.translate(reply) from None

    async def candidates(self, metadata: Mapping[str, str], filter_: Filter | None) -> list[bytes] | None:
        """Return the keys among which all matches are, None for all documents.

        Raises `InvalidArgumentError` when `queryIndexName` of the metadata names no index of this component.
        """
        name = metadata.get("queryIndexName") or next(iter(self._indexes))
        if name not in self._indexes:
            names = ", ".join(self._indexes)
            raise InvalidArgumentError(f"metadata queryIndexName is {name!r}; queryIndexes has {names}")
        fields = {path: (f"@var{number}", kind) for number, (path, kind) in enumerate(self._indexes[name].fields)}
        text = None if filter_ is None else _superset(filter_, fields)
        if text is None:
            return None
        limits = ("NOCONTENT", "VERBATIM", "LIMIT", 0, _MOST_HITS, "TIMEOUT", 0, "DIALECT", 2)
        info, found = await self._client.apart(("FT.INFO", name), ("FT.SEARCH", name, text, *limits), writes=False)
        if isinstance(info, ReplyError) or isinstance(found, ReplyError) or not _complete(info):
            return None
        total, *keys = found
        return keys if total == len(keys) else None


def _superset(filter_: Filter, fields: Mapping[str, tuple[str, str]]) -> str | None:
    """Return a query that all matches satisfy, None if none narrows them down."""
    if isinstance(filter_, And):
        parts = [text for part in filter_.filters if (text := _superset(part, fields)) is not None]
        return f"({' '.join(parts)})" if parts else None
    if isinstance(filter_, Or):
        texts = [_superset(part, fields) for part in filter_.filters]
        return None if None in texts else f"({'|'.join(map(str, texts))})"
    assert isinstance(filter_, Compare)
    if filter_.path not in fields:
        return None
    name, kind = fields[filter_.path]
    if filter_.operator is Operator.NEQ:
        return None
    if filter_.operator in (Operator.EQ, Operator.IN):
        alternatives = [_equal(name, kind, operand) for operand in filter_.operands]
        return None if None in alternatives else f"({'|'.join(map(str, alternatives))})"
    # Inclusive: what differs in the 54th bit only is equal to RediSearch.
    bound = filter_.operands[0]
    if kind != "NUMERIC" or isinstance(bound, bool) or not isinstance(bound, int | float):
        return None
    low, high = ("-inf", float(bound)) if filter_.operator in (Operator.LT, Operator.LTE) else (float(bound), "+inf")
    return f"{name}:[{low} {high}]"


def _equal(name: str, kind: str, operand: Any) -> str | None:
    if kind == "NUMERIC":
        if isinstance(operand, bool) or not isinstance(operand, int | float):
            return None
        return f"{name}:[{float(operand)} {float(operand)}]"
    # Only words that RediSearch is sure to split, fold and find in the same way as ours.
    if not isinstance(operand, str) or not _WORDS.fullmatch(operand):
        return None
    words = [word for word in operand.split() if word.lower() not in _STOP_WORDS]
    return f"{name}:({' '.join(words)})" if words else None


def _complete(info: Sequence[Any]) -> bool:
    """Tell whether an index has every document: it is built, and none had a value of the wrong type."""
    facts = dict(zip(info[::2], info[1::2], strict=False))
    return all(float(facts.get(name, b"1") or 0) == 0 for name in (b"hash_indexing_failures", b"indexing"))


def _described(info: Sequence[Any]) -> set[tuple[str, str, str]]:
    facts = dict(zip(info[::2], info[1::2], strict=False))
    found = set()
    for attribute in facts.get(b"attributes", ()):
        texts = [part.decode() if isinstance(part, bytes) else str(part) for part in attribute]
        entry = dict(zip(texts[::2], texts[1::2], strict=False))
        found.add((entry.get("identifier", ""), entry.get("attribute", ""), entry.get("type", "")))
    return found


def _wanted(index: QueryIndex) -> set[tuple[str, str, str]]:
    return {(f"$.data.{path}", f"var{number}", kind) for number, (path, kind) in enumerate(index.fields)}


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
