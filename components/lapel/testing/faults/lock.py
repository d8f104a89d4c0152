"""The fault suite of locks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from ...component import Component
from ...descriptor import Capability
from ...errors import LockLostError
from ...lock import LockStore, UnlockStatus
from ...policy import Effect
from ..lock.base import LockBase, eventually
from ..marks import needs, row
from ..proxy import FaultProxy
from .backend import FaultBackend
from .base import Request, new_name
from .cancellation import CancellationTests
from .connection import ConnectionTests

__all__ = ["LockFaultSuite"]

# A call that is repeated finds what the first try did.
_GIVEN_BACK = (UnlockStatus.SUCCESS, UnlockStatus.LOCK_DOES_NOT_EXIST)


class LockFaultSuite(ConnectionTests, CancellationTests, LockBase):
    """What every lock store must show when something breaks. Override the fixture `backend`."""

    @row("stricter-102")
    async def test_a_restart_of_the_store_never_gives_the_lock_to_two(
        self, opened: Component[Any], backend: FaultBackend
    ) -> None:
        if backend.restart is None:
            pytest.skip("the backend cannot be restarted")
        store, resource = cast("LockStore", opened), new_name()
        before = await store.try_lock(resource, "one", 600)
        assert before
        await asyncio.to_thread(backend.restart)
        await self.works_again(store)
        assert not await store.try_lock(resource, "other", 600)
        assert await store.unlock(resource, "one") is UnlockStatus.SUCCESS
        after = await store.try_lock(resource, "other", 600)
        assert after
        if Capability.FENCING_TOKEN in store.capabilities:
            assert (after.token or 0) > (before.token or 0)

    @row("stricter-133")
    @needs(Capability.RENEW)
    async def test_a_held_lock_that_cannot_be_renewed_cancels_its_block(
        self, impatient: Component[Any], behind: Component[Any], proxy: FaultProxy
    ) -> None:
        store, other, resource = cast("LockStore", impatient), cast("LockStore", behind), new_name()
        with pytest.raises(LockLostError):
            async with store.hold(resource, expiry=2):
                proxy.black_hole()
                await asyncio.Event().wait()
        assert proxy.counters.dropped_request_bytes > 0, "no renewal was lost"

        async def free() -> bool:
            return bool(await other.try_lock(resource, "other", 60))

        await eventually(free, lambda: "the lock that was lost did not expire")

    async def load(self, component: Component[Any], name: str) -> None:
        """Take a lock and give it back; what was lost and is repeated finds what the first one did."""
        store = cast("LockStore", component)
        assert await store.try_lock(name, "one", 60)
        assert not await store.try_lock(name, "other", 60)
        assert await store.unlock(name, "one") in _GIVEN_BACK

    def requests(self, component: Component[Any], behind: Component[Any], name: str) -> Sequence[Request]:
        """Return all calls of a lock."""
        store, other = cast("LockStore", component), cast("LockStore", behind)
        taken, freed, renewed = f"{name}taken", f"{name}freed", f"{name}renewed"

        async def free(resource: str) -> bool:
            """Tell whether nobody holds it, without leaving it held."""
            grant = await other.try_lock(resource, "observer", 60)
            if grant:
                await other.unlock(resource, "observer")
            return bool(grant)

        async def is_taken() -> int:
            return int(not await free(taken))

        async def is_freed() -> int:
            return int(await free(freed))

        async def unlock() -> None:
            assert await store.unlock(freed, "me") in _GIVEN_BACK

        async def renew() -> None:
            assert await store.renew(renewed, "me", 120)

        offered = [
            Request(
                name="try_lock",
                effect=Effect.UNSAFE,
                mark=taken,
                send=lambda: store.try_lock(taken, "me", 60),
                done=is_taken,
            ),
            Request(
                name="unlock",
                effect=Effect.CONDITIONAL,
                mark=freed,
                prepare=lambda: other.try_lock(freed, "me", 60),
                send=unlock,
                done=is_freed,
            ),
        ]
        if Capability.RENEW in store.capabilities:
            offered.append(
                Request(
                    name="renew",
                    effect=Effect.CONDITIONAL,
                    mark=renewed,
                    prepare=lambda: other.try_lock(renewed, "me", 60),
                    send=renew,
                )
            )
        return offered
