"""pubsub.redis: publishing with many tasks against plain `XADD`, and consuming against a plain reading loop."""

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
from lapel.pubsub import Message, PubSub
from lapel_contrib.redis.pubsub import RedisPubSub
from lapel_contrib.redis.pubsub_settings import RedisPubSubSettings

PUBLISHERS = 64
MESSAGES = 500
"""By each publisher and run."""
PAIRS = 7
CONSUMED = PUBLISHERS * MESSAGES
BATCHES = (20, 200)
"""What a dispatcher reads at once with the default concurrency of 10, and with 100."""
DATA = b"m" * 100


async def _rate(send: Callable[[], Awaitable[object]]) -> float:
    async def publisher() -> None:
        for _ in range(MESSAGES):
            await send()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(PUBLISHERS):
            tasks.create_task(publisher())
    return PUBLISHERS * MESSAGES / (time.perf_counter() - started)


async def _bare_consume(redis: Redis, topic: str, group: str, batch: int) -> float:
    """Read, handle one message at a time, and acknowledge each batch with one command."""
    await redis.xgroup_create(topic, group, "0")
    left, started = CONSUMED, time.perf_counter()

    async def handle(data: bytes) -> None:
        pass

    while left:
        reply: Any = await redis.xreadgroup(group, "me", {topic: ">"}, count=batch, block=5000)
        entries = reply[0][1] if isinstance(reply, list) else reply[topic.encode()][0]
        for _, fields in entries:
            await handle(fields[b"data"])
        await redis.xack(topic, group, *(id_ for id_, _ in entries))
        left -= len(entries)
    return CONSUMED / (time.perf_counter() - started)


async def _consume(bus: PubSub, topic: str, group: str, concurrency: int) -> float:
    done = asyncio.get_running_loop().create_future()
    count = 0

    async def handle(message: Message) -> None:
        nonlocal count
        count += 1
        if count == CONSUMED:
            done.set_result(None)

    started = time.perf_counter()
    subscription = await bus.subscribe(topic, handle, group=group, concurrency=concurrency, raw=True)
    await done
    rate = CONSUMED / (time.perf_counter() - started)
    await subscription.aclose()
    return rate


async def _measure(server: RedisBackend) -> dict[int, list[tuple[float, float]]]:
    settings = RedisPubSubSettings.parse({**server.properties, "maxLenApprox": "100000"})
    driver = RedisPubSub(settings, DriverContext(component="bench"))
    bus = await PubSub(driver).open()
    redis = Redis(host=server.host, port=server.port, username=server.username, password=server.password)
    found: dict[int, list[tuple[float, float]]] = {0: [], **{batch: [] for batch in BATCHES}}

    async def ours() -> None:
        await bus.publish("t", DATA, raw=True)

    async def theirs() -> None:
        await redis.xadd("t", {"data": DATA}, maxlen=100000)

    try:
        for number in range(PAIRS):
            await redis.delete("t")
            found[0].append((await _rate(ours), await _rate(theirs)))
            for batch in BATCHES:
                mine = await _consume(bus, "t", f"ours-{number}-{batch}", batch // 2)
                found[batch].append((mine, await _bare_consume(redis, "t", f"theirs-{number}-{batch}", batch)))
    finally:
        await redis.aclose()
        await bus.aclose()
    return found


def _median(pairs: list[tuple[float, float]]) -> dict[str, float]:
    ratio = median(ours / theirs for ours, theirs in pairs)
    return {"ours": median(one for one, _ in pairs), "baseline": median(two for _, two in pairs), "ratio": ratio}


async def run() -> list[dict[str, Any]]:
    """Return one row for publishing and one for consuming, in messages per second; with uvloop, both sides."""
    found = await asyncio.to_thread(_with_server)
    publish = _median(found[0])
    rows: list[dict[str, Any]] = [
        {
            "name": f"pubsub.redis, {PUBLISHERS} concurrent publishers against XADD",
            "unit": "messages/s",
            "target": "ratio >= 3",
            "ok": publish["ratio"] >= 3,
            **publish,
        }
    ]
    for batch in BATCHES:
        consume = _median(found[batch])
        rows.append(
            {
                "name": f"pubsub.redis, one subscription against XREADGROUP and XACK, batches of {batch}",
                "unit": "messages/s",
                "target": "ratio >= 0.8",
                "ok": consume["ratio"] >= 0.8,
                **consume,
            }
        )
    return rows


def _with_server() -> dict[int, list[tuple[float, float]]]:
    with redis_server() as backend:
        return uvloop.run(_measure(backend))


if __name__ == "__main__":
    for row in asyncio.run(run()):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
