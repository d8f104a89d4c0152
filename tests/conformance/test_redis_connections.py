"""What the five Redis kinds share: connections, log-in, encryption and scripts, on each of the shapes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

import pytest
from tests.backends.redis import RedisBackend
from tests.backends.redis_fixtures import OwnRedis
from tests.backends.redis_node import RedisNode, RedisOptions

from lapel.bindings import OutputBinding
from lapel.configuration import ConfigurationEvent, ConfigurationStore
from lapel.driver import DriverContext, SharedClients
from lapel.errors import LapelError, PermissionDeniedError, UnavailableError
from lapel.lock import LockStore, UnlockStatus
from lapel.pubsub import Message, PubSub
from lapel.state import StateStore
from lapel_contrib.redis.binding import RedisBinding
from lapel_contrib.redis.component_settings import (
    RedisBindingSettings,
    RedisConfigurationSettings,
    RedisLockSettings,
)
from lapel_contrib.redis.configuration import RedisConfiguration
from lapel_contrib.redis.lock import RedisLock
from lapel_contrib.redis.pubsub import RedisPubSub
from lapel_contrib.redis.pubsub_settings import RedisPubSubSettings
from lapel_contrib.redis.settings import RedisStateSettings
from lapel_contrib.redis.state import RedisState

MAKERS: dict[str, Callable[[OwnRedis, RedisOptions], RedisBackend]] = {
    "node": lambda own, options: own.server(options),
    "cluster": lambda own, options: own.cluster(options),
    "sentinel": lambda own, options: own.sentinel(options),
}

shapes = pytest.mark.parametrize("shape", MAKERS)


@dataclass
class Kinds:
    """One open component of each kind."""

    state: StateStore
    bus: PubSub
    configuration: ConfigurationStore
    locks: LockStore
    binding: OutputBinding

    async def use(self) -> None:
        """Make each of them run what it runs on the server, scripts and all."""
        name = f"used-{uuid4().hex}"
        etag = await self.state.set(f"{name}-state", b"1")
        item = await self.state.get(f"{name}-state")
        assert item is not None
        assert item.etag == etag
        await self.binding.invoke("create", b"5", metadata={"key": f"{name}-text"})
        reply = await self.binding.invoke("increment", metadata={"key": f"{name}-text"})
        assert await reply.read() == b"6"
        found = await self.configuration.get([f"{name}-text"])
        assert found[f"{name}-text"].value == "6"
        assert await self.locks.try_lock(f"{name}-lock", "me", 60)
        assert await self.locks.renew(f"{name}-lock", "me", 60)
        assert await self.locks.unlock(f"{name}-lock", "me") is UnlockStatus.SUCCESS
        got = asyncio.Event()

        async def handle(message: Message) -> None:
            got.set()

        async with await self.bus.subscribe(f"{name}-topic", handle):
            await self.bus.publish(f"{name}-topic", b"1")
            async with asyncio.timeout(10):
                await got.wait()


@asynccontextmanager
async def opened(backend: RedisBackend, **fields: str) -> AsyncIterator[Kinds]:
    """Open all five as one assembly does."""
    properties = {**backend.properties, **fields}
    context = DriverContext(component="component", shared=SharedClients())
    buses = {"maxLenApprox": "1000"}
    kinds = Kinds(
        StateStore(RedisState(RedisStateSettings.parse(properties), context)),
        PubSub(RedisPubSub(RedisPubSubSettings.parse({**properties, **buses}), context)),
        ConfigurationStore(RedisConfiguration(RedisConfigurationSettings.parse(properties), context)),
        LockStore(RedisLock(RedisLockSettings.parse(properties), context)),
        OutputBinding(RedisBinding(RedisBindingSettings.parse(properties), context)),
    )
    async with AsyncExitStack() as stack:
        for component in vars(kinds).values():
            await stack.enter_async_context(component)
        yield kinds


@shapes
async def test_all_kinds_work_encrypted_with_a_certificate_and_only_so(
    own_redis: OwnRedis, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = await asyncio.to_thread(MAKERS[shape], own_redis, RedisOptions(tls=True))
    assert backend.tls is not None
    with pytest.raises(UnavailableError, match="certificate"):
        async with opened(backend):
            pass
    monkeypatch.setenv("SSL_CERT_FILE", str(backend.tls.ca))
    async with opened(backend) as kinds:
        await kinds.use()
    for fields in ({"clientCert": "", "clientKey": ""}, {"enableTLS": "false", "clientCert": "", "clientKey": ""}):
        properties = {**backend.properties, **fields}
        given = {name: value for name, value in properties.items() if value}
        settings = RedisStateSettings.parse({**given, "dialTimeout": "1s"})
        with pytest.raises(LapelError):
            await StateStore(RedisState(settings, DriverContext(component="store"))).open()


@shapes
async def test_a_wrong_log_in_is_a_matter_of_permission_everywhere(own_redis: OwnRedis, shape: str) -> None:
    backend = await asyncio.to_thread(MAKERS[shape], own_redis, RedisOptions())
    async with opened(backend) as kinds:
        await kinds.use()
    wrong = [{"redisPassword": "hunter2"}, {"redisUsername": "nobody"}]
    if shape == "sentinel":
        wrong += [{"sentinelPassword": "hunter2"}, {"sentinelUsername": "nobody"}]
    for fields in wrong:
        with pytest.raises(PermissionDeniedError) as caught:
            async with opened(backend, **fields):
                pass
        assert "hunter2" not in str(caught.value)


async def test_all_kinds_share_one_set_of_connections(own_redis: OwnRedis) -> None:
    server = own_redis.server()

    async def become(expected: int, why: str) -> None:
        """Wait for so many connections, without that of the one who asks."""
        found = -1
        for _ in range(200):
            found = len((await asyncio.to_thread(server.call, "CLIENT", "LIST")).splitlines()) - 1
            if found == expected:
                return
            await asyncio.sleep(0.02)
        pytest.fail(f"{found} connections instead of {expected}: {why}")

    async def handle(message: Message) -> None:
        pass

    async def changed(event: ConfigurationEvent) -> None:
        pass

    async with opened(server) as kinds:
        for _ in range(5):
            await kinds.use()
        await become(2, "one for all calls, and one of the pool for what would hold it up")
        await kinds.bus.subscribe("topic", handle)
        await become(3, "a subscription reads on one of its own")
        await kinds.configuration.subscribe(["key"], changed)
        await become(4, "and so does one to configuration items")
        await asyncio.gather(*(kinds.state.get(f"key-{number}") for number in range(1000)))
        await become(4, "a thousand calls share what there is")
    await become(0, "the last of them closes everything")


async def test_nodes_that_left_a_cluster_are_forgotten(own_redis: OwnRedis) -> None:
    cluster = await asyncio.to_thread(own_redis.cluster)
    async with opened(cluster) as kinds:
        await asyncio.gather(*(kinds.state.set(f"key-{number}", b"1") for number in range(50)))
        assert isinstance(kinds.state.driver, RedisState)
        client = kinds.state.driver._client
        assert client is not None
        members = set(client._endpoints)
        assert len(members) == 3
        at_work = client._endpoint(("127.0.0.1", 1))
        at_work._busy.add(cast("Any", object()))
        client._endpoint(("127.0.0.1", 2))
        client._endpoint(("127.0.0.1", 3))
        assert set(client._endpoints) == members | {("127.0.0.1", 1), ("127.0.0.1", 3)}
        at_work._busy.clear()
        client._endpoint(("127.0.0.1", 4))
        assert set(client._endpoints) == members | {("127.0.0.1", 4)}
        await kinds.use()


@shapes
async def test_all_kinds_go_on_when_the_servers_forget_their_scripts(own_redis: OwnRedis, shape: str) -> None:
    backend = await asyncio.to_thread(MAKERS[shape], own_redis, RedisOptions())
    nodes: list[RedisNode] = [one for one in backend.processes if isinstance(one, RedisNode)]
    nodes = [node for node in nodes if "sentinel" not in node.name]
    async with opened(backend) as kinds:
        await kinds.use()
        for _ in range(3):
            for node in nodes:
                await asyncio.to_thread(node.call, "SCRIPT", "FLUSH")
            await asyncio.gather(*(kinds.use() for _ in range(3)))
