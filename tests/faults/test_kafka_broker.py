"""Brokers of Kafka that are killed, frozen or cut off, while messages flow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.backends.kafka_fixtures import OwnKafka
from tests.backends.kafka_node import KafkaOptions
from tests.backends.ports import free_port
from tests.faults.kafka_run import RESUME_SECONDS, Run, no_loss

from lapel.testing import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

PARTITIONS = {"num.partitions": "6"}


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Run]]:
    made: list[Run] = []

    def make(properties: dict[str, str]) -> Run:
        made.append(Run(tmp_path, properties))
        return made[0]

    yield make
    for run in made:
        run.kill()


async def test_a_killed_broker_that_comes_back_has_lost_nothing(
    own_kafka: OwnKafka, make_run: Callable[[dict[str, str]], Run]
) -> None:
    kafka = await asyncio.to_thread(own_kafka.cluster, KafkaOptions(settings=PARTITIONS))
    run = make_run(kafka.properties)
    await asyncio.gather(*(run.start("consume") for _ in range(2)))
    await run.start("publish")
    for _ in range(2):
        await asyncio.sleep(4.0)
        began = time.monotonic()
        await asyncio.to_thread(kafka.kill)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(kafka.start)
        returned = time.monotonic()
        await asyncio.sleep(RESUME_SECONDS)
        run.failed(began - 1.0, returned + RESUME_SECONDS)
        silent = [at for at, _ in run.got() if began + 0.5 < at < returned - 0.5]
        assert not silent, "consumption went on without a broker: the fault did not hit"
        resumed = run.resumed(returned)
        print(f"\nresumed {resumed:.1f} s after the broker's return")
        assert resumed < RESUME_SECONDS
    no_loss(await run.finish())


async def test_one_of_three_brokers_dies_and_the_others_go_on(
    own_kafka: OwnKafka, make_run: Callable[[dict[str, str]], Run]
) -> None:
    kafka = await asyncio.to_thread(own_kafka.cluster, KafkaOptions(brokers=3, settings=PARTITIONS))
    run = make_run(kafka.properties)
    await asyncio.gather(*(run.start("consume") for _ in range(2)))
    await run.start("publish")
    for node in kafka.nodes[:2]:
        await asyncio.sleep(4.0)
        began = time.monotonic()
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(RESUME_SECONDS)
        assert node.pid is None
        resumed = run.resumed(began + 1.0)
        print(f"\nwithout {node.name}: went on after {resumed + 1.0:.1f} s")
        assert resumed < RESUME_SECONDS
        await asyncio.to_thread(node.start)
        returned = time.monotonic()
        await asyncio.sleep(RESUME_SECONDS / 2)
        run.failed(began - 1.0, returned + RESUME_SECONDS / 2)
    no_loss(await run.finish())


@pytest.mark.parametrize("fault", ["cut", "frozen", "half-open"])
async def test_links_break_and_consumption_goes_on_by_itself(
    own_kafka: OwnKafka, make_run: Callable[[dict[str, str]], Run], fault: str
) -> None:
    port = free_port()
    async with FaultProxy("127.0.0.1", port) as proxy:
        options = KafkaOptions(settings=PARTITIONS, port=port, advertised=proxy.port)
        kafka = await asyncio.to_thread(own_kafka.cluster, options)
        run = make_run(kafka.properties)
        await run.start("consume")
        await run.start("publish")
        await asyncio.sleep(3.0)
        began = time.monotonic()
        before = proxy.counters.cut, proxy.counters.dropped_request_bytes, proxy.counters.accepted
        if fault == "cut":
            assert proxy.cut() > 0
            proxy.refuse()
        elif fault == "frozen":
            proxy.freeze()
        else:
            proxy.black_hole()
        await asyncio.sleep(5.0)
        proxy.heal()
        returned = time.monotonic()
        await asyncio.sleep(RESUME_SECONDS + 2.0)
        run.failed(began - 1.0, returned + RESUME_SECONDS)
        silent = [at for at, _ in run.got() if began + 1.0 < at < returned]
        assert not silent, "the fault did not hit"
        after = proxy.counters.cut, proxy.counters.dropped_request_bytes, proxy.counters.accepted
        assert fault == "frozen" or after != before, "the fault did not hit"
        resumed = run.resumed(returned)
        print(f"\n{fault}: resumed after {resumed:.1f} s")
        assert resumed < RESUME_SECONDS
        no_loss(await run.finish())
