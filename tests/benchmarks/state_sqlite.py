"""Concurrent writers on state.sqlite against one connection on one thread that commits each write by itself."""

from __future__ import annotations

import asyncio
import base64
import os
import sqlite3
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from lapel.driver import DriverContext
from lapel.state import StateStore
from lapel_contrib.sqlite.settings import SqliteStateSettings
from lapel_contrib.sqlite.state import SqliteState

WRITERS = 64
WRITES = 150
"""By each writer and run: with the read of the etag that starts it, a chain of compare-and-set upserts."""
BASE_WRITES = 15
PAIRS = 7
REAL_SYNC = 100.0
"""Microseconds; a disk that syncs faster than this only pretends to."""
VALUE = b"v" * 100

UPSERT = (
    "UPDATE state SET value = ?, is_binary = 1, etag = ?, expiration_time = NULL, update_time = CURRENT_TIMESTAMP "
    "WHERE key = ? AND etag = ? AND (expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP)"
)


def sync_microseconds(directory: Path) -> float:
    """Return the median time of an `fdatasync` after 4 KiB were overwritten, as in a write-ahead log that is reused."""
    path = directory / "sync"
    times = []
    with path.open("wb", buffering=0) as file:
        file.write(b"x" * 4096)
        os.fsync(file.fileno())
        for _ in range(50):
            os.pwrite(file.fileno(), b"y" * 4096, 0)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1e6)
    path.unlink()
    return median(times)


class _Baseline:
    """The ordinary way: one connection, one worker thread, a commit for each write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(1)

    def open(self) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        self._db.close()

    def _set(self, key: str, etag: str) -> str:
        new = str(uuid.uuid4())
        cursor = self._db.execute("BEGIN IMMEDIATE")
        cursor.execute(UPSERT, (base64.b64encode(VALUE).decode(), new, key, etag))
        assert cursor.rowcount == 1
        self._db.execute("COMMIT")
        return new

    async def run(self, call: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)

    async def set(self, key: str, etag: str) -> str:
        result: str = await self.run(self._set, key, etag)
        return result

    async def aclose(self) -> None:
        await self.run(self.close)
        self._pool.shutdown()


async def _writes_per_second(store: StateStore, write: Any, count: int) -> float:
    keys = [f"key-{number}" for number in range(WRITERS)]
    etags = [outcome.item.etag or "" for outcome in await store.bulk_get(keys) if outcome.item is not None]

    async def writer(key: str, etag: str) -> None:
        for _ in range(count):
            etag = await write(key, etag)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for key, etag in zip(keys, etags, strict=True):
            tasks.create_task(writer(key, etag))
    return WRITERS * count / (time.perf_counter() - started)


async def _measure(directory: Path) -> tuple[float, float]:
    path = directory / "bench.db"
    driver = SqliteState(SqliteStateSettings(connection_string=str(path)), DriverContext(component="bench"))
    baseline = _Baseline(path)
    async with StateStore(driver) as store:

        async def ours(key: str, etag: str) -> str:
            return await store.set(key, VALUE, etag=etag) or ""

        for number in range(WRITERS):
            await store.set(f"key-{number}", VALUE)
        await baseline.run(baseline.open)
        try:
            await _writes_per_second(store, ours, WRITES)
            pairs = [
                (
                    await _writes_per_second(store, ours, WRITES),
                    await _writes_per_second(store, baseline.set, BASE_WRITES),
                )
                for _ in range(PAIRS)
            ]
        finally:
            await baseline.aclose()
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def _directory() -> str:
    return os.environ.get("LAPEL_BENCH_DIRECTORY") or tempfile.gettempdir()


async def run() -> list[dict[str, Any]]:
    """Return one row: writes per second, medians of interleaved pairs; a real disk is needed for it to mean anything.

    `LAPEL_BENCH_DIRECTORY` names a directory on the disk to measure; the system's temporary directory otherwise.
    """
    with await asyncio.to_thread(tempfile.TemporaryDirectory, dir=_directory()) as name:
        directory = Path(name)
        sync = await asyncio.to_thread(sync_microseconds, directory)
        mine, base = await _measure(directory)
    return [
        {
            "name": f"state.sqlite, {WRITERS} concurrent compare-and-set writers (fdatasync {sync:.0f} us)",
            "unit": "writes/s",
            "ours": mine,
            "baseline": base,
            "ratio": mine / base,
            "target": "ratio >= 10" if sync >= REAL_SYNC else "none: the disk syncs in less than 100 us",
            "ok": mine >= 10 * base or sync < REAL_SYNC,
        }
    ]


if __name__ == "__main__":
    for row in asyncio.run(run()):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
