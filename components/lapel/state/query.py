"""Dapr's query documents: read them, evaluate them over JSON values, page through the hits.

The language, the same for every driver:

* A filter is an object with one operator: `EQ NEQ GT GTE LT LTE` of `{path: operand}`, `IN` of `{path: [operands]}`,
  `AND` and `OR` of a list of two or more filters. No filter, or an empty one, selects every JSON value.
* A path is dotted and names members of objects; `a.b` is `value["a"]["b"]`. Lists are not entered.
* Operands are texts, numbers, true, false and null; `GT GTE LT LTE` take numbers only. Numbers compare by value,
  whole numbers beyond 64 bits as doubles; true is not 1. A path that a value does not have satisfies no operator,
  not even `NEQ`; values of another type are different from the operand.
* `sort` takes several keys. Values of different types are ordered: no such path, null, false, true, numbers, texts by
  code point, lists and objects (among themselves equal). What is equal is ordered by key, as are hits without `sort`.
* `page` has a `limit` and a `token`. A token names the last hit, so that hits present throughout come exactly once.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cmp_to_key
from heapq import nsmallest
from typing import Any

import msgspec

from ..errors import InvalidArgumentError
from .types import QueryItem, QueryRequest, QueryResult, StateItem

__all__ = [
    "And",
    "Compare",
    "Filter",
    "Operator",
    "Or",
    "Query",
    "Scalar",
    "decode_token",
    "encode_token",
    "matches",
    "page_of",
    "parse_query",
    "select",
    "sort_values",
    "split_path",
]

MAXIMUM_DEPTH = 50
Scalar = str | int | float | bool | None
SortValue = tuple[int, str | int | float]
"""The rank of a type and the value within it; 0 where the type has one value only."""

Place = tuple[tuple[SortValue, ...], str]
"""Where a hit stands: its sort values, then its key."""

_MISSING = object()


class Operator(StrEnum):
    """How one member of a value is compared."""

    EQ = "EQ"
    NEQ = "NEQ"
    GT = "GT"
    GTE = "GTE"
    LT = "LT"
    LTE = "LTE"
    IN = "IN"


class Compare(msgspec.Struct, frozen=True, tag=True):
    """One comparison. `operands` has one entry, for `IN` one or more."""

    operator: Operator
    path: str
    operands: tuple[Scalar, ...]


class And(msgspec.Struct, frozen=True, tag=True):
    """All filters hold."""

    filters: tuple[Filter, ...]


class Or(msgspec.Struct, frozen=True, tag=True):
    """At least one filter holds."""

    filters: tuple[Filter, ...]


Filter = Compare | And | Or


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A checked query document. `filter` None selects all; `sort` has True for descending; `limit` None means all."""

    filter: Filter | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None
    token: str | None = None


def parse_query(document: Mapping[str, Any] | str | bytes) -> Query:
    """Check a query document, given as JSON text or decoded. Raises `InvalidArgumentError` that names the fault."""
    if isinstance(document, str | bytes):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError):
            raise InvalidArgumentError("the query is not JSON") from None
    fields = _members(document, "the query", ("filter", "sort", "page"))
    page = _members(fields.get("page") or {}, "page", ("limit", "token"))
    limit = page.get("limit")
    if limit is not None and (type(limit) is not int or not 0 <= limit < 2**63):
        raise InvalidArgumentError("page.limit must be a whole number, 0 or absent for all")
    token = page.get("token")
    if token is not None and not isinstance(token, str):
        raise InvalidArgumentError("page.token must be the text that the page before came with")
    given = fields.get("filter")
    return Query(
        filter=None if given is None or given == {} else _filter(given, 1),
        sort=_sort(fields.get("sort") or []),
        limit=limit or None,
        token=token or None,
    )


def split_path(path: str) -> list[str]:
    """Return the member names of a dotted path."""
    return path.split(".")


def matches(filter: Filter | None, document: Any) -> bool:
    """Tell whether a decoded JSON value satisfies a filter."""
    if filter is None:
        return True
    if isinstance(filter, And):
        return all(matches(part, document) for part in filter.filters)
    if isinstance(filter, Or):
        return any(matches(part, document) for part in filter.filters)
    value = _lookup(document, filter.path)
    return value is not _MISSING and _holds(filter, value)


def sort_values(document: Any, sort: Sequence[tuple[str, bool]]) -> tuple[SortValue, ...]:
    """Return what a decoded JSON value is sorted by, one entry for each key of `sort`."""
    return tuple(_sort_value(_lookup(document, path)) for path, _ in sort)


def encode_token(values: Sequence[SortValue], key: str) -> str:
    """Return the token of the page whose last hit has this key and these sort values."""
    text = json.dumps([values, key], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode_token(token: str, sort: Sequence[tuple[str, bool]]) -> Place:
    """Return sort values and key of a token. Raises `InvalidArgumentError` for one of another query."""
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True)
        values, key = msgspec.json.decode(text, type=tuple[tuple[SortValue, ...], str])
    except (binascii.Error, ValueError, RecursionError):
        pass
    else:
        if len(values) == len(sort) and all(_is_sort_value(*value) for value in values):
            return values, key
    raise InvalidArgumentError("page.token is not from a page of this query")


def select(request: QueryRequest, items: Iterable[tuple[str, StateItem]]) -> QueryResult:
    """Answer a query over all of a store's live JSON items. For drivers that have to evaluate it themselves.

    Items that are not JSON, and keys outside `request.key_prefix`, are left out. Does no I/O; the cost is that of
    decoding every item, so run it in a thread for more than a few thousand.
    """
    after = None if request.token is None else decode_token(request.token, request.sort)

    def order(left: tuple[Place, StateItem], right: tuple[Place, StateItem]) -> int:
        return _order(request.sort, left[0], right[0])

    found: list[tuple[Place, StateItem]] = []
    for key, item in items:
        if not key.startswith(request.key_prefix):
            continue
        try:
            document = json.loads(item.data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            continue
        if matches(request.filter, document):
            place = (sort_values(document, request.sort), key)
            if after is None or _order(request.sort, place, after) > 0:
                found.append((place, item))
    if request.limit is None:
        found.sort(key=cmp_to_key(order))
    else:
        found = nsmallest(request.limit + 1, found, key=cmp_to_key(order))
    return page_of(request, [(values, QueryItem(key=key, item=item)) for (values, key), item in found])


def page_of(request: QueryRequest, hits: Sequence[tuple[tuple[SortValue, ...], QueryItem]]) -> QueryResult:
    """Make the page from hits in order, of which there may be one more than `request.limit`."""
    if request.limit is None or len(hits) <= request.limit:
        return QueryResult(items=[item for _, item in hits])
    hits = hits[: request.limit]
    values, last = hits[-1]
    return QueryResult(items=[item for _, item in hits], token=encode_token(values, last.key))


def _members(given: Any, what: str, allowed: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise InvalidArgumentError(f"{what} must be an object with {', '.join(allowed)}")
    for name in given:
        if name not in allowed:
            raise InvalidArgumentError(f"{what} has the unknown member {name!r}; allowed: {', '.join(allowed)}")
    return given


def _sort(given: Any) -> tuple[tuple[str, bool], ...]:
    if not isinstance(given, list | tuple):
        raise InvalidArgumentError("sort must be a list of objects with key and order")
    keys = []
    for entry in given:
        fields = _members(entry, "an entry of sort", ("key", "order"))
        order = fields.get("order") or "ASC"
        if order not in ("ASC", "DESC"):
            raise InvalidArgumentError("order of a sort key must be 'ASC' or 'DESC'")
        keys.append((_path(fields.get("key"), "sort"), order == "DESC"))
    return tuple(keys)


def _filter(given: Any, depth: int) -> Filter:
    if depth > MAXIMUM_DEPTH:
        raise InvalidArgumentError(f"the filter is nested more than {MAXIMUM_DEPTH} levels deep")
    if not isinstance(given, Mapping) or len(given) != 1:
        raise InvalidArgumentError("a filter must be an object with exactly one operator")
    ((word, body),) = given.items()
    if word in ("AND", "OR"):
        if not isinstance(body, list | tuple) or len(body) < 2:
            raise InvalidArgumentError(f"{word} needs a list of two or more filters")
        parts = tuple(_filter(part, depth + 1) for part in body)
        return And(parts) if word == "AND" else Or(parts)
    try:
        operator = Operator(word)
    except ValueError:
        allowed = ", ".join([*Operator, "AND", "OR"])
        raise InvalidArgumentError(f"the filter has the unknown operator {word!r}; allowed: {allowed}") from None
    if not isinstance(body, Mapping) or len(body) != 1:
        raise InvalidArgumentError(f"{word} needs an object with exactly one path")
    ((path, operand),) = body.items()
    if operator is not Operator.IN:
        operand = [operand]
    elif not isinstance(operand, list | tuple) or not operand:
        raise InvalidArgumentError("IN needs a list of one or more values")
    return Compare(operator, _path(path, word), tuple(_operand(operator, value) for value in operand))


def _path(path: Any, where: str) -> str:
    if not isinstance(path, str) or not all(split_path(path)):
        raise InvalidArgumentError(f"{where} needs a path of member names with dots between them")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"the path of {where} holds a lone surrogate") from None
    return path


def _operand(operator: Operator, value: Any) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidArgumentError(f"an operand of {operator} is not a finite number")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    if operator in (Operator.GT, Operator.GTE, Operator.LT, Operator.LTE):
        raise InvalidArgumentError(f"{operator} compares numbers; its operand is none")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidArgumentError(f"an operand of {operator} holds a lone surrogate") from None
        return value
    if value is None or isinstance(value, bool):
        return value
    raise InvalidArgumentError(f"an operand of {operator} must be a text, a number, true, false or null")


def _number(value: float) -> float:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value


def _lookup(document: Any, path: str) -> Any:
    for name in split_path(path):
        if not isinstance(document, dict) or name not in document:
            return _MISSING
        document = document[name]
    return document


def _holds(filter: Compare, value: Any) -> bool:
    operator, operand = filter.operator, filter.operands[0]
    if operator is Operator.EQ:
        return _equal(value, operand)
    if operator is Operator.NEQ:
        return not _equal(value, operand)
    if operator is Operator.IN:
        return any(_equal(value, choice) for choice in filter.operands)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isinstance(operand, int | float):
        return False
    number = _number(value)
    if operator is Operator.GT:
        return number > operand
    if operator is Operator.GTE:
        return number >= operand
    return number < operand if operator is Operator.LT else number <= operand


def _equal(value: Any, operand: Scalar) -> bool:
    if operand is None or isinstance(operand, bool):
        return value is operand
    if isinstance(operand, str):
        return isinstance(value, str) and value == operand
    return isinstance(value, int | float) and not isinstance(value, bool) and _number(value) == operand


def _sort_value(value: Any) -> SortValue:
    if value is _MISSING:
        return (0, 0)
    if value is None:
        return (1, 0)
    if isinstance(value, bool):
        return (3 if value else 2, 0)
    if isinstance(value, int | float):
        return (4, _number(value))
    return (5, value) if isinstance(value, str) else (6, 0)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _is_sort_value(rank: int, value: str | float) -> bool:
    if rank == 4:
        return not isinstance(value, str) and _number(value) is value
    return isinstance(value, str) if rank == 5 else 0 <= rank <= 6 and value == 0


def _order(sort: Sequence[tuple[str, bool]], left: Place, right: Place) -> int:
    for (_, descending), mine, other in zip(sort, left[0], right[0], strict=True):
        if mine != other:
            return -1 if (mine < other) is not descending else 1
    return (left[1] > right[1]) - (left[1] < right[1])
