"""pubsub.rabbitmq: publishing with confirmations and consuming, against aio-pika and FastStream."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import aio_pika
import uvloop
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from faststream.rabbit import Channel as FastChannel
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from tests.backends.guard import guard
from tests.backends.rabbitmq import RabbitBackend, RabbitServer, attach
from tests.benchmarks.rows import PAIRS, Row

from lapel.driver import DriverContext
from lapel.pubsub import Message, PubSub
from lapel_contrib.rabbitmq.pubsub import RabbitPubSub
from lapel_contrib.rabbitmq.pubsub_settings import RabbitPubSubSettings

PUBLISHERS = 64
MESSAGES = 40
"""By each publisher and run."""
ALONE = 300
"""One after another."""
CONSUMED = 4000
CONCURRENCY = 50
PREFETCH = 2 * CONCURRENCY
"""What a subscription of that concurrency holds."""
DATA = b"m" * 100
TOPIC = "bench"

Send = Callable[[], Awaitable[object]]
Pairs = list[tuple[float, float]]


async def _rate(send: Send, publishers: int, messages: int) -> float:
    async def publisher() -> None:
        for _ in range(messages):
            await send()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(publishers):
            tasks.create_task(publisher())
    return publishers * messages / (time.perf_counter() - started)


class _Counter:
    """Done when as many messages as are consumed have come."""

    def __init__(self) -> None:
        self.left = CONSUMED
        self.done = asyncio.get_running_loop().create_future()

    def count(self) -> None:
        self.left -= 1
        if not self.left:
            self.done.set_result(None)


async def _ours(bus: PubSub, group: str) -> float:
    counter = _Counter()

    async def handle(message: Message) -> None:
        counter.count()

    started = time.perf_counter()
    async with await bus.subscribe(TOPIC, handle, group=group, concurrency=CONCURRENCY, raw=True):
        await counter.done
        return CONSUMED / (time.perf_counter() - started)


async def _bare(url: str, queue_name: str) -> float:
    counter = _Counter()

    async def handle(message: AbstractIncomingMessage) -> None:
        await message.ack()
        counter.count()

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(queue_name)
        started = time.perf_counter()
        await queue.consume(handle)
        await counter.done
        return CONSUMED / (time.perf_counter() - started)


async def _faststream(url: str, queue_name: str) -> float:
    counter = _Counter()
    broker = RabbitBroker(url, default_channel=FastChannel(prefetch_count=PREFETCH), logger=None)
    queue = RabbitQueue(queue_name, durable=True, declare=False)
    exchange = RabbitExchange(TOPIC, type=ExchangeType.FANOUT, durable=True, declare=False)

    @broker.subscriber(queue, exchange)
    async def handle(body: bytes) -> None:
        counter.count()

    async with broker:
        started = time.perf_counter()
        await broker.start()
        await counter.done
        return CONSUMED / (time.perf_counter() - started)


@asynccontextmanager
async def _filled(bus: PubSub, channel: AbstractChannel, *groups: str) -> AsyncIterator[None]:
    """Run the body with a full queue for each group, and remove them."""
    for group in groups:
        await (await bus.subscribe(TOPIC, _nothing, group=group)).aclose()
    await _rate(lambda: bus.publish(TOPIC, DATA, raw=True), 100, CONSUMED // 100)
    yield
    for group in groups:
        await channel.queue_delete(f"{group}-{TOPIC}")


async def _nothing(message: Message) -> None:
    pass


async def _publishing(url: str, bus: PubSub, channel: AbstractChannel) -> dict[str, Pairs]:
    exchange = await channel.get_exchange(TOPIC)
    found: dict[str, Pairs] = {"alone": [], "tasks": [], "faststream": []}

    async def ours() -> None:
        await bus.publish(TOPIC, DATA, raw=True)

    async def theirs() -> None:
        await exchange.publish(aio_pika.Message(DATA, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), "")

    async with RabbitBroker(url, logger=None) as broker:
        await broker.start()
        fanout = RabbitExchange(TOPIC, type=ExchangeType.FANOUT, durable=True, declare=False)

        async def fast() -> None:
            await broker.publish(DATA, exchange=fanout, persist=True)

        for _ in range(PAIRS):
            mine = await _rate(ours, PUBLISHERS, MESSAGES)
            found["tasks"].append((mine, await _rate(theirs, PUBLISHERS, MESSAGES)))
            found["alone"].append((mine, await _rate(theirs, 1, ALONE)))
            found["faststream"].append((mine, await _rate(fast, PUBLISHERS, MESSAGES)))
    return found


async def _measure(backend: RabbitBackend) -> dict[str, Pairs]:
    url = backend.address.amqp
    settings = RabbitPubSubSettings.parse({**backend.properties, "deletedWhenUnused": "false"})
    async with (
        await PubSub(RabbitPubSub(settings, DriverContext(component="bench"))).open() as bus,
        await aio_pika.connect(url) as connection,
    ):
        channel = await connection.channel()
        # There is a queue while publishing is measured, so that the broker has something to do.
        await (await bus.subscribe(TOPIC, _nothing, group="sink")).aclose()
        found = await _publishing(url, bus, channel)
        await channel.queue_delete(f"sink-{TOPIC}")
        found |= {"consume": [], "consume faststream": []}
        for number in range(PAIRS):
            async with _filled(bus, channel, *(names := [f"{number}-{one}" for one in ("a", "b", "c")])):
                mine = await _ours(bus, names[0])
                found["consume"].append((mine, await _bare(url, f"{names[1]}-{TOPIC}")))
                found["consume faststream"].append((mine, await _faststream(url, f"{names[2]}-{TOPIC}")))
    return found


def _row(name: str, pairs: Pairs, least: float) -> Row:
    ratio = median(ours / theirs for ours, theirs in pairs)
    return Row(
        name=name,
        unit="messages/s",
        ours=median(ours for ours, _ in pairs),
        baseline=median(theirs for _, theirs in pairs),
        ratio=ratio,
        target=f"ratio >= {least:g}",
        ok=ratio >= least,
    )


async def run() -> list[Row]:
    """Return the rows of publishing and consuming, in messages per second; with uvloop, all sides."""
    found = await asyncio.to_thread(_with_server)
    tasks = f"pubsub.rabbitmq, {PUBLISHERS} publishers"
    consumer = f"pubsub.rabbitmq, one subscription, prefetch {PREFETCH},"
    return [
        _row(f"{tasks} against aio-pika, one message after another", found["alone"], 3.0),
        _row(f"{tasks} against aio-pika, {PUBLISHERS} publishers", found["tasks"], 0.9),
        _row(f"{tasks} against FastStream, {PUBLISHERS} publishers", found["faststream"], 1.0),
        _row(f"{consumer} against an aio-pika consumer", found["consume"], 0.8),
        _row(f"{consumer} against a FastStream subscriber", found["consume faststream"], 1.0),
    ]


def _with_server() -> dict[str, Pairs]:
    url = os.environ.get("LAPEL_TEST_RABBITMQ")
    if url:
        backend: RabbitBackend = attach(url, origin="LAPEL_TEST_RABBITMQ")
    else:
        folder = guard().folder()
        backend = RabbitServer(folder)
        backend.launch()
    try:
        found: dict[str, Any] = uvloop.run(_measure(backend))
        return found
    finally:
        backend.close()


if __name__ == "__main__":
    for row in asyncio.run(run()):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
