"""A scripted state driver, and a fixture that opens stores on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from lapel.component import ComponentOptions
from lapel.descriptor import Capability, Descriptor, Kind, Limits
from lapel.driver import DriverContext
from lapel.errors import (
    LapelError,
)
from lapel.policy import RetryPolicy
from lapel.state import (
    DeleteRequest,
    GetRequest,
    KeysPage,
    KeysRequest,
    QueryItem,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateDriver,
    StateItem,
    StateSettings,
    StateStore,
    TransactionRequest,
)
from lapel.state.types import DeletePrefixRequest

ALL = (
    Capability.ETAG
    | Capability.TTL
    | Capability.TRANSACTIONAL
    | Capability.KEYS_LIKE
    | Capability.QUERY_API
    | Capability.DELETE_WITH_PREFIX
)
SETTINGS = StateSettings()
FAST = RetryPolicy(initial_delay=0.0, maximum_delay=0.0)


class Fake(StateDriver[StateSettings]):
    """Records every request and answers with what `script` gives: a value, an error, or a coroutine function."""

    descriptor = Descriptor(
        kind=Kind.STATE,
        name="fake",
        driver="x:Fake",
        settings="x:S",
        summary="A fake.",
        capabilities=ALL,
        limits=Limits(transaction_operations=2, bulk_items=2, value_bytes=100, key_bytes=20, ttl_seconds=1000),
    )

    def __init__(self, *script: Any, flags: Capability = ALL, ttl: int | None = None) -> None:
        super().__init__(SETTINGS, DriverContext(component="store"))
        self._capabilities = flags
        self._ttl = ttl
        self.script = list(script)
        self.seen: list[Any] = []

    @property
    def default_ttl(self) -> int | None:
        return self._ttl

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def _answer(self, request: Any, default: Any = None) -> Any:
        self.seen.append(request)
        step = self.script.pop(0) if self.script else default
        if callable(step):
            step = await step(request)
        if isinstance(step, Exception):
            raise step
        return step

    async def get(self, request: GetRequest) -> StateItem | None:
        answer: StateItem | None = await self._answer(request)
        return answer

    async def set(self, request: SetRequest) -> str | None:
        return str(await self._answer(request, "etag"))

    async def delete(self, request: DeleteRequest) -> None:
        await self._answer(request)

    async def bulk_set(self, requests: Sequence[SetRequest]) -> Sequence[str | LapelError | None]:
        self.seen.append(list(requests))
        return [request.key for request in requests]

    async def transaction(self, request: TransactionRequest) -> Sequence[str | None]:
        self.seen.append(request)
        return ["etag"] * len(request.operations)

    async def keys(self, request: KeysRequest) -> KeysPage:
        self.seen.append(request)
        return KeysPage(keys=["app||one", "app||two"], token="app||two")

    async def delete_with_prefix(self, request: DeletePrefixRequest) -> int:
        self.seen.append(request)
        return 3

    async def query(self, request: QueryRequest) -> QueryResult:
        self.seen.append(request)
        return QueryResult(items=[QueryItem(key="app||one", item=StateItem(data=b"1"))])


async def never(request: Any) -> None:
    await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def stores() -> AsyncIterator[Callable[..., Any]]:
    """Give a function that opens a store on a driver, with the options given; close all of them at the end."""
    opened: list[StateStore] = []

    async def make(driver: Fake, **options: Any) -> StateStore:
        options.setdefault("retries", FAST)
        opened.append(StateStore(driver, options=ComponentOptions(**options)))
        return await opened[-1].open()

    yield make
    for store in opened:
        await store.aclose()
