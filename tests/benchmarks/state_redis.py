"""state.redis against redis-py's asyncio client used the ordinary way, for the same results.

The raw calls are one atomic script each, already loaded: with 64 tasks the fastest of the ordinary ways, of which the
others are a script object, a pipeline of `HMGET` and `PTTL`, and two calls. `LAPEL_TEST_REDIS` names a server; a
redis-server of its own is started otherwise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import uvloop
from redis.asyncio import Redis
from tests.backends.redis import RedisBackend
from tests.benchmarks.redis_server import redis_server

from lapel.driver import DriverContext
from lapel.state import SetOperation, StateStore
from lapel_contrib.redis.settings import RedisStateSettings
from lapel_contrib.redis.state import RedisState

PAIRS = 7
TASKS = 64
VALUE = b"v" * 100
BULK = [f"key-{number}" for number in range(100)]

GET = "local v = redis.call('HMGET', KEYS[1], 'data', 'version') return {v[1], v[2], redis.call('PTTL', KEYS[1])}"
SET = """
redis.call('HSET', KEYS[1], 'data', ARGV[1])
local n = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('PERSIST', KEYS[1])
return n
"""

Do = Callable[[str], Awaitable[Any]]


async def _rate(do: Do, tasks: int, count: int) -> float:
    """Return calls per second of so many tasks, each with a key of its own."""

    async def worker(key: str) -> None:
        for _ in range(count):
            await do(key)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(worker(f"key-{number}"))
    return tasks * count / (time.perf_counter() - started)


async def _compare(name: str, ours: Do, raw: Do, tasks: int, counts: tuple[int, int], least: float) -> dict[str, Any]:
    await _rate(ours, tasks, counts[0] // 4)
    await _rate(raw, tasks, counts[1] // 4)
    pairs = [(await _rate(ours, tasks, counts[0]), await _rate(raw, tasks, counts[1])) for _ in range(PAIRS)]
    ratio = median(mine / bare for mine, bare in pairs)
    return {
        "name": name,
        "unit": "calls/s",
        "ours": median(pair[0] for pair in pairs),
        "baseline": median(pair[1] for pair in pairs),
        "ratio": ratio,
        "target": f"ratio >= {least:g}",
        "ok": ratio >= least,
    }


async def _seconds(do: Callable[[], Awaitable[Any]], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        await do()
    return (time.perf_counter() - started) / times


async def _server_seconds(redis: Redis) -> float:
    """Return how long the server has worked on scripts since its statistics were cleared."""
    stats = await redis.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec"]) / 1e6


async def _compare_bulk(
    name: str, redis: Redis, ours: Callable[[], Awaitable[Any]], raw: Do, times: int
) -> list[dict[str, Any]]:
    async def one_by_one() -> None:
        for key in BULK:
            await raw(key)

    await ours()
    over, ratios, mine, bare = [], [], [], []
    for _ in range(PAIRS):
        await redis.config_resetstat()
        mine.append(await _seconds(ours, times))
        over.append((mine[-1] - await _server_seconds(redis) / times) / len(BULK) * 1e6)
        bare.append(await _seconds(one_by_one, 3))
        ratios.append(bare[-1] / mine[-1])
    common = {"unit": "us/key", "ours": median(mine) / len(BULK) * 1e6}
    return [
        {
            **common,
            "name": f"state.redis, {name} of {len(BULK)} keys, over the server's own time",
            "overhead": median(over),
            "target": "overhead <= 5",
            "ok": median(over) <= 5,
        },
        {
            **common,
            "name": f"state.redis, {name} of {len(BULK)} keys, against as many awaited raw calls",
            "baseline": median(bare) / len(BULK) * 1e6,
            "ratio": median(ratios),
            "target": "ratio >= 10 (times as fast)",
            "ok": median(ratios) >= 10,
        },
    ]


async def _measure(backend: RedisBackend) -> list[dict[str, Any]]:
    driver = RedisState(RedisStateSettings.parse(backend.properties), DriverContext(component="bench"))
    redis = Redis(host=backend.host, port=backend.port, username=backend.username, password=backend.password)
    get_sha, set_sha = await redis.script_load(GET), await redis.script_load(SET)
    async with StateStore(driver) as store, redis:

        async def raw_get(key: str) -> Any:
            return await redis.evalsha(get_sha, 1, key)

        async def raw_set(key: str) -> Any:
            return await redis.evalsha(set_sha, 1, key, VALUE)

        async def our_set(key: str) -> Any:
            return await store.set(key, VALUE)

        operations = [SetOperation(key, VALUE) for key in BULK]
        await store.bulk_set(operations)
        many, one = f"{TASKS} concurrent tasks", "one task"
        return [
            await _compare(f"state.redis get, {many}, 100 bytes", store.get, raw_get, TASKS, (400, 60), 6),
            await _compare(f"state.redis set, {many}, 100 bytes", our_set, raw_set, TASKS, (400, 60), 5),
            await _compare(f"state.redis get, {one}, 100 bytes", store.get, raw_get, 1, (2000, 2000), 0.9),
            await _compare(f"state.redis set, {one}, 100 bytes", our_set, raw_set, 1, (2000, 2000), 0.9),
            *await _compare_bulk("bulk_get", redis, lambda: store.bulk_get(BULK), raw_get, 100),
            *await _compare_bulk("bulk_set", redis, lambda: store.bulk_set(operations), raw_set, 100),
        ]


def _run() -> list[dict[str, Any]]:
    with redis_server() as backend:
        return uvloop.run(_measure(backend))


async def run() -> list[dict[str, Any]]:
    """Return a row for each operation and number of tasks, measured on uvloop; and for bulk calls."""
    return await asyncio.to_thread(_run)


if __name__ == "__main__":
    for row in asyncio.run(run()):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
