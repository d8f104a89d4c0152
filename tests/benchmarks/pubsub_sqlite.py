"""Publishing to pubsub.sqlite with many tasks against one connection that commits each message; and consuming."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from lapel.delivery import Delivery, Ordering, Settled, Settlement
from lapel.driver import DriverContext
from lapel.pubsub.types import PublishRequest, SubscribeRequest
from lapel_contrib.sqlite.pubsub import SqlitePubSub
from lapel_contrib.sqlite.pubsub_schema import Entry, publish
from lapel_contrib.sqlite.settings import SqlitePubSubSettings

PUBLISHERS = 64
MESSAGES = 50
"""By each publisher and run."""
BASE_MESSAGES = 5
PAIRS = 7
BATCH = 20
DATA = b"m" * 200


class _Baseline:
    """The same statements the ordinary way: one connection, one worker thread, a commit for each message."""

    def __init__(self, path: Path) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._path = path

    async def run(self, call: Callable[..., None], *args: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)

    def open(self) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")

    def _publish(self, number: int) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        publish(self._db, "t", [Entry(DATA, None, None, None, None, None, 1_000_000)])
        self._db.execute("COMMIT")

    async def publish(self, number: int) -> None:
        await self.run(self._publish, number)

    def close(self) -> None:
        self._db.close()

    async def aclose(self) -> None:
        await self.run(self.close)
        self._pool.shutdown()


async def _rate(send: Callable[[int], Awaitable[None]], count: int) -> float:
    async def publisher(number: int) -> None:
        for _ in range(count):
            await send(number)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(PUBLISHERS):
            tasks.create_task(publisher(number))
    return PUBLISHERS * count / (time.perf_counter() - started)


async def _consume(driver: SqlitePubSub, count: int, ordering: Ordering) -> float:
    async def revoked(deliveries: Sequence[Delivery], seconds: float) -> None:
        raise AssertionError

    consumer = await driver.subscribe(SubscribeRequest("t", "g", ordering, BATCH, revoked))
    started, left = time.perf_counter(), count
    while left:
        batch = await consumer.receive(BATCH, 5.0)
        await consumer.settle([Settled(delivery, Settlement.ACK) for delivery in batch])
        left -= len(batch)
    rate = count / (time.perf_counter() - started)
    await consumer.close()
    return rate


async def _measure(path: Path) -> tuple[float, float, float, float]:
    driver = SqlitePubSub(SqlitePubSubSettings(connection_string=str(path)), DriverContext(component="bench"))
    await driver.open()
    baseline = _Baseline(path)
    await baseline.run(baseline.open)
    plain: list[float] = []
    keyed: list[float] = []

    async def ours(number: int) -> None:
        await driver.publish(PublishRequest("t", DATA))

    async def with_key(number: int) -> None:
        await driver.publish(PublishRequest("t", DATA, key=str(number)))

    pairs = []
    try:
        await _consume(driver, 0, Ordering.NONE)
        for _ in range(PAIRS):
            pairs.append((await _rate(ours, MESSAGES), await _rate(baseline.publish, BASE_MESSAGES)))
            plain.append(await _consume(driver, PUBLISHERS * (MESSAGES + BASE_MESSAGES), Ordering.NONE))
            await _rate(with_key, MESSAGES)
            keyed.append(await _consume(driver, PUBLISHERS * MESSAGES, Ordering.KEY))
    finally:
        await baseline.aclose()
        await driver.close()
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs), median(plain), median(keyed)


async def run() -> list[dict[str, Any]]:
    """Return one row for publishing and one for each order of consuming, in messages per second.

    `LAPEL_BENCH_DIRECTORY` names a directory on the disk to measure; the system's temporary directory otherwise.
    """
    place = os.environ.get("LAPEL_BENCH_DIRECTORY") or tempfile.gettempdir()
    with await asyncio.to_thread(tempfile.TemporaryDirectory, dir=place) as name:
        mine, base, plain, keyed = await _measure(Path(name) / "bench.db")
    unit = {"unit": "messages/s", "target": "none", "ok": True}
    return [
        {
            "name": f"pubsub.sqlite, {PUBLISHERS} concurrent publishers",
            "ours": mine,
            "baseline": base,
            "ratio": mine / base,
            **unit,
        },
        {"name": f"pubsub.sqlite, one consumer, batches of {BATCH}", "ours": plain, **unit},
        {"name": f"pubsub.sqlite, the same by key, {PUBLISHERS} keys", "ours": keyed, **unit},
    ]


if __name__ == "__main__":
    for row in asyncio.run(run()):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
