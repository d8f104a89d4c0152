"""What `hold` promises: its block runs only while the lock is held, and the lock is given back however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.lock_support import memory_store
from tests.unit.lock_support import store as store

from lapel.descriptor import Capability, Kind
from lapel.errors import (
    DeadlineExceededError,
    LapelError,
    LockLostError,
    OutcomeUnknownError,
    UnavailableError,
    UnsupportedError,
)
from lapel.lock import LockGrant, LockStore, RenewRequest, TryLockRequest, UnlockRequest, UnlockStatus
from lapel.registry import default_registry
from lapel_contrib.memory.lock import MemoryLock


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_hold_renews_for_as_long_as_its_block_runs(store: LockStore) -> None:
    async with store.hold("r", expiry=1) as held:
        assert held.token is not None
        for _ in range(15):
            await asyncio.sleep(0.1)
            assert not await store.try_lock("r", "other", 1)
    assert await store.try_lock("r", "other", 1)


class Shaky(MemoryLock):
    """Fails on request."""

    renewal: LapelError | bool | None = None
    attempt: LapelError | None = None
    armed: asyncio.Event | None = None
    unlocks = 0

    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        grant = await super().try_lock(request)
        if self.armed is not None:
            self.armed.set()
            await asyncio.Event().wait()
        if self.attempt is not None:
            raise self.attempt
        return grant

    async def renew(self, request: RenewRequest) -> bool:
        if isinstance(self.renewal, LapelError):
            raise self.renewal
        return await super().renew(request) if self.renewal is None else self.renewal

    async def unlock(self, request: UnlockRequest) -> UnlockStatus:
        self.unlocks += 1
        await asyncio.sleep(0.01)
        return await super().unlock(request)


def shaky(store: LockStore) -> Shaky:
    assert isinstance(store.driver, Shaky)
    return store.driver


async def test_a_lost_lock_cancels_its_block_and_raises() -> None:
    async with memory_store(Shaky) as store:
        shaky(store).renewal = False
        cancelled = False
        with pytest.raises(LockLostError):
            async with store.hold("r", expiry=1):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled = True
                    raise
        assert cancelled
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert shaky(store).unlocks == 0


async def test_a_lock_that_cannot_be_renewed_in_time_is_lost() -> None:
    async with memory_store(Shaky) as store:
        shaky(store).renewal = UnavailableError("away")
        started = asyncio.get_running_loop().time()
        with pytest.raises(LockLostError):
            async with store.hold("r", expiry=1):
                await asyncio.Event().wait()
        assert asyncio.get_running_loop().time() - started >= 0.9


async def test_one_failed_renewal_is_survived() -> None:
    async with memory_store(Shaky) as store:
        async with store.hold("r", expiry=1) as held:
            shaky(store).renewal = UnavailableError("away")
            await asyncio.sleep(0.6)
            shaky(store).renewal = None
            await asyncio.sleep(0.6)
            assert not held.lost
        assert await store.try_lock("r", "b", 1)


async def test_a_block_that_swallows_the_cancellation_still_learns_of_the_loss() -> None:
    async with memory_store(Shaky) as store:
        shaky(store).renewal = False
        with pytest.raises(LockLostError):
            async with store.hold("r", expiry=1):
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()


async def test_an_error_of_the_block_is_passed_on_after_a_loss_and_leaves_no_cancellation_behind() -> None:
    async with memory_store(Shaky) as store:
        shaky(store).renewal = False
        with pytest.raises(KeyError):
            async with store.hold("r", expiry=1):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise KeyError from None
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_an_error_in_the_block_gives_the_lock_back() -> None:
    async with memory_store() as store:
        with pytest.raises(KeyError):
            async with store.hold("r"):
                raise KeyError
        assert await store.try_lock("r", "b", 1)


async def test_hold_waits_for_the_lock_and_no_longer_than_asked() -> None:
    async with memory_store() as store:
        await store.try_lock("r", "a", 60)
        for wait in (0, 0.05, timedelta(milliseconds=50)):
            with pytest.raises(DeadlineExceededError, match="still held"):
                async with store.hold("r", wait=wait):
                    pytest.fail("two holders")
        asyncio.get_running_loop().call_later(0.05, lambda: shaky_free(store))
        async with store.hold("r", wait=10):
            pass


def shaky_free(store: LockStore) -> None:
    assert isinstance(store.driver, MemoryLock)
    store.driver._locks.clear()


async def test_cancelled_while_acquiring_gives_the_lock_back() -> None:
    async with memory_store(Shaky) as store:
        driver = shaky(store)
        driver.armed = asyncio.Event()

        async def block() -> None:
            async with store.hold("r", expiry=60):
                pytest.fail("was cancelled before")

        task = asyncio.create_task(block())
        await driver.armed.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        driver.armed = None
        assert await store.try_lock("r", "b", 1)


async def test_a_lost_reply_gives_the_lock_back() -> None:
    async with memory_store(Shaky) as store:
        shaky(store).attempt = OutcomeUnknownError("reply lost")
        with pytest.raises(OutcomeUnknownError):
            async with store.hold("r", expiry=60):
                pytest.fail("does not know that it holds the lock")
        shaky(store).attempt = None
        assert await store.try_lock("r", "b", 1)


async def test_a_lost_reply_does_not_free_what_the_same_owner_holds_elsewhere() -> None:
    async with memory_store(Shaky) as store:
        await store.try_lock("r", "me", 60)
        shaky(store).attempt = OutcomeUnknownError("reply lost")
        with pytest.raises(OutcomeUnknownError):
            async with store.hold("r", expiry=60, owner="me"):
                pytest.fail("does not know that it holds the lock")
        shaky(store).attempt = None
        assert not await store.try_lock("r", "b", 1)


async def test_two_cancellations_in_a_row_still_give_the_lock_back() -> None:
    async with memory_store(Shaky) as store:
        inside = asyncio.Event()

        async def block() -> None:
            async with store.hold("r", expiry=60):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await inside.wait()
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def free() -> LockGrant:
            return await store.try_lock("r", "b", 1)

        await until(free)


async def test_cancelling_the_block_is_not_mistaken_for_a_loss() -> None:
    async with memory_store() as store:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), store.hold("r", expiry=60):
                await asyncio.Event().wait()
        assert await store.try_lock("r", "b", 1)


async def test_close_while_holding_is_bounded_and_the_block_ends_with_the_lock() -> None:
    store = await memory_store().open()
    with pytest.raises(LockLostError):
        async with store.hold("r", expiry=1):
            await store.aclose()
            await asyncio.Event().wait()


async def test_hold_without_renewal_is_refused_by_name() -> None:
    await asyncio.to_thread(default_registry().with_capability, Kind.LOCK, Capability.RENEW)
    async with memory_store() as store:
        store.driver.withdraw(Capability.RENEW, "a test said so")
        with pytest.raises(UnsupportedError, match="RENEW"):
            async with store.hold("r"):
                pass
