"""lock.redis, with fencing tokens, against the lock of redis-py: take a lock that is free, and give it back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import uvloop
from redis.asyncio import Redis
from tests.benchmarks.redis_server import redis_server
from tests.benchmarks.rows import PAIRS, Row

from lapel.driver import DriverContext
from lapel.lock import LockStore
from lapel_contrib.redis.component_settings import RedisLockSettings
from lapel_contrib.redis.lock import RedisLock

EXPIRY = 30

Do = Callable[[str], Awaitable[Any]]


async def _microseconds(do: Do, tasks: int, count: int) -> float:
    """Return what one take and give back costs, of so many tasks with a lock of its own each."""

    async def worker(resource: str) -> None:
        for _ in range(count):
            await do(resource)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(worker(f"lock-{number}"))
    return (time.perf_counter() - started) / (tasks * count) * 1e6


async def _compare(what: str, ours: Do, theirs: Do, tasks: int, counts: tuple[int, int]) -> Row:
    await _microseconds(ours, tasks, counts[0] // 4)
    await _microseconds(theirs, tasks, counts[1] // 4)
    pairs = [
        (await _microseconds(ours, tasks, counts[0]), await _microseconds(theirs, tasks, counts[1]))
        for _ in range(PAIRS)
    ]
    ratio = median(mine / other for mine, other in pairs)
    return {
        "name": f"lock.redis, take with fencing token and give back, {what}",
        "unit": "us",
        "ours": median(mine for mine, _ in pairs),
        "baseline": median(other for _, other in pairs),
        "ratio": ratio,
        "target": "ratio <= 1",
        "ok": ratio <= 1,
    }


async def _measure() -> list[Row]:
    with redis_server() as backend:
        driver = RedisLock(RedisLockSettings.parse(backend.properties), DriverContext(component="bench"))
        redis = Redis(host=backend.host, port=backend.port, username=backend.username, password=backend.password)
        async with LockStore(driver) as store, redis:

            async def ours(resource: str) -> None:
                grant = await store.try_lock(resource, "me", EXPIRY)
                assert grant.token
                await store.unlock(resource, "me")

            async def theirs(resource: str) -> None:
                lock = redis.lock(f"theirs-{resource}", timeout=EXPIRY)
                assert await lock.acquire(blocking=False)
                await lock.release()

            return [
                await _compare("one task", ours, theirs, 1, (1000, 1000)),
                await _compare("64 tasks", ours, theirs, 64, (100, 30)),
            ]


async def run() -> list[Row]:
    """Return a row for one task and one for many; with uvloop, both sides."""
    return await asyncio.to_thread(uvloop.run, _measure())
