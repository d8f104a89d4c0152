"""The fault suite of state stores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from ...component import Component
from ...descriptor import Capability
from ...policy import Effect
from ...state import DeleteOperation, SetOperation, StateStore
from ..state.base import TRANSACTIONS, StateBase, found
from .base import Request
from .cancellation import CancellationTests
from .connection import ConnectionTests

__all__ = ["StateFaultSuite"]

_NEW, _OLD = b"new", b"old"


class StateFaultSuite(ConnectionTests, CancellationTests, StateBase):
    """What every state store must show when something breaks. Override the fixture `backend`."""

    def requests(self, component: Component[Any], behind: Component[Any], name: str) -> Sequence[Request]:
        """Return all calls that read or write one key, alone, in bulk and in transactions."""
        store, other = cast("StateStore", component), cast("StateStore", behind)
        flags = store.capabilities

        def reading(call: str, send: Callable[[str], Awaitable[object]], *, marked: bool = True) -> Request:
            key = f"{name}{call}"
            return Request(
                name=call,
                effect=Effect.SAFE,
                mark=key if marked else "",
                prepare=lambda: other.set(key, _OLD),
                send=lambda: send(key),
            )

        def writing(
            call: str, send: Callable[[str], Awaitable[object]], effect: Effect = Effect.UNSAFE, *, old: bool = True
        ) -> Request:
            key = f"{name}{call}"

            async def done() -> int:
                item = await other.get(key)
                return int(item is not None and item.data == _NEW)

            return Request(
                name=call,
                effect=effect,
                mark=key,
                prepare=(lambda: other.set(key, _OLD)) if old else None,
                send=lambda: send(key),
                done=done,
            )

        def removing(call: str, send: Callable[[str], Awaitable[object]]) -> Request:
            key = f"{name}{call}"

            async def done() -> int:
                return int(await other.get(key) is None)

            return Request(
                name=call,
                effect=Effect.UNSAFE,
                mark=key,
                prepare=lambda: other.set(key, _OLD),
                send=lambda: send(key),
                done=done,
            )

        async def get(key: str) -> None:
            assert (await found(store, key)).data == _OLD

        async def bulk_get(key: str) -> None:
            (outcome,) = await store.bulk_get([key])
            _raise(outcome)
            assert outcome.item is not None
            assert outcome.item.data == _OLD

        async def bulk_set(key: str) -> None:
            _raise((await store.bulk_set([SetOperation(key, _NEW)]))[0])

        async def bulk_delete(key: str) -> None:
            _raise((await store.bulk_delete([key]))[0])

        async def keys(key: str) -> None:
            assert (await store.keys(f"{key}%")).keys == [key]

        offered = [
            reading("get", get),
            writing("set", lambda key: store.set(key, _NEW)),
            writing("create", lambda key: store.set(key, _NEW), old=False),
            removing("delete", store.delete),
            reading("bulkget", bulk_get),
            writing("bulkset", bulk_set),
            removing("bulkdelete", bulk_delete),
        ]
        if Capability.ETAG in flags:

            async def set_if(key: str) -> None:
                item = await found(other, key)
                await store.set(key, _NEW, etag=item.etag)

            offered.append(writing("setif", set_if, Effect.CONDITIONAL))
            offered.append(writing("update", lambda key: store.update(key, lambda _: _NEW), Effect.CONDITIONAL))
        if flags & TRANSACTIONS:
            offered.append(writing("transaction", lambda key: store.transaction([SetOperation(key, _NEW)])))
            offered.append(removing("removal", lambda key: store.transaction([DeleteOperation(key)])))
        if Capability.KEYS_LIKE in flags:
            # A store may list everything and choose by itself.
            offered.append(reading("keys", keys, marked=False))
        return offered


def _raise(outcome: Any) -> None:
    if outcome.error is not None:
        raise outcome.error
