"""Exclusion: never two at once, and never less than the expiry."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from ...lock import LockStore, UnlockStatus
from ..marks import contract, row
from ..subject import Subject
from .base import LockBase, eventually

__all__ = ["RaceTests"]

TASKS = 20
ROUNDS = 10


class RaceTests(LockBase):
    """Many at once, and one after another."""

    @row("stricter-095")
    @contract
    async def test_of_fifty_tasks_one_gets_the_lock(
        self, subject: Subject, store: LockStore, base: str, stack: AsyncExitStack
    ) -> None:
        stores = [store]
        if self.option(subject, "shared") == "true":
            others = [await stack.enter_async_context(self.build(subject)) for _ in range(3)]
            stores += [other for other in others if isinstance(other, LockStore)]
        for number in range(5):
            tries = [stores[task % len(stores)].try_lock(f"{base}-{number}", f"o{task}", 60) for task in range(50)]
            assert sum(map(bool, await asyncio.gather(*tries))) == 1

    @row("stricter-096")
    @contract
    async def test_a_guarded_counter_is_exact(self, store: LockStore, base: str) -> None:
        counter = inside = 0

        async def count(owner: str) -> None:
            nonlocal counter, inside
            for _ in range(ROUNDS):
                while not await store.try_lock(base, owner, 60):  # noqa: ASYNC110  # a lock store sends no event
                    await asyncio.sleep(0.002)
                inside += 1
                assert inside == 1
                before = counter
                await asyncio.sleep(0)
                counter = before + 1
                inside -= 1
                assert await store.unlock(base, owner) is UnlockStatus.SUCCESS

        await asyncio.gather(*(count(f"o{number}") for number in range(TASKS)))
        assert counter == TASKS * ROUNDS

    @row("LK-07", "stricter-098")
    @contract
    async def test_a_lock_is_held_until_its_expiry_and_then_free(self, store: LockStore, base: str) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await store.try_lock(base, "conftest", 2)
        for part in (0.5, 0.9):
            await asyncio.sleep(started + 2 * part - loop.time())
            granted = bool(await store.try_lock(base, "another", 2))
            assert not granted or loop.time() - started >= 2, f"free after {part:.0%} of its expiry"
        await _taken(store, base, "another")

    @row("stricter-097")
    @contract
    async def test_an_expired_owner_cannot_release_its_successor(self, store: LockStore, base: str) -> None:
        assert await store.try_lock(base, "first", 1)
        await _taken(store, base, "second")
        assert await store.unlock(base, "first") is UnlockStatus.LOCK_BELONGS_TO_OTHERS
        assert not await store.try_lock(base, "first", 15)
        assert await store.unlock(base, "second") is UnlockStatus.SUCCESS
        assert await store.unlock(base, "second") is UnlockStatus.LOCK_DOES_NOT_EXIST

    @row("stricter-097")
    @contract
    async def test_an_expired_lock_does_not_exist_for_its_owner(self, store: LockStore, base: str) -> None:
        assert await store.try_lock(base, "conftest", 1)

        async def gone() -> bool:
            return await store.unlock(base, "stranger") is UnlockStatus.LOCK_DOES_NOT_EXIST

        await eventually(gone, lambda: "the lock did not expire")
        assert await store.unlock(base, "conftest") is UnlockStatus.LOCK_DOES_NOT_EXIST


async def _taken(store: LockStore, resource: str, owner: str) -> None:
    async def taken() -> bool:
        return bool(await store.try_lock(resource, owner, 60))

    await eventually(taken, lambda: "the lock did not expire")
