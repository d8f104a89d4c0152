"""Queries of state.sqlite: filter, sort and page in SQLite's JSON functions.

Only texts of this module become SQL; paths, operands and tokens are bound. SQLite's functions decide what is equal:
a text is cut at an escaped NUL, and of a repeated member the first one counts.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from lapel.errors import InvalidArgumentError
from lapel.state.like import Wildcard
from lapel.state.query import And, Compare, Filter, Operator, Scalar, decode_token, page_of, split_path
from lapel.state.types import QueryItem, QueryRequest, QueryResult

from .state_rows import LIVE, item_of, utc_text

__all__ = ["QueryStatement", "glob_of"]

_RANK = (
    "CASE json_type(value, ?) WHEN 'null' THEN 1 WHEN 'false' THEN 2 WHEN 'true' THEN 3 WHEN 'integer' THEN 4 "
    "WHEN 'real' THEN 4 WHEN 'text' THEN 5 WHEN 'array' THEN 6 WHEN 'object' THEN 6 ELSE 0 END"
)
_VALUE = "CASE WHEN json_type(value, ?) IN ('integer', 'real', 'text') THEN json_extract(value, ?) ELSE 0 END"
_SIGNS = {Operator.GT: ">", Operator.GTE: ">=", Operator.LT: "<", Operator.LTE: "<="}
_GLOB = {Wildcard.RUN: "*", Wildcard.ONE: "?"}
_LITERAL = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})
_GLOB_BYTES = 50_000
_COLUMNS = "CAST(value AS BLOB), is_binary, etag, expiration_time"


class QueryStatement:
    """One query over one table. Building it does no I/O and raises `InvalidArgumentError`."""

    def __init__(self, table: str, request: QueryRequest) -> None:
        self._request = request
        self._table = table
        self._sort = [(_json_path(path), descending) for path, descending in request.sort]
        self._filter_parameters: list[Any] = []
        self._filter = "1" if request.filter is None else self._condition(request.filter)
        self._after = None if request.token is None else decode_token(request.token, request.sort)

    def run(self, connection: sqlite3.Connection) -> QueryResult:
        """Return the page."""
        request = self._request
        sql, parameters = self._statement(utc_text(int(time.time())))
        hits = []
        for key, value, binary, etag, ends, *places in connection.execute(sql, parameters):
            values = tuple(zip(places[::2], places[1::2], strict=True))
            hits.append((values, QueryItem(key=key, item=item_of((value, binary, etag, ends)))))
        return page_of(request, hits)

    def _statement(self, now: str) -> tuple[str, list[Any]]:
        request = self._request
        parameters: list[Any] = []
        columns, order = "", ""
        for index, (path, descending) in enumerate(self._sort):
            columns += f", {_RANK} AS rank{index}, {_VALUE} AS value{index}"
            parameters += [path, path, path]
            direction = "DESC" if descending else "ASC"
            order += f"rank{index} {direction}, value{index} {direction}, "
        condition = f"{LIVE} AND is_binary = 0 AND json_valid(value)"
        parameters.append(now)
        if request.key_prefix:
            condition += " AND key GLOB ?"
            parameters.append(glob_of([request.key_prefix, Wildcard.RUN]))
        # The inner LIMIT keeps SQLite from testing the filter first, which would fail on what is not JSON.
        inner = f'SELECT * FROM "{self._table}" WHERE {condition} LIMIT -1'  # noqa: S608  # the name is checked by the settings
        fields = f"key, value, is_binary, etag, expiration_time{columns}"
        found = f"SELECT {fields} FROM ({inner}) WHERE {self._filter}"  # noqa: S608  # made of constants
        parameters += self._filter_parameters
        places = "".join(f", rank{index}, value{index}" for index in range(len(self._sort)))
        sql = f"SELECT key, {_COLUMNS}{places} FROM ({found})"  # noqa: S608  # as above
        if self._after is not None:
            sql += f" WHERE {self._following(parameters)}"
        sql += f" ORDER BY {order}key"
        if request.limit is not None:
            sql += " LIMIT ?"
            parameters.append(request.limit + 1)
        return sql, parameters

    def _following(self, parameters: list[Any]) -> str:
        assert self._after is not None
        values, key = self._after
        columns: list[tuple[str, str, Any]] = []
        for index, ((_, descending), (rank, value)) in enumerate(zip(self._sort, values, strict=True)):
            sign = "<" if descending else ">"
            columns += [(f"rank{index}", sign, rank), (f"value{index}", sign, value)]
        columns.append(("key", ">", key))
        alternatives = []
        for index, (column, sign, value) in enumerate(columns):
            equal = "".join(f"{name} = ? AND " for name, _, _ in columns[:index])
            parameters += [before for _, _, before in columns[:index]]
            alternatives.append(f"({equal}{column} {sign} ?)")
            parameters.append(value)
        return " OR ".join(alternatives)

    def _condition(self, filter: Filter) -> str:
        if isinstance(filter, Compare):
            return self._comparison(filter)
        joint = " AND " if isinstance(filter, And) else " OR "
        return "(" + joint.join(self._condition(part) for part in filter.filters) + ")"

    def _comparison(self, filter: Compare) -> str:
        path = _json_path(filter.path)
        if filter.operator in _SIGNS:
            self._filter_parameters += [path, path, _number_text(filter.operands[0])]
            sign = _SIGNS[filter.operator]
            return (
                f"(json_type(value, ?) IN ('integer', 'real') AND json_extract(value, ?) {sign} json_extract(?, '$'))"
            )
        if filter.operator is not Operator.NEQ:
            return self._one_of(path, filter.operands)
        self._filter_parameters.append(path)
        return f"(json_type(value, ?) IS NOT NULL AND NOT {self._one_of(path, filter.operands)})"

    def _one_of(self, path: str, operands: Sequence[Scalar]) -> str:
        parts = []
        texts = [operand for operand in operands if isinstance(operand, str)]
        words = ["null" if operand is None else json.dumps(operand) for operand in operands if _is_word(operand)]
        numbers = [operand for operand in operands if not isinstance(operand, str) and not _is_word(operand)]
        if texts:
            # One parameter for any number of operands; SQLite's limit on parameters does not matter then.
            parts.append("json_type(value, ?) = 'text' AND json_extract(value, ?) IN (SELECT value FROM json_each(?))")
            self._filter_parameters += [path, path, json.dumps(texts, ensure_ascii=False)]
        if numbers:
            # SQLite reads operands and values from JSON alike, so that both are rounded in the same way.
            parts.append(
                "json_type(value, ?) IN ('integer', 'real') "
                "AND json_extract(value, ?) IN (SELECT value FROM json_each(?))"
            )
            self._filter_parameters += [path, path, f"[{','.join(map(_number_text, numbers))}]"]
        if words:
            parts.append("json_type(value, ?) IN (SELECT value FROM json_each(?))")
            self._filter_parameters += [path, json.dumps(words)]
        return "(" + " OR ".join(f"({part})" for part in parts) + ")"


def glob_of(parts: Sequence[str | Wildcard]) -> str:
    """Return a LIKE pattern as one for GLOB, which heeds case and can use the index for what is before a wildcard.

    Raises `InvalidArgumentError` when it is longer than SQLite takes.
    """
    pattern = "".join(_GLOB[part] if isinstance(part, Wildcard) else part.translate(_LITERAL) for part in parts)
    if len(pattern.encode()) > _GLOB_BYTES:
        raise InvalidArgumentError(f"the pattern is longer than SQLite takes, {_GLOB_BYTES} bytes")
    return pattern


def _json_path(path: str) -> str:
    if '"' in path or "\\" in path:
        raise InvalidArgumentError("this store cannot reach members whose name has a quote or a backslash")
    return "$" + "".join(f'."{name}"' for name in split_path(path))


def _is_word(operand: Scalar) -> bool:
    return operand is None or isinstance(operand, bool)


def _number_text(number: Scalar) -> str:
    if isinstance(number, float) and math.isinf(number):
        return "9e999" if number > 0 else "-9e999"
    return json.dumps(number)
