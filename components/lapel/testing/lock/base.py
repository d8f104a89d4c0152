"""What the tests of locks have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, cast

import pytest

from ...component import Component
from ...descriptor import Capability, Kind
from ...lock import LockDriver, LockStore, UnlockStatus
from ..harness import ComponentHooks, Operations
from ..lifecycle import wait_until

__all__ = ["LockBase", "eventually"]

PATIENCE = 10.0
"""How long a test waits, in seconds, for a lock to expire."""


class LockBase(ComponentHooks):
    """Fixtures and hooks of the lock suite."""

    kind = Kind.LOCK
    front = LockStore
    driver_base = LockDriver
    options: ClassVar[Mapping[str, Any]] = {**ComponentHooks.options, "shared": "false"}
    methods = {Capability.RENEW: ("renew",)}  # noqa: RUF012  # declared as a ClassVar by the base class

    @pytest.fixture
    def store(self, opened: Component[Any]) -> LockStore:
        """Return an open store."""
        return cast("LockStore", opened)

    async def exercise(self, component: Component[Any], payload: str) -> None:
        """Take a lock of its own, see that it is held, and give it back."""
        store = cast("LockStore", component)
        resource = f"exercise-{hash(payload):x}"
        assert await store.try_lock(resource, "one", 60)
        assert not await store.try_lock(resource, "other", 60)
        assert await store.unlock(resource, "one") is UnlockStatus.SUCCESS

    def operations(self, component: Component[Any], payload: str) -> Operations:
        """Return all operations that the store offers."""
        store = cast("LockStore", component)
        resource = f"operations-{hash(payload):x}"
        offered: dict[str, Callable[[], Awaitable[object]]] = {
            "try_lock": lambda: store.try_lock(resource, "owner", 1),
            "unlock": lambda: store.unlock(resource, "owner"),
        }
        if Capability.RENEW in store.capabilities:

            async def hold() -> None:
                async with store.hold(f"{resource}-held", expiry=2, wait=20):
                    pass

            offered["renew"] = lambda: store.renew(resource, "owner", 1)
            offered["hold"] = hold
        return offered


async def eventually(condition: Callable[[], Awaitable[bool]], message: Callable[[], str]) -> None:
    """Return as soon as `condition` holds; fail with `message` when it does not within `PATIENCE`."""
    await wait_until(condition, message, seconds=PATIENCE)
