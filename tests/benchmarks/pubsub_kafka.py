"""pubsub.kafka against aiokafka used by hand and against FastStream: publishing with many tasks, and consuming."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from faststream.kafka import KafkaBroker
from tests.backends.guard import guard
from tests.backends.kafka import KafkaBackend, KafkaCluster, attach

from lapel.driver import DriverContext
from lapel.pubsub import Message, PubSub
from lapel_contrib.kafka.component_settings import KafkaPubSubSettings
from lapel_contrib.kafka.producer import BATCH_BYTES
from lapel_contrib.kafka.pubsub import KafkaPubSub

PUBLISHERS = 64
MESSAGES = 400
"""By each publisher and run."""
ALONE = 600
"""What a single task publishes, one message after another."""
CONSUMED = 40_000
PAIRS = 7
DATA = b"m" * 100

Pairs = list[tuple[float, float]]


async def _rate(send: Callable[[], Awaitable[object]], tasks: int, messages: int) -> float:
    async def publisher() -> None:
        for _ in range(messages):
            await send()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(publisher())
    return tasks * messages / (time.perf_counter() - started)


class Counter:
    """Measures from the first message to the last: joining the group is not consuming."""

    def __init__(self) -> None:
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._count = 0
        self._started = 0.0

    def __call__(self) -> None:
        self._count += 1
        if self._count == 1:
            self._started = time.perf_counter()
        elif self._count == CONSUMED:
            self.done.set_result(CONSUMED / (time.perf_counter() - self._started))


async def _bare(servers: list[str], topic: str, group: str) -> float:
    """Read with the ordinary loop, which commits by itself every five seconds."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, group_id=group, auto_offset_reset="earliest")
    counter = Counter()

    async def handle(data: bytes) -> None:
        counter()

    await consumer.start()
    try:
        async for record in consumer:
            await handle(record.value)
            if counter.done.done():
                break
        return await counter.done
    finally:
        await consumer.stop()


async def _ours(bus: PubSub, topic: str, group: str, concurrency: int) -> float:
    counter = Counter()

    async def handle(message: Message) -> None:
        counter()

    subscription = await bus.subscribe(topic, handle, group=group, concurrency=concurrency, raw=True)
    try:
        return await counter.done
    finally:
        await subscription.aclose()


async def _faststream(servers: list[str], topic: str, group: str) -> float:
    broker = KafkaBroker(servers, logger=None)
    counter = Counter()

    @broker.subscriber(topic, group_id=group, auto_offset_reset="earliest")
    async def handle(data: bytes) -> None:
        counter()

    await broker.start()
    try:
        return await counter.done
    finally:
        await broker.stop()


async def _publishing(bus: PubSub, servers: list[str], found: dict[str, Pairs]) -> None:
    options: dict[str, Any] = {"bootstrap_servers": servers, "acks": "all", "enable_idempotence": True}
    producer = AIOKafkaProducer(**options, max_batch_size=BATCH_BYTES)
    broker = KafkaBroker(servers, acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES, logger=None)
    await producer.start()
    await broker.start()

    async def ours() -> None:
        await bus.publish("published", DATA, raw=True)

    async def send() -> None:
        await (await producer.send("published", DATA))

    async def faststream() -> None:
        await broker.publish(DATA, "published")

    try:
        for _ in range(PAIRS):
            mine = await _rate(ours, PUBLISHERS, MESSAGES)
            found["send"].append((mine, await _rate(send, PUBLISHERS, MESSAGES)))
            mine = await _rate(ours, PUBLISHERS, MESSAGES)
            found["loop"].append((mine, await _rate(lambda: producer.send_and_wait("published", DATA), 1, ALONE)))
            mine = await _rate(ours, PUBLISHERS, MESSAGES)
            found["faststream publish"].append((mine, await _rate(faststream, PUBLISHERS, MESSAGES)))
    finally:
        await broker.stop()
        await producer.stop()


async def _consuming(bus: PubSub, servers: list[str], found: dict[str, Pairs]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(PUBLISHERS):
            group.create_task(_fill(bus, CONSUMED // PUBLISHERS))
    for number in range(PAIRS):
        for concurrency in (10, 100):
            mine = await _ours(bus, "consumed", f"ours-{concurrency}-{number}", concurrency)
            found[f"bare {concurrency}"].append(
                (mine, await _bare(servers, "consumed", f"bare-{concurrency}-{number}"))
            )
        mine = await _ours(bus, "consumed", f"ours-f-{number}", 10)
        found["faststream consume"].append((mine, await _faststream(servers, "consumed", f"faststream-{number}")))


async def _fill(bus: PubSub, count: int) -> None:
    for _ in range(count):
        await bus.publish("consumed", DATA, raw=True)


async def _measure(kafka: KafkaBackend) -> dict[str, Pairs]:
    settings = KafkaPubSubSettings.parse({**kafka.properties, "initialOffset": "oldest"})
    names = ("send", "loop", "faststream publish", "bare 10", "bare 100", "faststream consume")
    found: dict[str, Pairs] = {name: [] for name in names}
    async with PubSub(KafkaPubSub(settings, DriverContext(component="bench"))) as bus:
        await _publishing(bus, list(kafka.addresses), found)
        await _consuming(bus, list(kafka.addresses), found)
    return found


_ROWS = (
    ("send", f"{PUBLISHERS} publishers against aiokafka's send with the same settings", 0.9),
    ("loop", f"{PUBLISHERS} publishers against send_and_wait in a loop", 5.0),
    ("faststream publish", f"{PUBLISHERS} publishers against FastStream", 1.0),
    ("bare 10", "one subscription, 10 handlers, against aiokafka's loop", 0.8),
    ("bare 100", "one subscription, 100 handlers, against aiokafka's loop", 0.8),
    ("faststream consume", "one subscription, 10 handlers, against FastStream", 1.0),
)


async def run() -> list[dict[str, Any]]:
    """Return a row for each comparison, in messages per second; with uvloop, both sides."""
    found = await asyncio.to_thread(_with_server)
    rows: list[dict[str, Any]] = []
    for name, title, target in _ROWS:
        pairs = found[name]
        ratio = median(ours / theirs for ours, theirs in pairs)
        rows.append(
            {
                "name": f"pubsub.kafka, {title}",
                "unit": "messages/s",
                "ours": median(ours for ours, _ in pairs),
                "baseline": median(theirs for _, theirs in pairs),
                "ratio": ratio,
                "target": f"ratio >= {target:g}",
                "ok": ratio >= target,
            }
        )
    return rows


def _with_server() -> dict[str, Pairs]:
    url = os.environ.get("LAPEL_TEST_KAFKA")
    if url:
        backend: KafkaBackend = attach(url, origin="LAPEL_TEST_KAFKA")
    else:
        backend = KafkaCluster(guard().folder() / "kafka")
        backend.launch()
    try:
        return uvloop.run(_measure(backend))
    finally:
        backend.close()


if __name__ == "__main__":
    for row in asyncio.run(run()):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
