"""state.in-memory."""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import islice
from time import monotonic
from typing import TypeVar

from lapel.driver import DriverContext
from lapel.errors import EtagMismatchError, LapelError
from lapel.jsontext import is_json
from lapel.state.driver import StateDriver
from lapel.state.like import compile_like, like_prefix, parse_like
from lapel.state.query import select
from lapel.state.types import (
    DeletePrefixRequest,
    DeleteRequest,
    GetRequest,
    IfMatch,
    KeysPage,
    KeysRequest,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateItem,
    TransactionRequest,
)

from . import STATE
from .settings import MemoryStateSettings

__all__ = ["MemoryState"]

SWEEP_SECONDS = 1.0
SWEEP_ITEMS = 1000
"""Most expired items removed in one turn of the event loop."""
THREAD_ITEMS = 2000
"""From this many keys on, listings and queries run on a thread."""

R = TypeVar("R")
T = TypeVar("T")


class MemoryState(StateDriver[MemoryStateSettings]):
    """Keeps items in a dictionary. Every operation but listing and query ends without giving up the event loop.

    Lifetimes are measured by the monotonic clock; `expires_at` is what the wall clock showed at the write plus the
    lifetime. Values come back byte for byte, with their content type. Queries see values written as JSON.
    """

    descriptor = STATE

    def __init__(self, settings: MemoryStateSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._items: dict[str, StateItem] = {}
        self._ends: dict[str, float] = {}
        """For keys with a lifetime, when it ends by the monotonic clock."""
        self._queue: list[tuple[float, str]] = []
        """A heap of all ends, with entries of keys that were written again meanwhile."""
        self._sweep: asyncio.TimerHandle | None = None
        # A counter alone would repeat itself in the next process, for clients that kept an etag.
        self._etag_start = secrets.token_hex(4) + "-"
        self._writes = 0

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._items.clear()
        self._ends.clear()
        self._queue.clear()

    async def ping(self) -> None:
        pass

    async def get(self, request: GetRequest) -> StateItem | None:
        item = self._items.get(request.key)
        if item is None or item.expires_at is None:
            return item
        return self._live(request.key)

    async def set(self, request: SetRequest) -> str | None:
        return self._set(request)

    async def delete(self, request: DeleteRequest) -> None:
        self._delete(request)

    async def bulk_get(self, requests: Sequence[GetRequest]) -> Sequence[StateItem | LapelError | None]:
        return [self._live(request.key) for request in requests]

    async def bulk_set(self, requests: Sequence[SetRequest]) -> Sequence[str | LapelError | None]:
        return [_outcome(self._set, request) for request in requests]

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> Sequence[LapelError | None]:
        return [_outcome(self._delete, request) for request in requests]

    async def transaction(self, request: TransactionRequest) -> Sequence[str | None]:
        before: dict[str, tuple[StateItem | None, float | None]] = {}
        etags: list[str | None] = []
        try:
            for operation in request.operations:
                key = operation.key
                if key not in before:
                    before[key] = (self._items.get(key), self._ends.get(key))
                if isinstance(operation, SetRequest):
                    etags.append(self._set(operation))
                else:
                    self._delete(operation)
                    etags.append(None)
        except BaseException:
            for key, (item, end) in before.items():
                self._restore(key, item, end)
            raise
        return etags

    async def keys(self, request: KeysRequest) -> KeysPage:
        self._purge()
        token, size = request.token, request.page_size
        keys = list(self._items)

        def find() -> list[str]:
            matches = compile_like(request.pattern).fullmatch
            prefix = like_prefix(parse_like(request.pattern))
            found = sorted(key for key in keys if key.startswith(prefix))
            rest = islice(found, 0 if token is None else bisect_right(found, token), None)
            return list(islice(filter(matches, rest), None if size is None else size + 1))

        found = await _run(find, len(keys))
        if size is None or len(found) <= size:
            return KeysPage(keys=found)
        return KeysPage(keys=found[:size], token=found[size - 1])

    async def delete_with_prefix(self, request: DeletePrefixRequest) -> int:
        self._purge()
        prefix, skip = request.prefix, len(request.prefix)
        doomed = [key for key in self._items if key.startswith(prefix) and "||" not in key[skip:]]
        for key in doomed:
            self._remove(key)
        return len(doomed)

    async def query(self, request: QueryRequest) -> QueryResult:
        self._purge()
        items = [(key, item) for key, item in self._items.items() if is_json(item.content_type)]
        return await _run(lambda: select(request, items), len(items))

    def _live(self, key: str) -> StateItem | None:
        item = self._items.get(key)
        if item is not None and item.expires_at is not None and self._ends[key] <= monotonic():
            self._remove(key)
            return None
        return item

    def _set(self, request: SetRequest) -> str:
        key, precondition = request.key, request.precondition
        if precondition is not None:
            item = self._live(key)
            if isinstance(precondition, IfMatch):
                _check(item, precondition)
            elif item is not None:
                raise EtagMismatchError("the key exists already, and first-write without an etag only creates")
        self._writes += 1
        etag = f"{self._etag_start}{self._writes}"
        ttl = request.ttl
        if ttl is None:
            self._items[key] = StateItem(data=request.value, etag=etag, content_type=request.content_type)
            if self._ends:
                self._ends.pop(key, None)
            return etag
        end = monotonic() + ttl
        self._items[key] = StateItem(
            data=request.value,
            etag=etag,
            content_type=request.content_type,
            expires_at=datetime.now(UTC) + timedelta(seconds=ttl),
        )
        self._expire(key, end)
        return etag

    def _delete(self, request: DeleteRequest) -> None:
        if request.precondition is not None:
            _check(self._live(request.key), request.precondition)
        self._remove(request.key)

    def _remove(self, key: str) -> None:
        self._items.pop(key, None)
        if self._ends:
            self._ends.pop(key, None)

    def _restore(self, key: str, item: StateItem | None, end: float | None) -> None:
        self._remove(key)
        if item is not None:
            self._items[key] = item
            if end is not None:
                self._expire(key, end)

    def _expire(self, key: str, end: float) -> None:
        self._ends[key] = end
        heappush(self._queue, (end, key))
        if len(self._queue) > 2 * len(self._ends) + 64:
            self._queue = [(end, key) for key, end in self._ends.items()]
            heapify(self._queue)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep_some)

    def _due(self) -> Iterator[str]:
        now, queue = monotonic(), self._queue
        while queue and queue[0][0] <= now:
            end, key = heappop(queue)
            if self._ends.get(key) == end:
                yield key

    def _purge(self) -> None:
        for key in self._due():
            self._remove(key)

    def _sweep_some(self) -> None:
        count = 0
        for key in islice(self._due(), SWEEP_ITEMS):
            self._remove(key)
            count += 1
        self._sweep = None
        if self._queue:
            pause = 0.0 if count == SWEEP_ITEMS else SWEEP_SECONDS
            self._sweep = asyncio.get_running_loop().call_later(pause, self._sweep_some)


def _check(item: StateItem | None, precondition: IfMatch) -> None:
    if item is None:
        raise EtagMismatchError("the key does not exist (any more), so the etag given does not match")
    if item.etag != precondition.etag:
        raise EtagMismatchError("the item has been written since the etag given was read")


def _outcome(method: Callable[[R], T], request: R) -> T | LapelError:
    try:
        return method(request)
    except LapelError as exc:
        return exc


async def _run(fn: Callable[[], T], items: int) -> T:
    return await asyncio.to_thread(fn) if items > THREAD_ITEMS else fn()
