"""Drivers of pubsub.sqlite on one file, a clock that tests move, and short words for what tests do with both."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lapel.delivery import Consumer, Delivery, Ordering, Settled, Settlement
from lapel.driver import DriverContext
from lapel.pubsub.types import PublishRequest, SubscribeRequest
from lapel_contrib.sqlite import pubsub_queue, pubsub_schema
from lapel_contrib.sqlite.pubsub import SqlitePubSub
from lapel_contrib.sqlite.settings import SqlitePubSubSettings

Opener = Callable[..., Awaitable[SqlitePubSub]]
WAIT = 10.0
ACK, RETRY = Settlement.ACK, Settlement.RETRY


class Clock:
    """The wall clock of all drivers of a test, moved by hand."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> int:
        return int((time.time() + self.offset) * 1000)

    def advance(self, seconds: float) -> None:
        self.offset += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (pubsub_schema, pubsub_queue):
        monkeypatch.setattr(module, "now_ms", clock)
    monkeypatch.setattr("lapel_contrib.sqlite.pubsub_consumer.now_ms", clock)
    return clock


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    drivers: list[SqlitePubSub] = []

    async def open_driver(name: str = "broker.db", **fields: Any) -> SqlitePubSub:
        text = name if name.startswith((":", "file:")) else str(tmp_path / name)
        settings = await asyncio.to_thread(SqlitePubSubSettings, connection_string=text, **fields)
        driver = SqlitePubSub(settings, DriverContext(component="bus"))
        await driver.open()
        drivers.append(driver)
        return driver

    yield open_driver
    for driver in drivers:
        await driver.close()


async def subscribe(
    driver: SqlitePubSub, group: str = "g", ordering: Ordering = Ordering.NONE, topic: str = "t"
) -> Consumer:
    async def revoked(deliveries: Sequence[Delivery], seconds: float) -> None:
        raise AssertionError("a lease is not revoked, it runs out")

    return await driver.subscribe(SubscribeRequest(topic, group, ordering, 10, revoked))


async def publish(driver: SqlitePubSub, *texts: str, key: str | None = None, **fields: Any) -> None:
    for text in texts:
        await driver.publish(PublishRequest("t", text.encode(), key=key, **fields))


async def take(consumer: Consumer, count: int = 10, wait: float = WAIT) -> Sequence[Delivery]:
    return await consumer.receive(count, wait)


async def nothing(consumer: Consumer) -> bool:
    return not await consumer.receive(10, 0.0)


def texts(deliveries: Iterable[Delivery]) -> list[str]:
    return [delivery.data.decode() for delivery in deliveries]


async def ack(consumer: Consumer, *deliveries: Delivery) -> None:
    await consumer.settle([Settled(delivery, ACK) for delivery in deliveries])


def count(driver: SqlitePubSub, table: str) -> int:
    path = driver.settings.connection_string
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
