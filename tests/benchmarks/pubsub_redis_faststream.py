"""pubsub.redis against FastStream's subscriber of Redis streams, on the same stream, with no-op handlers.

FastStream hands out messages one at a time, in one handler or in several workers, or in batches; each is compared with
the same of ours. It runs without type conversion and logging, which is its fastest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import uvloop
from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis
from tests.backends.redis import RedisBackend
from tests.benchmarks.redis_server import redis_server
from tests.benchmarks.rows import PAIRS, Row

from lapel.driver import DriverContext
from lapel.pubsub import Message, PubSub
from lapel_contrib.redis.pubsub import RedisPubSub
from lapel_contrib.redis.pubsub_settings import RedisPubSubSettings

MESSAGES = 4000
BATCH = 200
WORKERS = 10
DATA = b"m" * 100
TOPIC = "t"

Consume = Callable[[str], Awaitable[float]]


class _Count:
    """A no-op handler that notices the last message."""

    def __init__(self) -> None:
        self.left = MESSAGES
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def took(self, count: int) -> None:
        self.left -= count
        if self.left == 0:
            self.done.set_result(None)


def _theirs(backend: RedisBackend, **options: Any) -> Consume:
    async def consume(group: str) -> float:
        count, batch = _Count(), options.get("batch", False)
        url = f"redis://{backend.username}:{backend.password}@{backend.host}:{backend.port}/0"
        broker = RedisBroker(url, apply_types=False, logger=None)  # type: ignore[arg-type]  # None is allowed
        workers = {"max_workers": options["workers"]} if "workers" in options else {}
        stream = StreamSub(TOPIC, group=group, consumer="me", last_id="0", batch=batch, max_records=BATCH)

        async def handle(body: Any) -> None:
            count.took(len(body) if batch else 1)

        broker.subscriber(stream=stream, **workers)(handle)
        started = time.perf_counter()
        async with broker:
            await broker.start()
            await count.done
            return MESSAGES / (time.perf_counter() - started)

    return consume


def _ours(bus: PubSub, *, concurrency: int, batch: bool = False) -> Consume:
    async def consume(group: str) -> float:
        count = _Count()

        async def handle(message: Message) -> None:
            count.took(1)

        async def handle_all(messages: list[Message]) -> None:
            count.took(len(messages))

        started = time.perf_counter()
        if batch:
            subscription = await bus.bulk_subscribe(TOPIC, handle_all, group=group, max_messages=BATCH, raw=True)
        else:
            subscription = await bus.subscribe(TOPIC, handle, group=group, concurrency=concurrency, raw=True)
        await count.done
        rate = MESSAGES / (time.perf_counter() - started)
        await subscription.aclose()
        return rate

    return consume


async def _compare(what: str, ours: Consume, theirs: Consume) -> Row:
    pairs = [(await ours(f"ours-{what}-{number}"), await theirs(f"theirs-{what}-{number}")) for number in range(PAIRS)]
    ratio = median(mine / other for mine, other in pairs)
    return {
        "name": f"pubsub.redis, one subscription against FastStream's, {what}",
        "unit": "messages/s",
        "ours": median(mine for mine, _ in pairs),
        "baseline": median(other for _, other in pairs),
        "ratio": ratio,
        "target": "ratio > 1",
        "ok": ratio > 1,
    }


async def _measure() -> list[Row]:
    with redis_server() as backend:
        settings = RedisPubSubSettings.parse({**backend.properties, "maxLenApprox": "100000"})
        driver = RedisPubSub(settings, DriverContext(component="bench"))
        redis = Redis(host=backend.host, port=backend.port, username=backend.username, password=backend.password)
        async with PubSub(driver) as bus, redis:
            async with redis.pipeline(transaction=False) as pipeline:
                for _ in range(MESSAGES):
                    pipeline.xadd(TOPIC, {"data": DATA})
                await pipeline.execute()
            return [
                await _compare("one at a time", _ours(bus, concurrency=1), _theirs(backend)),
                await _compare(
                    f"{WORKERS} at a time", _ours(bus, concurrency=WORKERS), _theirs(backend, workers=WORKERS)
                ),
                await _compare(
                    f"in batches of {BATCH}", _ours(bus, concurrency=1, batch=True), _theirs(backend, batch=True)
                ),
            ]


async def run() -> list[Row]:
    """Return a row for each of FastStream's modes; with uvloop, both sides."""
    return await asyncio.to_thread(uvloop.run, _measure())
