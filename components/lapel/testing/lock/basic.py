"""Taking and giving back."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from ...component import Component
from ...errors import ClosedError, InvalidArgumentError
from ...lock import LockStore, UnlockStatus
from ..marks import contract, row
from ..subject import Subject
from .base import LockBase, eventually

__all__ = ["BasicTests"]

CANCELLED_ATTEMPTS = 60


class BasicTests(LockBase):
    """What a lock is."""

    @row("LK-01", "LK-02", "LK-03")
    @contract
    async def test_a_free_lock_is_taken_and_a_held_one_refused_also_to_its_owner(
        self, store: LockStore, base: str
    ) -> None:
        assert await store.try_lock(f"{base}-1", "conftest", 15)
        assert await store.try_lock(f"{base}-2", "conftest", 15)
        refused = await store.try_lock(f"{base}-1", "conftest", 15)
        assert (bool(refused), refused.token) == (False, None)
        assert not await store.try_lock(f"{base}-1", "another", 15)

    @row("LK-04", "LK-05", "LK-06")
    @contract
    async def test_unlock_says_what_it_found(self, store: LockStore, base: str) -> None:
        assert await store.unlock(f"{base}-never", "conftest") is UnlockStatus.LOCK_DOES_NOT_EXIST
        await store.try_lock(base, "conftest", 15)
        assert await store.unlock(base, "nonowner") is UnlockStatus.LOCK_BELONGS_TO_OTHERS
        assert not await store.try_lock(base, "nonowner", 15)
        assert await store.unlock(base, "conftest") is UnlockStatus.SUCCESS
        assert await store.unlock(base, "conftest") is UnlockStatus.LOCK_DOES_NOT_EXIST
        assert await store.try_lock(base, "nonowner", 15)

    @row("stricter-099")
    async def test_an_expiry_below_one_second_or_too_long_is_refused(self, store: LockStore, base: str) -> None:
        wrong: list[Any] = [0, -1, 2**31, 0.5, "15", True]
        for expiry in wrong:
            with pytest.raises(InvalidArgumentError):
                await store.try_lock(base, "conftest", expiry)
        assert await store.unlock(base, "conftest") is UnlockStatus.LOCK_DOES_NOT_EXIST

    @row("stricter-099")
    @contract
    async def test_a_very_long_expiry_holds(self, store: LockStore, base: str) -> None:
        assert await store.try_lock(base, "conftest", 2**31 - 1)
        assert not await store.try_lock(base, "another", 15)
        assert await store.unlock(base, "conftest") is UnlockStatus.SUCCESS

    @row("stricter-100")
    async def test_empty_names_are_refused(self, store: LockStore, base: str) -> None:
        for resource, owner in (("", "conftest"), (base, ""), (f"{base}\0", "conftest"), (base, "\ud800")):
            with pytest.raises(InvalidArgumentError):
                await store.try_lock(resource, owner, 15)
            with pytest.raises(InvalidArgumentError):
                await store.unlock(resource, owner)

    @row("stricter-100")
    @contract
    @pytest.mark.parametrize("name", ["ünïcode ☃ 日本", "x" * 1024, "\"quotes\" and 'more'", "a;--\n%_*?", "a:b/c.d"])
    async def test_unusual_names_are_exact(self, store: LockStore, base: str, name: str) -> None:
        resource = f"{base}{name}"
        for other in (base, resource[:-1], f"{resource}x", resource.upper() + "U"):
            assert await store.try_lock(other, "conftest", 15)
        assert await store.try_lock(resource, name, 15)
        for stranger in (name[:-1] or "s", f"{name}x", f" {name}", name.swapcase() + "s"):
            assert await store.unlock(resource, stranger) is UnlockStatus.LOCK_BELONGS_TO_OTHERS
        assert await store.unlock(resource, name) is UnlockStatus.SUCCESS
        assert not await store.try_lock(base, "another", 15)

    @row("stricter-101")
    async def test_a_cancelled_attempt_leaves_the_lock_free_or_expiring(self, store: LockStore, base: str) -> None:
        chance = random.Random(101)
        resources = [f"{base}-{number}" for number in range(CANCELLED_ATTEMPTS)]
        for resource in resources:
            attempt = asyncio.create_task(store.try_lock(resource, "conftest", 1))
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            await asyncio.sleep(chance.random() * 0.002)
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
        for resource in resources:
            await _free(store, resource)

    @row("stricter-103")
    async def test_a_lock_outlives_the_component_that_took_it_where_others_can_see_it(
        self, subject: Subject, store: LockStore, base: str
    ) -> None:
        other = self.build(subject)
        assert isinstance(other, LockStore)
        async with other:
            assert await other.try_lock(base, "conftest", 60)
        with pytest.raises(ClosedError):
            await other.unlock(base, "conftest")
        shared = self.option(subject, "shared") == "true"
        assert bool(await store.try_lock(base, "another", 60)) != shared, "set `shared` in the Conformance document"

    @row("stricter-135")
    async def test_two_components_exclude_each_other_only_as_pinned(
        self, subject: Subject, store: LockStore, base: str
    ) -> None:
        shared = self.option(subject, "shared") == "true"
        other: Component[Any]
        async with self.build(subject) as other:
            assert isinstance(other, LockStore)
            assert await store.try_lock(base, "conftest", 60)
            assert bool(await other.try_lock(base, "another", 60)) != shared
            expected = UnlockStatus.SUCCESS if shared else UnlockStatus.LOCK_BELONGS_TO_OTHERS
            assert await other.unlock(base, "conftest") is expected


async def _free(store: LockStore, resource: str) -> None:
    async def taken() -> bool:
        return bool(await store.try_lock(resource, "another", 60))

    await eventually(taken, lambda: f"{resource} is held although its second is over")
