"""What the tests of state stores have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, cast

import pytest

from ...component import Component
from ...descriptor import Capability, Kind
from ...state import DeleteOperation, SetOperation, StateDriver, StateItem, StateStore
from ..harness import ComponentHooks, Operations
from ..subject import Subject

__all__ = ["TRANSACTIONS", "StateBase", "found"]

TRANSACTIONS = Capability.TRANSACTIONAL | Capability.SAME_SLOT_TRANSACTIONAL


class StateBase(ComponentHooks):
    """Fixtures and hooks of the state suite."""

    kind = Kind.STATE
    front = StateStore
    options: ClassVar[Mapping[str, Any]] = {
        **ComponentHooks.options,
        "badEtag": "bad-etag",
        "shared": "false",
    }
    driver_base = StateDriver
    methods = {  # noqa: RUF012  # declared as a ClassVar by the base class
        TRANSACTIONS: ("transaction",),
        Capability.QUERY_API: ("query",),
        Capability.KEYS_LIKE: ("keys",),
        Capability.DELETE_WITH_PREFIX: ("delete_with_prefix",),
        Capability.BULK_STATE: ("bulk_get", "bulk_set", "bulk_delete"),
    }

    @pytest.fixture
    def store(self, opened: Component[Any]) -> StateStore:
        """Return an open store."""
        return cast("StateStore", opened)

    @pytest.fixture
    def bad_etag(self, subject: Subject) -> str:
        """Return a well-formed etag that no item has."""
        return str(self.option(subject, "badEtag"))

    async def exercise(self, component: Component[Any], payload: str) -> None:
        """Write and read back a value of its own key."""
        store = cast("StateStore", component)
        key = f"exercise-{hash(payload):x}"
        await store.set(key, payload.encode())
        assert (await found(store, key)).data == payload.encode()

    def operations(self, component: Component[Any], payload: str) -> Operations:
        """Return all operations that the store offers."""
        store = cast("StateStore", component)
        key = f"{{operations}}{hash(payload):x}"
        offered: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: store.get(key),
            "set": lambda: store.set(key, payload),
            "delete": lambda: store.delete(key),
            "bulk_get": lambda: store.bulk_get([key, f"{key}2"]),
            "bulk_set": lambda: store.bulk_set([SetOperation(key, payload)]),
            "bulk_delete": lambda: store.bulk_delete([key]),
        }
        flags = store.capabilities
        if flags & TRANSACTIONS:
            both: list[SetOperation | DeleteOperation] = [SetOperation(key, payload), DeleteOperation(f"{key}2")]
            offered["transaction"] = lambda: store.transaction(both)
            offered["empty transaction"] = lambda: store.transaction([])
        if Capability.ETAG in flags:
            offered["update"] = lambda: store.update(key, lambda _: payload)
        if Capability.KEYS_LIKE in flags:
            offered["keys"] = lambda: store.keys(f"{key}%")
        if Capability.DELETE_WITH_PREFIX in flags:
            offered["delete_with_prefix"] = lambda: store.delete_with_prefix(key)
        if Capability.QUERY_API in flags:
            offered["query"] = lambda: store.query({"filter": {"EQ": {"message": payload}}})
        return offered


async def found(store: StateStore, key: str) -> StateItem:
    """Return the item of a key that must be there."""
    item = await store.get(key)
    assert item is not None, f"{key!r} is missing"
    return item
