"""state.redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from copy import copy
from typing import Any, TypeVar

from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import (
    EtagMismatchError,
    InvalidArgumentError,
    LapelError,
    OperationFailedError,
    OutcomeUnknownError,
)
from lapel.jsontext import JSON_CONTENT_TYPE, is_json
from lapel.policy import RetryPolicy
from lapel.state.driver import StateDriver
from lapel.state.query import select
from lapel.state.types import (
    Consistency,
    DeleteRequest,
    GetRequest,
    KeysPage,
    KeysRequest,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateItem,
    TransactionRequest,
)

from . import STATE
from .client import LARGE, ClientLease, RedisClient
from .errors import ReplyError
from .scripts import Call, Script
from .settings import RedisStateSettings
from .state_items import Item, count_replicas, expected_of, has_commands, item_of, one, written
from .state_json import Indexes, fits_document
from .state_keys import list_keys, readable, scan_documents
from .state_scripts import (
    DELETE,
    DIFFERS,
    EXISTS,
    FOREIGN,
    LARGE_VALUE,
    MISSING,
    SET,
    SET_JSON,
    TRANSACTION,
    get_script,
)
from .topology import slot_of

__all__ = ["RedisState"]

WAIT_MILLISECONDS = 1000
"""How long a write with strong consistency waits for the replicas."""
THREAD_ITEMS = 2000
"""From this many documents on a query is evaluated on a thread."""

T = TypeVar("T")
_REFUSALS: dict[int, str] = {
    MISSING: "the key does not exist (any more), so the etag given does not match",
    DIFFERS: "the item has been written since the etag given was read",
    EXISTS: "the key exists already, and first-write without an etag only creates",
}


class RedisState(StateDriver[RedisStateSettings]):
    """Keeps each item in a hash, laid out as Dapr's, so that a sidecar can use the same data.

    Calls of all tasks share one connection and, on a single node, one run of a script. Values come back byte for byte,
    the content type does not. With `queryIndexes`, or request metadata `contentType: application/json`, JSON values
    are stored as documents instead, where the server has RedisJSON; they come back equal as JSON. Texts of older
    versions, which are neither, can be read and have no etag. A listing costs a scan of all keys of the database for
    each page. Writes with strong consistency wait a second for the replicas that were connected at `open`.
    `unwrap(redis.asyncio.Redis)` gives a client of its own, on a single node.
    """

    descriptor = STATE

    def __init__(self, settings: RedisStateSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = ClientLease(settings.options(), context.shared)
        self._client: RedisClient | None = None
        self._submit: Callable[[Call, int], Coroutine[Any, Any, Any]]
        self._get = self._get_large = get_script(expire_time=False, limit=False)
        self._has_json = False
        self._indexes: Indexes | None = None
        self._replicas: dict[Any, int] = {}

    @property
    def call_timeout(self) -> float | None:
        return self.settings.call_timeout

    @property
    def retry_policy(self) -> RetryPolicy | None:
        return self.settings.retry_policy

    @property
    def default_ttl(self) -> int | None:
        ttl = self.settings.ttl_in_seconds
        return ttl if ttl is not None and ttl > 0 else None

    async def open(self) -> None:
        client = await self._lease.acquire()
        self._client = client
        self._submit = client.submit
        expire_time, has_json, has_search = await has_commands(client, "PEXPIRETIME", "JSON.GET", "FT.SEARCH")
        self._get = get_script(expire_time=expire_time, limit=True)
        self._get_large = get_script(expire_time=expire_time, limit=False)
        self._has_json = has_json
        for node in client.primaries:
            self._replicas[node] = await count_replicas(client, node)
        if client.cluster:
            self.withdraw(Capability.TRANSACTIONAL, "a cluster's script takes keys of one slot only")
        else:
            self.withdraw(Capability.SAME_SLOT_TRANSACTIONAL, "transactions take any keys here: it is no cluster")
        reason = self._why_no_queries(has_json and has_search)
        if reason:
            self.withdraw(Capability.QUERY_API, reason)
        else:
            self._indexes = Indexes(client, self.settings.indexes)
            await self._indexes.create()

    def _why_no_queries(self, has_modules: bool) -> str | None:
        assert self._client is not None
        if self._client.cluster:
            return "the search index of a cluster's node knows its own documents only"
        if not has_modules:
            return "the server has no RedisJSON and RediSearch"
        if not self.settings.indexes:
            return "queryIndexes names no index"
        return None

    async def close(self) -> None:
        self._client = None
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().call("PING", writes=False)

    def unwrap(self, kind: type[T]) -> T:
        found = None if self._client is None else self._client.unwrap(kind)
        return super().unwrap(kind) if found is None else found

    async def get(self, request: GetRequest) -> StateItem | None:
        reply = await self._submit(Call(self._get, (request.key,), (), False), 0)
        if type(reply) is list and reply[2] == -1 and reply[1] is not None:
            return StateItem(data=reply[0], etag=reply[1].decode())
        return one(await self._item(request.key, reply))

    async def set(self, request: SetRequest) -> str | None:
        call = Call(*self._write(request))
        size = len(request.value)
        if size >= LARGE or request.consistency is Consistency.STRONG:
            (reply,), unconfirmed = await self._apart(call, strong=request.consistency is Consistency.STRONG)
            if unconfirmed is not None and type(reply) is bytes:
                raise unconfirmed
        else:
            reply = await self._submit(call, size)
        if type(reply) is bytes:
            return reply.decode()
        raise self._refused(reply)

    async def delete(self, request: DeleteRequest) -> None:
        call = Call(DELETE, (request.key,), (expected_of(request.precondition),))
        if request.consistency is Consistency.STRONG:
            (reply,), unconfirmed = await self._apart(call, strong=True)
            if unconfirmed is not None and reply == 0:
                raise unconfirmed
        else:
            reply = await self._submit(call, 0)
        if reply != 0:
            raise self._refused(reply)

    async def bulk_get(self, requests: Sequence[GetRequest]) -> Sequence[Item]:
        keys = [request.key for request in requests]
        replies = await self._many([(Call(self._get, (key,), (), False), 0, False) for key in keys])
        large = [place for place, reply in enumerate(replies) if reply == LARGE_VALUE]
        if large:
            calls = [(Call(self._get_large, (keys[place],), (), False), LARGE, False) for place in large]
            for place, reply in zip(large, await self._many(calls), strict=True):
                replies[place] = reply
        return [await self._item(key, reply) for key, reply in zip(keys, replies, strict=True)]

    async def bulk_set(self, requests: Sequence[SetRequest]) -> Sequence[str | LapelError | None]:
        results: list[Any] = [None] * len(requests)
        places, calls = [], []
        for place, request in enumerate(requests):
            try:
                call = Call(*self._write(request))
            except LapelError as exc:
                results[place] = exc
                continue
            places.append(place)
            calls.append((call, len(request.value), request.consistency is Consistency.STRONG))
        for place, reply in zip(places, await self._many(calls), strict=True):
            results[place] = reply.decode() if type(reply) is bytes else self._refused(reply)
        return results

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> Sequence[LapelError | None]:
        results: list[LapelError | None] = [None] * len(requests)
        places, calls = [], []
        for place, request in enumerate(requests):
            try:
                call = Call(DELETE, (request.key,), (expected_of(request.precondition),))
            except LapelError as exc:
                results[place] = exc
                continue
            places.append(place)
            calls.append((call, 0, request.consistency is Consistency.STRONG))
        for place, reply in zip(places, await self._many(calls), strict=True):
            results[place] = None if reply == 0 else self._refused(reply)
        return results

    async def transaction(self, request: TransactionRequest) -> Sequence[str | None]:
        client, operations = self._opened(), request.operations
        keys = tuple(operation.key for operation in operations)
        if client.cluster and len({slot_of(key) for key in keys}) > 1:
            raise InvalidArgumentError(
                "the keys are in different slots of the cluster; give them the same {tag}. Nothing was done"
            )
        args: list[str | bytes | int] = []
        size = 0
        for operation in operations:
            if isinstance(operation, SetRequest):
                script, _, (value, expected, ttl) = self._write(operation)
                args += ["J" if script is SET_JSON else "S", value, expected, ttl]
                size += len(operation.value)
            else:
                args += ["D", "", expected_of(operation.precondition), ""]
        call = Call(TRANSACTION, keys, tuple(args))
        strong = any(operation.consistency is Consistency.STRONG for operation in operations)
        if strong or size >= LARGE:
            reply, unconfirmed = await self._apart(call, strong=strong)
            if unconfirmed is not None and reply[0] == 0:
                raise unconfirmed
        else:
            reply = await self._submit(call, size)
        if reply[0] != 0:
            error = self._refused(reply[1])
            error.message = f"operation {reply[0]} of {len(operations)}: {error.message}; nothing was done"
            raise error
        return [None if etag is None else etag.decode() for etag in reply[1:]]

    async def keys(self, request: KeysRequest) -> KeysPage:
        return await list_keys(self._opened(), request, documents=self._has_json)

    async def query(self, request: QueryRequest) -> QueryResult:
        client = self._opened()
        assert self._indexes is not None
        found = await self._indexes.candidates(request.metadata, request.filter)
        keys = await scan_documents(client, request.key_prefix) if found is None else readable(found)
        items: list[tuple[str, StateItem]] = []
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            (replies,) = await client.apart(Call(self._get_large, tuple(part), (), False), writes=False)
            if isinstance(replies, ReplyError):
                raise client.translate(replies) from None
            for key, reply in zip(part, replies, strict=True):
                if type(reply) is list and len(reply) == 4:
                    items.append((key, item_of(reply)))
        if len(items) > THREAD_ITEMS:
            return await asyncio.to_thread(select, request, items)
        return select(request, items)

    # inside

    def _opened(self) -> RedisClient:
        assert self._client is not None, "the component makes no call before open or after close"
        return self._client

    def _write(self, request: SetRequest) -> tuple[Script, tuple[str], tuple[bytes, str, int | str]]:
        """Return script, key and arguments of a write. Raises `EtagInvalidError`."""
        expected = "" if request.precondition is None else expected_of(request.precondition)
        ttl = "" if request.ttl is None else request.ttl
        script = SET_JSON if self._has_json and self._as_document(request) else SET
        return script, (request.key,), (request.value, expected, ttl)

    def _as_document(self, request: SetRequest) -> bool:
        if self._indexes is None and request.metadata.get("contentType") != JSON_CONTENT_TYPE:
            return False
        return is_json(request.content_type) and fits_document(request.value)

    async def _many(self, calls: Sequence[tuple[Call, int, bool]]) -> list[Any]:
        """Make calls of one key each, given with their size and whether they are strong; an error in its place each.

        Calls on one key are made in order.
        """
        client = self._opened()
        groups: dict[Any, list[int]] = {}
        for place, (call, _, _) in enumerate(calls):
            part = (call.script, slot_of(call.keys[0])) if client.cluster else call.script
            groups.setdefault(part, []).append(place)
        results: list[Any] = [None] * len(calls)

        async def send(places: list[int]) -> None:
            chosen = [calls[place] for place in places]
            first = chosen[0][0]
            keys = tuple(call.keys[0] for call, _, _ in chosen)
            args = tuple(arg for call, _, _ in chosen for arg in call.args)
            size = sum(size for _, size, _ in chosen)
            strong = any(strong for _, _, strong in chosen)
            call = Call(first.script, keys, args, first.writes)
            try:
                if strong or size >= LARGE:
                    replies, unconfirmed = await self._apart(call, strong=strong)
                    if unconfirmed is not None:
                        pairs = zip(replies, chosen, strict=True)
                        replies = [
                            copy(unconfirmed) if mine and written(reply) else reply for reply, (*_, mine) in pairs
                        ]
                else:
                    replies = await self._submit(call, size)
                    replies = [replies] if len(keys) == 1 else replies
            except LapelError as exc:
                replies = [exc] * len(places)
            for place, reply in zip(places, replies, strict=True):
                results[place] = reply

        if len(groups) == 1:
            await send(next(iter(groups.values())))
        elif client.cluster:
            async with asyncio.TaskGroup() as tasks:
                for places in groups.values():
                    tasks.create_task(send(places))
        else:
            # The same key may be in two groups, and then the order counts.
            for places in groups.values():
                await send(places)
        return results

    async def _apart(self, call: Call, *, strong: bool) -> tuple[list[Any], OutcomeUnknownError | None]:
        """Run a script on a connection of the pool and return its reply; with `strong` wait for the replicas.

        Also returns what to raise for what it wrote, when too few of them have it.
        """
        client, key = self._opened(), call.keys[0]
        replicas = await self._replicas_of(key) if strong else 0
        commands: list[Any] = [call]
        timeout = client.options.read_timeout
        if replicas:
            commands.append(("WAIT", replicas, WAIT_MILLISECONDS))
            timeout = None if timeout is None else timeout + WAIT_MILLISECONDS / 1000
        reply, *rest = await client.apart(*commands, key=key, writes=call.writes, timeout=timeout)
        if isinstance(reply, ReplyError):
            raise client.translate(reply) from None
        unconfirmed = None
        if rest and (isinstance(rest[0], ReplyError) or rest[0] < replicas):
            count = "an unknown number" if isinstance(rest[0], ReplyError) else str(rest[0])
            unconfirmed = OutcomeUnknownError(
                f"{client.place}: the primary has the write, but only {count} of {replicas} replicas confirmed it "
                f"within {WAIT_MILLISECONDS / 1000:g} s; it may be lost if the primary fails now"
            )
            # Sent again, it would find the etag of this write, and say less.
            unconfirmed.repeatable = False
        return reply, unconfirmed

    async def _replicas_of(self, key: str | bytes) -> int:
        client = self._opened()
        node = client.node_of(key)
        if not self._replicas.get(node):
            self._replicas[node] = await count_replicas(client, node)
        return self._replicas[node]

    async def _item(self, key: str, reply: Any) -> Item:
        if reply is None or isinstance(reply, LapelError):
            return reply
        if type(reply) is list:
            return item_of(reply)
        if reply == LARGE_VALUE:
            client = self._opened()
            (answer,) = await client.apart(Call(self._get_large, (key,), (), False), key=key, writes=False)
            reply = answer if isinstance(answer, ReplyError) else answer[0]
            if reply is None or type(reply) is list:
                return None if reply is None else item_of(reply)
        if reply == FOREIGN:
            return OperationFailedError(
                f"key {key!r} holds something that is not a state item; another program uses it. Use a key prefix, or "
                "remove it"
            )
        return self._refused(reply)

    def _refused(self, reply: Any) -> LapelError:
        if isinstance(reply, LapelError):
            return reply
        if isinstance(reply, ReplyError):
            return self._opened().translate(reply)
        text = _REFUSALS.get(reply)
        if text is None:
            return OperationFailedError(f"{self._opened().place}: a script returned what it should not")
        return EtagMismatchError(text)
