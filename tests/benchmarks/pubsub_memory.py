"""How many messages a second go through pubsub.in-memory: publish, dispatcher, handler, on one event loop."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from tests.benchmarks.rows import PAIRS, Row

from lapel.driver import DriverContext
from lapel.pubsub import Message, PubSub
from lapel_contrib.memory.pubsub import MemoryPubSub
from lapel_contrib.memory.settings import MemoryPubSubSettings

PUBLISHERS = 8
WARM_UP = 4_000


async def run(messages: int = 40_000) -> list[Row]:
    """Return messages per second, raw and as CloudEvents. The handler does nothing; each publish is awaited."""
    rows: list[Row] = []
    rates = [[await _rate(messages, raw=raw) for raw in (True, False)] for _ in range(PAIRS)]
    for index, (name, least) in enumerate((("raw", 100_000), ("CloudEvents", 60_000))):
        rate = median(pair[index] for pair in rates)
        rows.append(
            {
                "name": f"pubsub.in-memory, {name}: publish, dispatcher and handler on one core",
                "unit": "messages/s",
                "ours": rate,
                "target": f">= {least:,}",
                "ok": rate >= least,
            }
        )
    return rows


async def _rate(messages: int, *, raw: bool) -> float:
    share = messages // PUBLISHERS
    data = b'{"order":17,"status":"paid","amount":12.5}'
    driver = MemoryPubSub(MemoryPubSubSettings(), DriverContext(component="bus"))
    async with PubSub(driver) as bus:
        seen = 0
        finished = asyncio.Event()
        goal = WARM_UP

        async def handle(message: Message) -> None:
            nonlocal seen
            seen += 1
            if seen == goal:
                finished.set()

        async def publish(count: int) -> None:
            for _ in range(count):
                await bus.publish("orders", data, content_type="application/json", raw=raw)

        await bus.subscribe("orders", handle, raw=raw)
        await publish(WARM_UP)
        await finished.wait()
        finished.clear()
        goal = WARM_UP + share * PUBLISHERS
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(PUBLISHERS):
                tasks.create_task(publish(share))
        await finished.wait()
        return round(share * PUBLISHERS / (time.perf_counter() - began))
