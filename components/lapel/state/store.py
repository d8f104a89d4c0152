"""The state store that an application holds."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from ..component import Component
from ..descriptor import Capability
from ..errors import EtagMismatchError, InvalidArgumentError, LapelError, OperationFailedError
from ..policy import Effect, Operation
from .driver import StateDriver
from .query import parse_query
from .requests import RequestBuilder
from .types import (
    NO_METADATA,
    BulkGetOutcome,
    BulkOutcome,
    Concurrency,
    Consistency,
    DeleteOperation,
    DeletePrefixRequest,
    DeleteRequest,
    GetRequest,
    KeysPage,
    KeysRequest,
    QueryItem,
    QueryRequest,
    QueryResult,
    SetOperation,
    SetRequest,
    StateItem,
    TransactionRequest,
)

__all__ = ["StateStore"]

T = TypeVar("T")
Q = TypeVar("Q", GetRequest, SetRequest, DeleteRequest)

GET = Operation("get", Effect.SAFE)
SET = Operation("set", Effect.UNSAFE)
SET_IF = Operation("set", Effect.CONDITIONAL)
DELETE = Operation("delete", Effect.UNSAFE)
DELETE_IF = Operation("delete", Effect.CONDITIONAL)
CONDITIONAL = {SET: SET_IF, DELETE: DELETE_IF}
BULK_GET = Operation("bulk_get", Effect.SAFE)
BULK_SET = Operation("bulk_set", Effect.UNSAFE)
BULK_DELETE = Operation("bulk_delete", Effect.UNSAFE)
TRANSACTION = Operation("transaction", Effect.UNSAFE)
KEYS = Operation("keys", Effect.SAFE)
QUERY = Operation("query", Effect.SAFE)
DELETE_WITH_PREFIX = Operation("delete_with_prefix", Effect.UNSAFE)


class StateStore(Component[StateDriver[Any]]):
    """A key-value store. All calls may overlap.

    Keys are non-empty text without NUL, distinct by code point. With an app id they are prefixed as the
    component's `keyPrefix` says, and two bars (`||`) in a key are refused.
    """

    def _use(self, driver: StateDriver[Any]) -> None:
        super()._use(driver)
        self._requests = RequestBuilder(driver, self.options)

    async def _opened(self) -> None:
        self._requests.refresh()

    async def get(
        self,
        key: str,
        *,
        consistency: Consistency | str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> StateItem | None:
        """Return the item, or None when the key is missing or has expired. An empty value is not missing."""
        return await self._call(GET, self._driver.get, self._requests.get(key, consistency, metadata))

    async def set(
        self,
        key: str,
        value: Any,
        *,
        etag: str | None = None,
        concurrency: Concurrency | str | None = None,
        consistency: Consistency | str | None = None,
        ttl: timedelta | int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> str | None:
        """Store a value durably and return its new etag (None without `Capability.ETAG`).

        Bytes are stored as they are; every other value as JSON, text as a JSON string. With `etag` the write
        happens only if the stored item still has it; an empty etag is no etag. `concurrency="first-write"`
        without an etag creates only. `ttl` is a lifetime in whole seconds: None takes the component's default or
        for ever, -1 is for ever; an older lifetime is replaced either way.

        Raises `EtagMismatchError`, `EtagInvalidError`, `InvalidArgumentError`, `UnsupportedError`, and
        `OutcomeUnknownError` when the write was sent but its fate is not known.
        """
        request = self._requests.set(key, value, etag, concurrency, consistency, ttl, content_type, metadata)
        return await self._call(SET if request.precondition is None else SET_IF, self._driver.set, request)

    async def delete(
        self,
        key: str,
        *,
        etag: str | None = None,
        concurrency: Concurrency | str | None = None,
        consistency: Consistency | str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> None:
        """Remove a key; a missing one is no error unless `etag` is given.

        First-write without an etag is a plain delete. Raises as `set` does.
        """
        request = self._requests.delete(DeleteOperation(key, etag, concurrency, consistency, metadata))
        await self._call(DELETE if request.precondition is None else DELETE_IF, self._driver.delete, request)

    async def update(self, key: str, change: Callable[[StateItem | None], Any], *, tries: int = 20) -> Any:
        """Read, change and write back one key until nobody else wrote in between; return the value written.

        `change` gets the stored item, or None when there is none, and returns the new value; it may be a
        coroutine function and is called again after each conflict. Raises `EtagMismatchError` after `tries`
        conflicts. Needs `Capability.ETAG`.
        """
        self._need(Capability.ETAG, "update")
        if type(tries) is not int or tries < 1:
            raise self._invalid(f"tries is {tries!r}; it must be a whole number from 1", "update")
        attempt = 1
        while True:
            item = await self.get(key)
            value = change(item)
            if inspect.isawaitable(value):
                value = await value
            try:
                if item is None:
                    await self.set(key, value, concurrency=Concurrency.FIRST_WRITE)
                else:
                    await self.set(key, value, etag=item.etag)
            except EtagMismatchError:
                if attempt >= tries:
                    raise
                attempt += 1
                continue
            return value

    async def bulk_get(
        self,
        keys: Sequence[str],
        *,
        parallelism: int = 10,
        consistency: Consistency | str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> list[BulkGetOutcome]:
        """Read many keys; one outcome for each, in request order, duplicates included.

        A key that cannot be read has its error in its outcome. `parallelism` bounds the calls under way at once
        where the driver has no native bulk.
        """
        keys = self._entries(keys, object, "bulk_get")
        build = partial(self._requests.get, consistency=consistency, metadata=metadata)
        results = await self._bulk(BULK_GET, GET, keys, build, self._driver.bulk_get, self._driver.get, parallelism)
        return [
            BulkGetOutcome(key=key, error=result) if isinstance(result, LapelError) else _found(key, result)
            for key, result in zip(keys, results, strict=True)
        ]

    async def bulk_set(self, operations: Sequence[SetOperation], *, parallelism: int = 10) -> list[BulkOutcome]:
        """Write many keys; one outcome for each, in request order. Never a transaction: good ones are applied.

        Operations on one key are applied in request order, never in parallel.
        """
        operations = self._entries(operations, SetOperation, "bulk_set")
        results = await self._bulk(
            BULK_SET, SET, operations, self._requests.set_of, self._driver.bulk_set, self._driver.set, parallelism
        )
        return [
            BulkOutcome(key=operation.key, error=result)
            if isinstance(result, LapelError)
            else BulkOutcome(key=operation.key, etag=result)
            for operation, result in zip(operations, results, strict=True)
        ]

    async def bulk_delete(
        self, operations: Sequence[DeleteOperation | str], *, parallelism: int = 10
    ) -> list[BulkOutcome]:
        """Remove many keys, given as text or with their etags; one outcome for each, as `bulk_set`."""
        given = self._entries(operations, (DeleteOperation, str), "bulk_delete")
        full = [DeleteOperation(entry) if isinstance(entry, str) else entry for entry in given]
        results = await self._bulk(
            BULK_DELETE,
            DELETE,
            full,
            self._requests.delete,
            self._driver.bulk_delete,
            self._driver.delete,
            parallelism,
        )
        return [
            BulkOutcome(key=operation.key, error=result if isinstance(result, LapelError) else None)
            for operation, result in zip(full, results, strict=True)
        ]

    async def transaction(
        self,
        operations: Iterable[SetOperation | DeleteOperation],
        *,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> list[str | None]:
        """Apply all operations in order, or none; return the new etag of each set and None for each delete.

        Each operation is checked against the state that the earlier ones leave. The error of the first refused
        operation is raised and nothing is changed. An empty list does nothing. More operations than
        `limits.transaction_operations` raise `InvalidArgumentError` before anything is sent.
        """
        if not self.capabilities & (Capability.TRANSACTIONAL | Capability.SAME_SLOT_TRANSACTIONAL):
            self._need(Capability.TRANSACTIONAL, "transaction")
        requests = tuple(
            self._requests.set_of(operation)
            if isinstance(operation, SetOperation)
            else self._requests.delete(operation)
            for operation in self._entries(operations, (SetOperation, DeleteOperation), "transaction")
        )
        limit = self.limits.transaction_operations
        if limit is not None and len(requests) > limit:
            raise self._invalid(f"{len(requests)} operations are more than the limit of {limit}", "transaction")
        if not requests:
            if self._loop is not asyncio.get_running_loop():
                raise self._unusable("transaction")
            return []
        return list(await self._call(TRANSACTION, self._driver.transaction, TransactionRequest(requests, metadata)))

    async def keys(
        self,
        pattern: str = "%",
        *,
        page_size: int | None = None,
        token: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> KeysPage:
        """List keys that match a LIKE pattern, in code-point order.

        `%` is any run of characters, `_` one, a backslash makes either literal; case matters. All keys come in
        one page unless `page_size` is given; then `token` of the page is set while more follow. Keys present
        throughout a listing appear exactly once, whatever else changes meanwhile.
        """
        self._need(Capability.KEYS_LIKE, "keys")
        page = await self._call(
            KEYS, self._driver.keys, self._requests.keys(KeysRequest(pattern, token, page_size, metadata))
        )
        return self._requests.keys_page(page)

    async def delete_with_prefix(self, prefix: str, *, metadata: Mapping[str, str] = NO_METADATA) -> int:
        """Remove the keys directly below `prefix` and return how many there were.

        Two bars are appended when the prefix does not end in them. Keys with further bars after the prefix
        stay. An empty prefix, or one of just two bars, is refused.
        """
        self._need(Capability.DELETE_WITH_PREFIX, "delete_with_prefix")
        request = self._requests.delete_with_prefix(DeletePrefixRequest(prefix, metadata))
        return await self._call(DELETE_WITH_PREFIX, self._driver.delete_with_prefix, request)

    async def query(
        self, query: Mapping[str, Any] | str | bytes, *, metadata: Mapping[str, str] = NO_METADATA
    ) -> QueryResult:
        """Find JSON values with Dapr's query document: `filter`, `sort` and `page`.

        Only keys of this application are searched when an app id is given. Raises `InvalidArgumentError` for a
        document that is not a query.
        """
        self._need(Capability.QUERY_API, "query")
        try:
            parsed = parse_query(query)
        except InvalidArgumentError as exc:
            raise self._invalid(exc.message, "query") from None
        request = QueryRequest(
            filter=parsed.filter,
            sort=parsed.sort,
            limit=parsed.limit,
            token=parsed.token,
            key_prefix=self._requests.prefix,
            metadata=metadata,
        )
        result = await self._call(QUERY, self._driver.query, request)
        skip = len(self._requests.prefix)
        if not skip:
            return result
        items = [QueryItem(key=hit.key[skip:], item=hit.item) for hit in result.items]
        return QueryResult(items=items, token=result.token, metadata=result.metadata)

    def _entries(self, given: Iterable[Any], kinds: type[Any] | tuple[type[Any], ...], operation: str) -> list[Any]:
        """Return what a call was given for several keys, after a look at the types."""
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise self._invalid(f"expected a list of keys or operations, not {type(given).__name__}", operation)
        entries = list(given)
        for index, entry in enumerate(entries):
            if not isinstance(entry, kinds):
                expected = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
                text = f"entry {index} is of type {type(entry).__name__}; expected {expected}"
                raise self._invalid(text, operation)
        return entries

    async def _bulk(
        self,
        bulk: Operation,
        single: Operation,
        entries: Sequence[Any],
        build: Callable[[Any], Q],
        native: Callable[[Sequence[Q]], Awaitable[Sequence[Any]]],
        one: Callable[[Q], Awaitable[Any]],
        parallelism: int,
    ) -> list[Any]:
        if self._loop is not asyncio.get_running_loop():
            raise self._unusable(bulk.name)
        if type(parallelism) is not int:
            raise self._invalid(f"parallelism is {parallelism!r}; it must be a whole number", bulk.name)
        results: list[Any] = [None] * len(entries)
        good: list[tuple[int, Q]] = []
        for index, entry in enumerate(entries):
            try:
                good.append((index, build(entry)))
            except LapelError as exc:
                exc.locate(component=self.name, driver=self.type, operation=bulk.name)
                results[index] = exc
        if Capability.BULK_STATE in self.capabilities:
            size = self.limits.bulk_items or len(good) or 1
            for start in range(0, len(good), size):
                part = good[start : start + size]
                asking = _Asking(native) if bulk.effect is Effect.SAFE else None
                try:
                    answers = await self._call_entries(bulk, asking or native, [request for _, request in part])
                except LapelError as exc:
                    answers = (asking and asking.answers) or [exc] * len(part)
                if len(answers) != len(part):
                    raise OperationFailedError(f"the driver gave {len(answers)} answers to {len(part)} requests")
                for (index, _), answer in zip(part, answers, strict=True):
                    if isinstance(answer, LapelError):
                        self._located(answer, bulk.name)
                    results[index] = answer
            return results

        by_key: dict[str, list[tuple[int, Q]]] = {}
        for index, request in good:
            by_key.setdefault(request.key, []).append((index, request))
        gate = asyncio.Semaphore(parallelism if parallelism > 0 else max(1, len(good)))

        async def apply(group: list[tuple[int, Q]]) -> None:
            async with gate:
                for index, request in group:
                    conditional = getattr(request, "precondition", None) is not None
                    operation = CONDITIONAL[single] if conditional else single
                    try:
                        results[index] = await self._call(operation, one, request)
                    except LapelError as exc:
                        results[index] = exc

        async with asyncio.TaskGroup() as tasks:
            for group in by_key.values():
                tasks.create_task(apply(group))
        return results


class _Asking:
    """A bulk read that is repeated as a whole when one of its answers is an error that may be."""

    def __init__(self, native: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]]) -> None:
        self._native = native
        self.answers: Sequence[Any] = ()
        """Those of the last try that gave some."""

    async def __call__(self, requests: Sequence[Any]) -> Sequence[Any]:
        self.answers = answers = await self._native(requests)
        for answer in answers:
            if isinstance(answer, LapelError) and answer.retryable:
                raise answer
        return answers


def _found(key: str, item: StateItem | None) -> BulkGetOutcome:
    return BulkGetOutcome(key=key, item=item)
