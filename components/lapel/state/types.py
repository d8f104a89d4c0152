"""What goes between an application, `StateStore` and a `StateDriver`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar, overload

import msgspec

from ..errors import LapelError
from ..jsontext import decode_json

__all__ = [
    "BulkGetOutcome",
    "BulkOutcome",
    "Concurrency",
    "Consistency",
    "DeleteOperation",
    "DeletePrefixRequest",
    "DeleteRequest",
    "GetRequest",
    "IfAbsent",
    "IfMatch",
    "KeysPage",
    "KeysRequest",
    "Precondition",
    "QueryItem",
    "QueryRequest",
    "QueryResult",
    "SetOperation",
    "SetRequest",
    "StateItem",
    "TransactionRequest",
]

T = TypeVar("T")

NO_METADATA: Mapping[str, str] = {}

# `gc=False` below: what cannot be part of a cycle need not be visited by the collector, a tenth of the cost of a call.


class Consistency(StrEnum):
    """How many copies a write must reach, or a read may lag. None at a call means the backend's default."""

    STRONG = "strong"
    EVENTUAL = "eventual"


class Concurrency(StrEnum):
    """Who wins when two write. `FIRST_WRITE` without an etag creates only; with an etag the etag always counts."""

    FIRST_WRITE = "first-write"
    LAST_WRITE = "last-write"


class IfMatch(msgspec.Struct, frozen=True, gc=False):
    """Write only if the stored item has this etag. A missing key does not match."""

    etag: str


class IfAbsent(msgspec.Struct, frozen=True, gc=False):
    """Write only if there is no such key; an expired one counts as absent at once."""


Precondition = IfMatch | IfAbsent


class StateItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One stored value.

    `data` is what was stored: byte for byte, or equal as JSON where the content type is `application/json` and the
    store holds JSON natively. `etag` is None only without `Capability.ETAG`. `content_type` is None where the store
    does not keep it. `expires_at` is in UTC, None when the item lives for ever.
    """

    data: bytes
    etag: str | None = None
    content_type: str | None = None
    expires_at: datetime | None = None
    metadata: Mapping[str, str] = NO_METADATA

    def text(self) -> str:
        """Return the value as text: the content of a JSON string, else the bytes as UTF-8.

        Raises `UnicodeDecodeError` for bytes that are not UTF-8.
        """
        text = self.data.decode()
        if text.startswith('"') and text.endswith('"') and len(text) > 1:
            try:
                value = json.loads(text)
            except ValueError:
                return text
            if isinstance(value, str):
                return value
        return text

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, type: type[T]) -> T: ...
    def json(self, type: Any = None) -> Any:
        """Decode the value as JSON.

        With `type` (a dataclass, TypedDict, msgspec Struct, pydantic model, `list[int]`, ...) the value is checked
        and converted. Raises `ValueError` when it is not JSON or does not fit.
        """
        return decode_json(self.data, type)


# What a driver receives. Keys are final: any prefix has been added.


class GetRequest(msgspec.Struct, frozen=True, gc=False):
    """Read one key."""

    key: str
    consistency: Consistency | None = None
    metadata: Mapping[str, str] = NO_METADATA


class SetRequest(msgspec.Struct, frozen=True, gc=False):
    """Write one key.

    `value` is stored as it is. `ttl` is the lifetime in whole seconds, None for ever; an older lifetime is
    replaced either way. `precondition` None writes always.
    """

    key: str
    value: bytes
    content_type: str | None = None
    precondition: Precondition | None = None
    ttl: int | None = None
    consistency: Consistency | None = None
    metadata: Mapping[str, str] = NO_METADATA


class DeleteRequest(msgspec.Struct, frozen=True, gc=False):
    """Remove one key. `precondition` None removes it whether or not it is there."""

    key: str
    precondition: IfMatch | None = None
    consistency: Consistency | None = None
    metadata: Mapping[str, str] = NO_METADATA


class TransactionRequest(msgspec.Struct, frozen=True, gc=False):
    """Apply all operations in order, or none."""

    operations: tuple[SetRequest | DeleteRequest, ...]
    metadata: Mapping[str, str] = NO_METADATA


class KeysRequest(msgspec.Struct, frozen=True, gc=False):
    """List keys that match a LIKE `pattern` (`%` any run, `_` one character, backslash escapes), case-sensitively.

    `token` is the last key of the page before, in code-point order; `page_size` None means all keys.
    """

    pattern: str
    token: str | None = None
    page_size: int | None = None
    metadata: Mapping[str, str] = NO_METADATA


class DeletePrefixRequest(msgspec.Struct, frozen=True, gc=False):
    """Remove every key that is `prefix` (ending in two bars) and a rest without two bars."""

    prefix: str
    metadata: Mapping[str, str] = NO_METADATA


class QueryRequest(msgspec.Struct, frozen=True, gc=False):
    """Find JSON values among the keys that start with `key_prefix`.

    `filter` None selects all. `sort` lists paths with True for descending. `limit` None means one page of all.
    """

    filter: Any = None
    sort: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None
    token: str | None = None
    key_prefix: str = ""
    metadata: Mapping[str, str] = NO_METADATA


# What an application hands in for several operations at once.


class SetOperation(msgspec.Struct, frozen=True):
    """One write of `bulk_set` or `transaction`; the fields mean what they mean in `StateStore.set`."""

    key: str
    value: Any
    etag: str | None = None
    concurrency: Concurrency | str | None = None
    consistency: Consistency | str | None = None
    ttl: timedelta | int | None = None
    content_type: str | None = None
    metadata: Mapping[str, str] = NO_METADATA


class DeleteOperation(msgspec.Struct, frozen=True):
    """One removal of `bulk_delete` or `transaction`; the fields mean what they mean in `StateStore.delete`."""

    key: str
    etag: str | None = None
    concurrency: Concurrency | str | None = None
    consistency: Consistency | str | None = None
    metadata: Mapping[str, str] = NO_METADATA


# What comes back.


class BulkGetOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one key of `bulk_get`: `item` is None when the key is missing or `error` is set."""

    key: str
    item: StateItem | None = None
    error: LapelError | None = None


class BulkOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one operation of `bulk_set` or `bulk_delete`: it was applied unless `error` is set."""

    key: str
    etag: str | None = None
    error: LapelError | None = None


class KeysPage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Keys in code-point order. `token` is None on the last page; else pass it for the next one."""

    keys: Sequence[str]
    token: str | None = None


class QueryItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One hit of a query."""

    key: str
    item: StateItem


class QueryResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hits in the order asked for. `token` is None on the last page; else pass it in `page` for the next one."""

    items: Sequence[QueryItem]
    token: str | None = None
    metadata: Mapping[str, str] = NO_METADATA
