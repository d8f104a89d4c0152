"""pubsub.redis when links break, servers restart and processes are killed.

Run as a script, this file is a consumer that takes messages, says so, and never settles them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.backends.redis import RedisServer
from tests.backends.redis_fixtures import OwnRedis
from tests.backends.redis_node import RedisOptions

from lapel.component import HealthState
from lapel.delivery import Ordering
from lapel.driver import DriverContext
from lapel.errors import LapelError, OutcomeUnknownError, UnavailableError
from lapel.pubsub import Message, PubSub
from lapel.pubsub.types import PublishRequest, SubscribeRequest
from lapel.testing import FaultProxy
from lapel_contrib.redis.pubsub import RedisPubSub
from lapel_contrib.redis.pubsub_settings import RedisPubSubSettings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

PATIENCE = 30.0
FIELDS = {"processingTimeout": "1s", "redeliverInterval": "200", "maxLenApprox": "100000", "readTimeout": "1s"}


def make(properties: dict[str, str], **changes: str) -> RedisPubSub:
    fields = {**properties, **FIELDS, **changes}
    return RedisPubSub(RedisPubSubSettings.parse(fields), DriverContext(component="bus"))


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


@pytest.fixture
def server(own_redis: OwnRedis) -> RedisServer:
    return own_redis.server(RedisOptions(persistent=True))


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.host, server.port) as proxy:
        yield proxy


@pytest.fixture
async def bus(server: RedisServer, proxy: FaultProxy) -> AsyncIterator[PubSub]:
    driver = make({**server.properties, "redisHost": f"{proxy.host}:{proxy.port}"})
    async with PubSub(driver) as bus:
        yield bus


async def calls(server: RedisServer, *command: str) -> Any:
    return await asyncio.to_thread(server.call, *command)


class Collector:
    def __init__(self) -> None:
        self.got: list[str] = []

    async def __call__(self, message: Message) -> None:
        self.got.append(message.data.decode())


async def test_a_publish_whose_reply_is_lost_is_unknown_and_was_sent_once(
    bus: PubSub, proxy: FaultProxy, server: RedisServer
) -> None:
    await bus.publish("t", b"first")
    trap = proxy.drop_reply(b"XADD")
    with pytest.raises(OutcomeUnknownError):
        await bus.publish("t", b"second")
    assert trap.hit
    assert await calls(server, "XLEN", "t") == 2
    await bus.publish("t", b"third")
    assert await calls(server, "XLEN", "t") == 3


async def test_a_publish_that_never_reached_the_server_is_not_stored(
    bus: PubSub, proxy: FaultProxy, server: RedisServer
) -> None:
    await bus.publish("t", b"first")
    trap = proxy.cut_request(b"XADD")
    with pytest.raises(LapelError) as caught:
        await bus.publish("t", b"second")
    assert trap.hit
    assert isinstance(caught.value, OutcomeUnknownError | UnavailableError)
    assert await calls(server, "XLEN", "t") == 1


@pytest.mark.parametrize("pattern", [b"XREADGROUP", b"XACK", b"EVALSHA"])
async def test_whatever_reply_is_lost_every_message_is_handled_and_none_stays_pending(
    bus: PubSub, proxy: FaultProxy, server: RedisServer, pattern: bytes
) -> None:
    collector = Collector()
    await bus.subscribe("t", collector, group="g")
    await bus.publish("t", b"0")
    await until(lambda: "0" in collector.got, "nothing arrives at all")
    trap = proxy.drop_reply(pattern)
    for number in range(1, 20):
        # The publisher is another one, or its own loss would be in the way.
        await calls(server, "XADD", "t", "*", "data", envelope(number))
    await trap.wait()
    await until(lambda: set(collector.got) == {str(number) for number in range(20)}, "messages are missing")
    await settled(server)


async def test_consumption_goes_on_after_every_connection_was_cut(
    bus: PubSub, proxy: FaultProxy, server: RedisServer
) -> None:
    collector = Collector()
    await bus.subscribe("t", collector, group="g")
    for number in range(5):
        await calls(server, "XADD", "t", "*", "data", envelope(number))
        await until(lambda number=number: str(number) in collector.got, "a message is missing")  # type: ignore[misc]
        assert proxy.cut() > 0
    await settled(server)


async def test_consumption_goes_on_after_a_restart_of_the_server(bus: PubSub, server: RedisServer) -> None:
    collector = Collector()
    subscription = await bus.subscribe("t", collector, group="g")
    await calls(server, "XADD", "t", "*", "data", envelope(0))
    await until(lambda: "0" in collector.got, "nothing arrives at all")
    await asyncio.to_thread(server.restart)
    await calls(server, "XADD", "t", "*", "data", envelope(1))
    await until(lambda: "1" in collector.got, "nothing arrives after the restart")
    assert subscription.health().state is HealthState.READY
    await settled(server)


async def test_a_short_outage_does_not_disturb_a_handler_at_work(
    bus: PubSub, proxy: FaultProxy, server: RedisServer
) -> None:
    calls_of: list[str] = []
    finish = asyncio.Event()

    async def handle(message: Message) -> None:
        calls_of.append(message.data.decode())
        if message.data == b"0":
            await finish.wait()

    subscription = await bus.subscribe("t", handle, group="g")
    await calls(server, "XADD", "t", "*", "data", envelope(0))
    await until(lambda: calls_of == ["0"], "nothing arrives at all")
    assert proxy.cut() > 0
    await calls(server, "XADD", "t", "*", "data", envelope(1))
    await until(lambda: "1" in calls_of, "nothing arrives after the outage")
    finish.set()
    await settled(server)
    assert calls_of == ["0", "1"]
    assert subscription.health().details["reconnects"] == 0


async def test_a_group_that_was_deleted_is_made_again(bus: PubSub, server: RedisServer) -> None:
    collector = Collector()
    await bus.subscribe("t", collector, group="g")
    await calls(server, "XADD", "t", "*", "data", envelope(0))
    await until(lambda: "0" in collector.got, "nothing arrives at all")
    await calls(server, "FLUSHALL")
    await calls(server, "XADD", "t", "*", "data", envelope(1))
    await until(lambda: "1" in collector.got, "nothing arrives in the new group")


async def test_what_a_killed_process_held_goes_to_another_and_counts(server: RedisServer, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        driver = make(server.properties)
        await driver.open()
        stack.push_async_callback(driver.close)
        for number in range(3):
            await driver.publish(PublishRequest("t", str(number).encode()))
        (tmp_path / "fields.json").write_text(json.dumps(dict(server.properties)))
        command = [sys.executable, __file__, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = await asyncio.to_thread(subprocess.Popen, command, env=environment)
        try:
            await until((tmp_path / "held").exists, "the other process takes nothing")
            consumer = await driver.subscribe(SubscribeRequest("t", "g", Ordering.NONE, 10, revoked))
            assert list(await consumer.receive(10, 0.3)) == []
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
        got: list[tuple[bytes, int | None]] = []
        async with asyncio.timeout(PATIENCE):
            while len(got) < 3:
                got += [(delivery.data, delivery.attempt) for delivery in await consumer.receive(10, 5.0)]
        assert sorted(got) == [(b"0", 2), (b"1", 2), (b"2", 2)]


async def revoked(deliveries: Any, seconds: float) -> None:
    raise AssertionError("Redis revokes nothing")


async def settled(server: RedisServer) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await calls(server, "XPENDING", "t", "g"))[0] != 0:
            await asyncio.sleep(0.05)


def envelope(number: int) -> str:
    event = {"specversion": "1.0", "id": str(number), "source": "s", "type": "t", "datacontenttype": "text/plain"}
    return json.dumps({**event, "data": str(number)})


async def hold(folder: Path) -> None:
    driver = make(json.loads((folder / "fields.json").read_text()))
    await driver.open()
    consumer = await driver.subscribe(SubscribeRequest("t", "g", Ordering.NONE, 10, revoked))
    held: list[Any] = []
    while True:
        held += await consumer.receive(10, 0.1)
        await consumer.extend(held)
        if len(held) == 3:
            (folder / "held").touch()


if __name__ == "__main__":
    asyncio.run(hold(Path(sys.argv[1])))
