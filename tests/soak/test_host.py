"""A host under load, with an application that it delivers to, leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.host.application import Application, Asked, application
from tests.host.support import Running, component, running
from tests.soak.measuring import Sample, growth, sample
from tests.soak.test_soak import SAMPLES, SECONDS, WORKERS

ROUNDS = 15
"""The least that each worker does between two samples, on as many keys."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + SECONDS * 3)]


class Counting(Application):
    """Counts deliveries and forgets them."""

    delivered = 0

    async def take(self, asked: Asked) -> int:
        self.asked.clear()
        self.delivered += 1
        return 200


async def work(host: Running, worker: int, number: int) -> None:
    """Save, read and delete a key, and publish a message."""
    key = f"{worker}-{number}"
    saved = await host.ask("POST", "/v1.0/state/store", json=[{"key": key, "value": number}])
    assert saved.status_code == 204
    assert (await host.ask("GET", f"/v1.0/state/store/{key}")).json() == number
    assert (await host.ask("DELETE", f"/v1.0/state/store/{key}")).status_code == 204
    assert (await host.ask("GET", "/v1.0/state/nowhere/k")).status_code == 400
    assert (await host.ask("POST", "/v1.0/publish/bus/t", json={"n": number})).status_code == 204


async def test_load_leaves_nothing_behind(tmp_path: Path) -> None:
    component(tmp_path, "store", "state.in-memory")
    component(tmp_path, "bus", "pubsub.in-memory")
    served = Counting()
    served.subscribes({"pubsubname": "bus", "topic": "t", "route": "/t"})
    served.answers["POST /t"] = served.take
    samples: list[Sample] = []
    rounds = 0

    async def worker(host: Running, name: int, until: float) -> None:
        nonlocal rounds
        number = 0
        while number < ROUNDS or time.monotonic() < until:
            await work(host, name, number % ROUNDS)
            number += 1
            rounds += 1

    async with application(served) as app, running(tmp_path, app_port=app.port) as host:
        async with asyncio.timeout(20):
            while host.host.app is None or ("bus", "t") not in host.host.app.armed():
                await asyncio.sleep(0.01)
        for _ in range(SAMPLES):
            until = time.monotonic() + SECONDS / SAMPLES
            async with asyncio.TaskGroup() as tasks:
                for name in range(WORKERS):
                    tasks.create_task(worker(host, name, until))
            async with asyncio.timeout(60):
                while served.delivered < rounds:
                    await asyncio.sleep(0.01)
            samples.append(await sample(rounds))
    for one in samples:
        print(f"  {one}")
    assert served.delivered == rounds
    # Whenever more messages wait at once than before, there is one more task that delivers.
    assert not growth(samples, tasks=WORKERS)
