"""Renewal, fencing tokens, and `hold`, which rests on them."""

from __future__ import annotations

import asyncio

import pytest

from ...descriptor import Capability
from ...errors import DeadlineExceededError, UnsupportedError
from ...lock import LockStore, UnlockStatus
from ..marks import contract, lacks, needs, row
from .base import LockBase, eventually

__all__ = ["HoldingTests"]


class HoldingTests(LockBase):
    """Longer than one expiry."""

    @row("stricter-104")
    @needs(Capability.RENEW)
    @contract
    async def test_only_the_holder_renews(self, store: LockStore, base: str) -> None:
        assert not await store.renew(base, "conftest", 15)
        await store.try_lock(base, "conftest", 15)
        assert not await store.renew(base, "stranger", 15)
        assert await store.renew(base, "conftest", 15)
        await store.unlock(base, "conftest")
        assert not await store.renew(base, "conftest", 15)

    @row("stricter-104")
    @needs(Capability.RENEW)
    @contract
    async def test_renewal_counts_from_now(self, store: LockStore, base: str) -> None:
        assert await store.try_lock(base, "long", 1)
        assert await store.try_lock(f"{base}-witness", "conftest", 1)
        assert await store.renew(base, "long", 60)

        async def expired() -> bool:
            return await store.unlock(f"{base}-witness", "nobody") is UnlockStatus.LOCK_DOES_NOT_EXIST

        await eventually(expired, lambda: "the witness did not expire")
        assert not await store.try_lock(base, "another", 15)
        assert await store.renew(base, "long", 1)

        async def free() -> bool:
            return bool(await store.try_lock(base, "another", 15))

        await eventually(free, lambda: "renewing with a shorter expiry did not shorten it")

    @row("stricter-104")
    @lacks(Capability.RENEW)
    async def test_undeclared_renewal_is_refused(self, store: LockStore, base: str) -> None:
        with pytest.raises(UnsupportedError):
            await store.renew(base, "conftest", 15)
        with pytest.raises(UnsupportedError):
            async with store.hold(base):
                pytest.fail("held without renewal")

    @row("stricter-104")
    @needs(Capability.FENCING_TOKEN)
    @contract
    async def test_tokens_grow_with_every_acquisition(self, store: LockStore, base: str) -> None:
        tokens = []
        for number in range(6):
            expiry = 1 if number == 3 else 60

            async def taken(owner: str = f"o{number}", expiry: int = expiry) -> bool:
                grant = await store.try_lock(base, owner, expiry)
                if grant:
                    assert grant.token is not None
                    tokens.append(grant.token)
                return bool(grant)

            await eventually(taken, lambda: "the lock did not expire")
            if expiry == 60:
                assert await store.unlock(base, f"o{number}") is UnlockStatus.SUCCESS
        assert tokens == sorted(set(tokens))
        assert len(tokens) == 6

    @row("stricter-104")
    @lacks(Capability.FENCING_TOKEN)
    async def test_without_fencing_there_is_no_token(self, store: LockStore, base: str) -> None:
        assert (await store.try_lock(base, "conftest", 15)).token is None

    @row("stricter-096")
    @needs(Capability.RENEW)
    async def test_hold_excludes_for_longer_than_its_expiry(self, store: LockStore, base: str) -> None:
        loop = asyncio.get_running_loop()
        async with store.hold(base, expiry=1) as held:
            started = loop.time()
            while loop.time() - started < 1.6:
                assert not await store.try_lock(base, "another", 1)
                await asyncio.sleep(0.05)
            assert not held.lost
            with pytest.raises(DeadlineExceededError):
                async with store.hold(base, wait=0):
                    pytest.fail("two holders")
        assert await store.try_lock(base, "another", 1)

    @row("stricter-096")
    @needs(Capability.RENEW)
    async def test_waiting_holders_come_in_one_after_another(self, store: LockStore, base: str) -> None:
        inside = entered = 0

        async def enter() -> None:
            nonlocal inside, entered
            async with store.hold(base, expiry=10, wait=30):
                inside, entered = inside + 1, entered + 1
                assert inside == 1
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(enter() for _ in range(8)))
        assert entered == 8
