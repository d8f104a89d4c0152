"""pubsub.rabbitmq while the line to its broker is cut, stands still, or swallows everything."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.backends.rabbitmq import RabbitBackend
from tests.faults.rabbitmq_run import Run

from lapel.testing.proxy import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(200), pytest.mark.asyncio]


@pytest.mark.parametrize("fault", ["cut", "frozen", "half-open"])
async def test_a_broken_line_loses_nothing_that_was_confirmed(
    rabbitmq_server: RabbitBackend, tmp_path: Path, fault: str
) -> None:
    address = rabbitmq_server.address
    async with FaultProxy(address.host, address.port) as proxy:
        settings = {"host": address.through(proxy.host, proxy.port).amqp, "queueType": "classic"}
        async with Run(tmp_path, {**settings, "consumerID": fault}) as run:
            consumers = [await run.consumer() for _ in range(2)]
            await run.publisher()
            for number in (1, 2):
                await run.flowing()
                began = time.monotonic_ns()
                if fault == "cut":
                    assert proxy.cut() >= 3
                elif fault == "frozen":
                    proxy.freeze()
                    await asyncio.sleep(8)
                else:
                    proxy.black_hole()
                    await asyncio.sleep(8)
                proxy.heal()
                await run.resumes(time.monotonic_ns())
                await run.back(consumers, number)
                run.faults.append((began, time.monotonic_ns()))
            account = await run.account(f"line {fault} twice")
            if fault == "half-open":
                assert proxy.counters.dropped_request_bytes > 0
            assert account["unknown"] + account["failed"] > 0, "the publisher noticed nothing"
