"""Groups of Kafka consumers whose members join, leave, die and dawdle, while messages flow."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.backends.kafka import KafkaBackend, KafkaCluster
from tests.backends.kafka_fixtures import OwnKafka
from tests.backends.kafka_node import KafkaOptions
from tests.faults.kafka_run import Run, Worker, hit, no_loss, until

SECONDS = float(os.environ.get("LAPEL_TEST_KAFKA_SECONDS", "30"))
"""How long members join and leave; 120 is the full length."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 2 * SECONDS)]


@pytest.fixture
def kafka(own_kafka: OwnKafka) -> KafkaCluster:
    return own_kafka.cluster(KafkaOptions(settings={"num.partitions": "6"}))


@pytest.fixture
def run(kafka: KafkaBackend, tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path, kafka.properties)
    yield made
    made.kill()


async def test_three_members_join_and_leave_and_nothing_is_lost_or_doubled(run: Run) -> None:
    """Members leave in good order, so that no failure would explain a duplicate."""
    members = [await run.start("consume", handling=0.002) for _ in range(3)]
    await run.start("publish")
    end = time.monotonic() + SECONDS
    changes = 0
    while time.monotonic() < end:
        await asyncio.sleep(5.0)
        leaving = members.pop(0)
        await leaving.end()
        members.append(await run.start("consume", handling=0.002))
        changes += 1
    counts = await run.finish()
    no_loss(counts)
    assert counts.duplicates == counts.resent == 0
    assert changes >= SECONDS / 15
    hit(entry["rebalances"] > 1 for one in run.of("consume") for entry in one.entries("rebalances"))


async def test_sigterm_at_random_moments_loses_and_doubles_nothing(run: Run) -> None:
    chance = random.Random(4)
    await run.start("consume", handling=0.01)
    await run.start("publish", pause=0.02)
    for _ in range(6):
        leaving = await run.start("consume", handling=0.01)
        await asyncio.sleep(chance.uniform(0.2, 2.5))
        await leaving.end()
    counts = await run.finish()
    no_loss(counts)
    assert counts.duplicates == 0
    ended = [one for one in run.of("consume") if one.entries("ended")]
    assert len(ended) == len(run.of("consume")), "a member did not end in good order"


def works(worker: Worker) -> bool:
    return len(worker.entries("got")) > 20


async def test_a_member_that_is_killed_has_its_messages_delivered_to_others(run: Run) -> None:
    await run.start("consume", handling=0.005)
    await run.start("publish")
    for _ in range(2):
        victim = await run.start("consume", handling=0.005)
        await until(partial(works, victim), "the group gives it nothing to do")
        began = time.monotonic()
        await victim.end(signal.SIGKILL)
        # What it had handled and not committed comes again when its session has run out.
        run.failed(began - 1.0, began)
        await asyncio.sleep(7.0)
    counts = await run.finish()
    no_loss(counts)


async def test_handlers_slower_than_the_session_cost_no_membership(run: Run) -> None:
    """Each handler takes longer than the group waits for a sign of life."""
    fields = {"sessionTimeout": "2s", "heartbeatInterval": "300ms"}
    slow = await run.start("consume", handling=5.0, fields=fields, ordering="none")
    publisher = await run.start("publish", keys=5, pause=1.0)
    await asyncio.sleep(12.0)
    await publisher.end()
    counts = await run.finish()
    no_loss(counts, least=20)
    assert counts.duplicates == 0
    states = slow.entries("rebalances")
    assert len(states) > 10
    assert {(entry["rebalances"], entry["reconnects"]) for entry in states} == {(0, 0)}
