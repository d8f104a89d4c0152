"""Locks, taken and given back by hand: what `LockStore` adds, and what its drivers in memory and in SQLite promise."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.lock_support import memory_store, sqlite_store
from tests.unit.lock_support import store as store

from lapel.errors import ClosedError, ConfigurationError, InvalidArgumentError, StorageError
from lapel.lock import LockGrant, LockStore, TryLockRequest, UnlockStatus
from lapel_contrib.memory.lock import SWEEP_AT, MemoryLock
from lapel_contrib.sqlite import lock as sqlite_lock
from lapel_contrib.sqlite.lock import SqliteLock

Advance = Callable[[float], None]


@pytest.fixture
async def advance(monkeypatch: pytest.MonkeyPatch) -> Advance:
    """Move the clock by which locks expire."""
    loop = asyncio.get_running_loop()
    loop_time, wall_ms = loop.time, sqlite_lock._now
    offset = 0.0

    def forward(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    monkeypatch.setattr(loop, "time", lambda: loop_time() + offset)
    monkeypatch.setattr(sqlite_lock, "_now", lambda: wall_ms() + int(offset * 1000))
    return forward


# both drivers


async def test_a_lock_is_exclusive_and_not_reentrant(store: LockStore) -> None:
    assert await store.try_lock("r", "a", 15)
    assert not await store.try_lock("r", "b", 15)
    assert not await store.try_lock("r", "a", 15)
    assert await store.try_lock("r2", "b", 15)


async def test_unlock_says_what_it_found(store: LockStore) -> None:
    assert await store.unlock("r", "a") is UnlockStatus.LOCK_DOES_NOT_EXIST
    await store.try_lock("r", "a", 15)
    assert await store.unlock("r", "b") is UnlockStatus.LOCK_BELONGS_TO_OTHERS
    assert await store.unlock("r", "a") is UnlockStatus.SUCCESS
    assert await store.unlock("r", "a") is UnlockStatus.LOCK_DOES_NOT_EXIST


async def test_a_lock_is_held_until_its_expiry_and_free_after_it(store: LockStore, advance: Advance) -> None:
    await store.try_lock("r", "a", 10)
    advance(9)
    assert not await store.try_lock("r", "b", 10)
    advance(1.1)
    assert await store.unlock("r", "a") is UnlockStatus.LOCK_DOES_NOT_EXIST
    assert await store.try_lock("r", "b", 10)
    assert await store.unlock("r", "a") is UnlockStatus.LOCK_BELONGS_TO_OTHERS
    assert not await store.try_lock("r", "c", 10)


async def test_renewing_extends_only_a_lock_that_the_owner_holds(store: LockStore, advance: Advance) -> None:
    assert not await store.renew("r", "a", 10)
    await store.try_lock("r", "a", 10)
    advance(8)
    assert not await store.renew("r", "b", 10)
    assert await store.renew("r", "a", 10)
    advance(8)
    assert not await store.try_lock("r", "b", 10)
    advance(2.1)
    assert not await store.renew("r", "a", 10)


async def test_tokens_grow_across_unlock_expiry_and_resources(store: LockStore, advance: Advance) -> None:
    tokens = []
    for resource in ("r", "s", "r", "r"):
        grant = await store.try_lock(resource, "a", 10)
        assert grant.token is not None
        tokens.append(grant.token)
        if resource == "s" or len(tokens) == 1:
            await store.unlock(resource, "a")
        else:
            advance(11)
    assert tokens == sorted(set(tokens))
    await store.try_lock("r", "a", 10)
    assert (await store.try_lock("r", "b", 10)).token is None


@pytest.mark.parametrize("pair", [("é\n'\";--", "日本"), ("x" * 1024, "x" * 1023), ("a", "ab"), ("a||b", "a||")])
async def test_resources_and_owners_are_told_apart_exactly(store: LockStore, pair: tuple[str, str]) -> None:
    assert await store.try_lock(pair[0], pair[0], 15)
    assert await store.try_lock(pair[1], pair[0], 15)
    assert await store.unlock(pair[0], pair[1]) is UnlockStatus.LOCK_BELONGS_TO_OTHERS
    assert await store.unlock(pair[0], pair[0]) is UnlockStatus.SUCCESS
    assert not await store.try_lock(pair[1], pair[1], 15)


async def test_fifty_tasks_try_and_one_succeeds(store: LockStore) -> None:
    grants = await asyncio.gather(*(store.try_lock("r", str(number), 15) for number in range(50)))
    assert sum(map(bool, grants)) == 1


async def test_the_longest_expiry_is_taken_as_it_is(store: LockStore, advance: Advance) -> None:
    assert await store.try_lock("r", "a", 2**31 - 1)
    advance(2**31 - 2)
    assert not await store.try_lock("r", "b", 1)


async def test_a_cancelled_try_leaves_the_store_usable_and_the_lock_free(store: LockStore) -> None:
    for turns in range(12):
        attempt = asyncio.create_task(store.try_lock("r", "a", 60))
        for _ in range(turns):
            await asyncio.sleep(0)
        attempt.cancel()
        with suppress(asyncio.CancelledError):
            await attempt
        await store.unlock("r", "a")
        assert await store.try_lock("r", "b", 60)
        assert await store.unlock("r", "b") is UnlockStatus.SUCCESS


async def test_calls_after_close_raise(store: LockStore) -> None:
    await store.aclose()
    for call in (store.try_lock("r", "a", 1), store.unlock("r", "a"), store.renew("r", "a", 1)):
        with pytest.raises(ClosedError):
            await call


# arguments


@pytest.mark.parametrize(
    "expiry", [0, -1, 2**31, 1.5, float("nan"), float("inf"), 10**400, True, "5", None, timedelta(0)]
)
async def test_an_expiry_that_is_not_whole_seconds_from_one_on_is_refused(expiry: Any) -> None:
    async with memory_store() as store:
        for call in (store.try_lock("r", "a", expiry), store.renew("r", "a", expiry)):
            with pytest.raises(InvalidArgumentError):
                await call


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800", 5])
async def test_texts_that_no_backend_can_hold_are_refused(text: Any) -> None:
    async with memory_store() as store:
        for call in (store.try_lock(text, "a", 1), store.try_lock("r", text, 1), store.unlock("r", text)):
            with pytest.raises(InvalidArgumentError):
                await call


@pytest.mark.parametrize("wait", [-1, float("nan"), timedelta(seconds=-1)])
async def test_a_negative_wait_is_refused(wait: Any) -> None:
    async with memory_store() as store:
        with pytest.raises(InvalidArgumentError, match="wait"):
            async with store.hold("r", wait=wait):
                pass


async def test_with_an_app_id_the_driver_sees_daprs_key() -> None:
    seen: list[str] = []

    class Recorder(MemoryLock):
        async def try_lock(self, request: TryLockRequest) -> LockGrant:
            seen.append(request.resource)
            return await super().try_lock(request)

    async with memory_store(Recorder, app_id="app") as store:
        assert await store.try_lock("r", "a", 1)
        assert await store.unlock("r", "a") is UnlockStatus.SUCCESS
        with pytest.raises(InvalidArgumentError, match=r"\|\|"):
            await store.try_lock("a||b", "a", 1)
    assert seen == ["lock||app||r"]


# in memory


async def test_forgotten_locks_do_not_pile_up(advance: Advance) -> None:
    async with memory_store() as store:
        for number in range(SWEEP_AT - 1):
            await store.try_lock(f"old {number}", "a", 1)
        advance(2)
        await store.try_lock("new", "a", 60)
        assert isinstance(store.driver, MemoryLock)
        assert list(store.driver._locks) == ["new"]


async def test_tokens_of_the_next_process_are_greater() -> None:
    async with memory_store() as store:
        first = (await store.try_lock("r", "a", 1)).token
    async with memory_store() as store:
        second = (await store.try_lock("r", "a", 1)).token
    assert first is not None
    assert second is not None
    assert second > first


# in SQLite


async def test_two_components_on_one_file_exclude_each_other(tmp_path: Path) -> None:
    async with sqlite_store(tmp_path / "locks.db") as one, sqlite_store(tmp_path / "locks.db") as other:
        assert await one.try_lock("r", "a", 60)
        assert not await other.try_lock("r", "b", 60)
        assert await other.unlock("r", "a") is UnlockStatus.SUCCESS
        assert await other.try_lock("r", "b", 60)


async def test_a_lock_and_the_growth_of_tokens_survive_a_restart(tmp_path: Path) -> None:
    async with sqlite_store(tmp_path / "locks.db") as store:
        first = (await store.try_lock("r", "a", 60)).token
    async with sqlite_store(tmp_path / "locks.db") as store:
        assert not await store.try_lock("r", "b", 60)
        assert await store.unlock("r", "a") is UnlockStatus.SUCCESS
        second = (await store.try_lock("r", "b", 60)).token
    assert first is not None
    assert second is not None
    assert second > first


async def test_expired_rows_are_swept(tmp_path: Path, advance: Advance) -> None:
    path = tmp_path / "locks.db"
    async with sqlite_store(path) as store:
        await store.try_lock("old", "a", 1)
        advance(2)
        assert isinstance(store.driver, SqliteLock)
        store.driver._next_sweep = 0.0
        await store.try_lock("new", "a", 60)
        with sqlite3.connect(path) as connection:
            rows = connection.execute("SELECT resource FROM locks").fetchall()
        connection.close()
    assert rows == [("new",)]


async def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "locks.db") as connection:
        connection.execute("CREATE TABLE locks (id INTEGER)")
    connection.close()
    with pytest.raises(StorageError, match="tableName"):
        await sqlite_store(tmp_path / "locks.db").open()


async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_lock, "network_filesystem", lambda path: "nfs4")
    with pytest.raises(ConfigurationError, match="nfs4"):
        await sqlite_store(tmp_path / "locks.db").open()


PROCESS = """
import asyncio, sys
from pathlib import Path
from lapel.driver import DriverContext
from lapel.lock import LockStore
from lapel_contrib.sqlite.lock import SqliteLock
from lapel_contrib.sqlite.settings import SqliteLockSettings

async def main(folder, rounds):
    counter, tokens = folder / "counter", folder / "tokens"
    settings = SqliteLockSettings.parse({"connectionString": str(folder / "locks.db")})
    async with LockStore(SqliteLock(settings, DriverContext(component="locks"))) as store:
        for _ in range(rounds):
            async with store.hold("counter", expiry=10, wait=50) as held:
                value = int(counter.read_text())
                await asyncio.sleep(0)
                counter.write_text(str(value + 1))
                with tokens.open("a") as file:
                    file.write(f"{held.token}\\n")

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.faults
async def test_four_processes_count_without_losing_a_step(tmp_path: Path) -> None:
    rounds = 25
    (tmp_path / "counter").write_text("0")
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, str(tmp_path), str(rounds))
        for _ in range(4)
    ]
    assert await asyncio.gather(*(process.wait() for process in processes)) == [0, 0, 0, 0]
    assert int((tmp_path / "counter").read_text()) == 4 * rounds
    tokens = [int(line) for line in (tmp_path / "tokens").read_text().split()]
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 4 * rounds
