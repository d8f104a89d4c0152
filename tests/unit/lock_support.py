"""Lock stores in memory and in SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lapel.component import ComponentOptions
from lapel.driver import DriverContext
from lapel.lock import LockStore
from lapel_contrib.memory.lock import MemoryLock
from lapel_contrib.memory.settings import MemoryLockSettings
from lapel_contrib.sqlite.lock import SqliteLock
from lapel_contrib.sqlite.settings import SqliteLockSettings

# Made while no event loop runs: pydantic reads files when it builds its first validator.
MEMORY_SETTINGS = MemoryLockSettings.parse({})


def memory_store(driver: type[MemoryLock] = MemoryLock, **options: Any) -> LockStore:
    made = driver(MEMORY_SETTINGS, DriverContext(component="locks"))
    return LockStore(made, options=ComponentOptions(**options))


def sqlite_store(path: Path, **fields: str) -> LockStore:
    settings = SqliteLockSettings.parse({"connectionString": str(path), **fields})
    return LockStore(SqliteLock(settings, DriverContext(component="locks")))


@pytest.fixture(params=["in-memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LockStore]:
    made = memory_store() if request.param == "in-memory" else sqlite_store(tmp_path / "locks.db")
    async with made:
        yield made
