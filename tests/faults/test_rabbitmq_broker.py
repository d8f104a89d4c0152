"""pubsub.rabbitmq while its broker dies, stands still, and returns; and while consumers come and go.

Publisher and consumers are processes of their own. Every message is numbered: none that was confirmed is lost, none
comes twice without a failure that explains it, and consumption goes on by itself within 10 s of the broker's return.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from tests.backends.rabbitmq_fixtures import OwnRabbit
from tests.faults.rabbitmq_run import Run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(280), pytest.mark.asyncio]

KILLS = 3
COMING_AND_GOING_SECONDS = 120
TERMINATIONS = 12


@pytest.mark.parametrize(("queue", "ordering"), [("classic", "none"), ("quorum", "none"), ("classic", "key")], ids=str)
async def test_a_broker_that_is_killed_and_restarted_loses_nothing_that_it_confirmed(
    own_rabbitmq: OwnRabbit, tmp_path: Path, queue: str, ordering: str
) -> None:
    server = await asyncio.to_thread(own_rabbitmq.server)
    async with Run(tmp_path, {**server.properties, "queueType": queue}, ordering=ordering) as run:
        consumers = [await run.consumer() for _ in range(2)]
        await run.publisher()
        for kill in range(1, KILLS + 1):
            await run.flowing()
            began = time.monotonic_ns()
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(random.uniform(0.2, 3.0))
            await asyncio.to_thread(server.start)
            returned = time.monotonic_ns()
            await run.resumes(returned)
            await run.back(consumers, kill)
            run.faults.append((began, time.monotonic_ns()))
        account = await run.account(f"{KILLS} kills of the broker, {queue}, ordering {ordering}")
        assert account["unknown"] + account["failed"] >= KILLS, "no publisher noticed the kills"


async def test_a_broker_that_stands_still_is_left_and_found_again(own_rabbitmq: OwnRabbit, tmp_path: Path) -> None:
    server = await asyncio.to_thread(own_rabbitmq.server)
    async with Run(tmp_path, server.properties) as run:
        consumers = [await run.consumer() for _ in range(2)]
        await run.publisher()
        await run.flowing()
        began = time.monotonic_ns()
        server.freeze()
        await asyncio.sleep(15)
        server.thaw()
        await run.resumes(time.monotonic_ns())
        await run.back(consumers, 1)
        # What it gets from connections that were given up, it still settles.
        await run.flowing()
        run.faults.append((began, time.monotonic_ns()))
        account = await run.account("a broker frozen for 15 s")
        assert account["unknown"] + account["failed"] > 0


async def test_consumers_that_come_and_go_lose_nothing(own_rabbitmq: OwnRabbit, tmp_path: Path) -> None:
    server = await asyncio.to_thread(own_rabbitmq.server)
    async with Run(tmp_path, server.properties) as run:
        group = [await run.consumer() for _ in range(3)]
        await run.publisher()
        end = time.monotonic() + COMING_AND_GOING_SECONDS
        left = 0
        while time.monotonic() < end:
            await asyncio.sleep(5)
            await run.end(group.pop(0))
            left += 1
            await run.flowing(10)
            group.append(await run.consumer())
        account = await run.account(f"{left} consumers left and came within {COMING_AND_GOING_SECONDS} s")
        assert left >= 10
        assert account["failed"] == account["unknown"] == account["duplicates"] == 0


async def test_a_termination_at_any_moment_loses_nothing_and_doubles_nothing(
    own_rabbitmq: OwnRabbit, tmp_path: Path
) -> None:
    server = await asyncio.to_thread(own_rabbitmq.server)
    async with Run(tmp_path, server.properties) as run:
        names = [await run.consumer() for _ in range(2)]
        await run.publisher()
        for _ in range(TERMINATIONS):
            await asyncio.sleep(random.uniform(0.0, 1.0))
            await run.end(names.pop(0))
            names.append(await run.consumer())
        account = await run.account(f"{TERMINATIONS} consumers terminated at random moments")
        assert account["duplicates"] == 0
        assert account["faults"] == TERMINATIONS + 1
