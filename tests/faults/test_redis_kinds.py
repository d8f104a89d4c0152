"""lock.redis, configuration.redis and bindings.redis when replies are lost and the server is away."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import redis
import redis.cluster
from tests.backends.redis import RedisBackend, RedisServer
from tests.backends.redis_fixtures import OwnRedis
from tests.backends.redis_node import RedisOptions

from lapel.bindings import OutputBinding
from lapel.configuration import ConfigurationItem, ConfigurationStore
from lapel.driver import DriverContext
from lapel.errors import LockLostError, OutcomeUnknownError
from lapel.lock import LockStore, UnlockStatus
from lapel.testing import FaultProxy
from lapel.testing.configuration.base import Inbox
from lapel.testing.lifecycle import wait_until
from lapel_contrib.redis import watching
from lapel_contrib.redis.binding import RedisBinding
from lapel_contrib.redis.component_settings import (
    RedisBindingSettings,
    RedisConfigurationSettings,
    RedisLockSettings,
)
from lapel_contrib.redis.configuration import RedisConfiguration
from lapel_contrib.redis.lock import RedisLock

CONTEXT = "faults"


@pytest.fixture
async def proxy(redis_server: RedisBackend) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(redis_server.host, redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def key() -> str:
    return f"fault-{uuid.uuid4()}"


def through(proxy: FaultProxy, backend: RedisBackend, **fields: str) -> dict[str, str]:
    return {**backend.properties, "redisHost": f"{proxy.host}:{proxy.port}", **fields}


def lock_on(properties: dict[str, str]) -> LockStore:
    settings = RedisLockSettings.parse(properties, component=CONTEXT, driver="lock.redis")
    return LockStore(RedisLock(settings, DriverContext(component=CONTEXT)))


def configuration_on(properties: dict[str, str]) -> ConfigurationStore:
    settings = RedisConfigurationSettings.parse(properties, component=CONTEXT, driver="configuration.redis")
    return ConfigurationStore(RedisConfiguration(settings, DriverContext(component=CONTEXT)))


def binding_on(properties: dict[str, str]) -> OutputBinding:
    settings = RedisBindingSettings.parse(properties, component=CONTEXT, driver="bindings.redis")
    return OutputBinding(RedisBinding(settings, DriverContext(component=CONTEXT)))


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


async def test_a_lock_whose_reply_is_lost_is_unknown_sent_once_and_expires(
    redis_server: RedisBackend, proxy: FaultProxy, key: str
) -> None:
    async with lock_on(through(proxy, redis_server)) as store:
        assert await store.try_lock(f"{key}-before", "me", 1)
        trap = proxy.drop_reply(key.encode())
        with pytest.raises(OutcomeUnknownError):
            await store.try_lock(key, "me", 1)
        assert trap.hit
        assert trap.request.count(key.encode()) == 1
        await until(lambda: redis_server.call("EXISTS", key) == 0)
        assert await store.try_lock(key, "other", 60)


async def test_a_lock_whose_request_is_lost_is_not_taken_twice(
    redis_server: RedisBackend, proxy: FaultProxy, key: str
) -> None:
    async with lock_on(through(proxy, redis_server)) as store:
        trap = proxy.cut_request(key.encode())
        with pytest.raises(OutcomeUnknownError):
            await store.try_lock(key, "me", 60)
        assert trap.hit
        assert redis_server.call("EXISTS", key) == 0


async def test_giving_back_is_repeated_when_its_reply_is_lost(
    redis_server: RedisBackend, proxy: FaultProxy, key: str
) -> None:
    async with lock_on(through(proxy, redis_server)) as store:
        # So that the server knows the script, and what is lost is the reply to its run.
        assert await store.unlock(f"{key}-before", "me") is UnlockStatus.LOCK_DOES_NOT_EXIST
        assert await store.try_lock(key, "me", 60)
        trap = proxy.drop_reply(key.encode())
        # The repeated one finds what the first one did.
        assert await store.unlock(key, "me") is UnlockStatus.LOCK_DOES_NOT_EXIST
        assert trap.hit
        assert redis_server.call("EXISTS", key) == 0


async def test_renewing_is_repeated_when_its_reply_is_lost(
    redis_server: RedisBackend, proxy: FaultProxy, key: str
) -> None:
    async with lock_on(through(proxy, redis_server)) as store:
        assert not await store.renew(f"{key}-before", "me", 60)
        assert await store.try_lock(key, "me", 60)
        trap = proxy.drop_reply(key.encode())
        assert await store.renew(key, "me", 600)
        assert trap.hit
        assert redis_server.call("TTL", key) > 500


async def test_a_held_lock_that_cannot_be_renewed_cancels_its_block(
    redis_server: RedisBackend, proxy: FaultProxy, key: str
) -> None:
    async with lock_on(through(proxy, redis_server, readTimeout="300", dialTimeout="300")) as store:
        with pytest.raises(LockLostError):
            async with store.hold(key, expiry=1):
                proxy.black_hole()
                await asyncio.sleep(30)
        proxy.heal()
        assert proxy.counters.dropped_request_bytes > 0

        async def free() -> bool:
            return bool(await retried(lambda: store.try_lock(key, "other", 60)))

        await wait_until(free, lambda: "the lock did not expire")


async def test_tokens_grow_over_a_restart_that_forgets_everything(own_redis: OwnRedis, key: str) -> None:
    server = own_redis.server()
    async with lock_on(server.properties) as store:
        first = await store.try_lock(key, "me", 60)
        await asyncio.to_thread(server.restart)
        second = await retried(lambda: store.try_lock(key, "me", 60))
    assert second.token > (first.token or 0)


async def test_a_lock_outlives_a_restart_of_a_server_that_keeps_its_data(own_redis: OwnRedis, key: str) -> None:
    # Redis 7.0 refuses to load its own transactions, and so what scripts wrote, while the default user is off.
    options = RedisOptions(auth="password", persistent=True, settings={"appendfsync": "always"})
    server = own_redis.server(options)
    async with lock_on(server.properties) as store:
        assert await store.try_lock(key, "me", 60)
        await asyncio.to_thread(server.restart)
        assert not await retried(lambda: store.try_lock(key, "other", 60))
        assert await store.unlock(key, "me") is UnlockStatus.SUCCESS


async def retried(call: Callable[[], Any]) -> Any:
    async with asyncio.timeout(20):
        while True:
            try:
                return await call()
            except OutcomeUnknownError:
                pytest.fail("nothing was under way")
            except Exception:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", ["cut", "black hole"])
async def test_changes_during_an_outage_are_delivered_after_it(
    redis_server: RedisBackend, proxy: FaultProxy, key: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SILENCE_SECONDS", 0.2)
    inbox = Inbox()
    redis_server.call("SET", key, "before||1")
    redis_server.call("SET", f"{key}-gone", "there")
    async with configuration_on(through(proxy, redis_server, readTimeout="500", dialTimeout="500")) as store:
        await store.subscribe([key, f"{key}-gone"], inbox)
        if fault == "cut":
            proxy.refuse()
            assert proxy.cut()
        else:
            proxy.black_hole()
        for number in range(2, 6):
            redis_server.call("SET", key, f"during||{number}")
        redis_server.call("DEL", f"{key}-gone")
        counters = proxy.counters
        await until(lambda: counters.refused if fault == "cut" else counters.dropped_request_bytes)
        await until(lambda: store._open_health().reason)
        assert inbox.events == []
        proxy.heal()
        await inbox.expect({key: ConfigurationItem("during", "5"), f"{key}-gone": ConfigurationItem("", deleted=True)})
        redis_server.call("SET", key, "after||6")
        await inbox.expect({key: ConfigurationItem("after", "6")})
        versions = [int(event.items[key].version) for event in inbox.events if key in event.items]
        assert versions == [5, 6]


async def test_notifications_are_turned_on_again_after_a_restart(own_redis: OwnRedis, key: str) -> None:
    server: RedisServer = own_redis.server(RedisOptions(settings={"notify-keyspace-events": "Eh"}))
    inbox = Inbox()
    async with configuration_on(server.properties) as store:
        await store.subscribe([key], inbox)
        await asyncio.to_thread(server.restart)
        await until(lambda: set(server.call("CONFIG", "GET", "notify-keyspace-events")[1]) == set(b"EhKg$xe"))
        server.call("SET", key, "1")
        await inbox.expect({key: ConfigurationItem("1")})


async def test_a_subscription_follows_a_failover_of_sentinels(own_redis: OwnRedis, key: str) -> None:
    group = own_redis.sentinel()
    inbox = Inbox()
    async with configuration_on(group.properties) as store:
        await store.subscribe([key], inbox)
        old = group.primary()
        await asyncio.to_thread(old.kill)
        await until(lambda: group.primary() is not old)
        new = group.primary()
        await until(lambda: new.call("ROLE")[0] == b"master")
        new.call("SET", key, "1")
        await inbox.expect({key: ConfigurationItem("1")})
        new.call("SET", key, "2")
        await inbox.expect({key: ConfigurationItem("2")})


async def test_a_subscription_follows_a_failover_of_a_cluster(own_redis: OwnRedis, key: str) -> None:
    group = own_redis.cluster()
    inbox = Inbox()
    async with configuration_on(group.properties) as store:
        await store.subscribe([key], inbox)
        old = group.primary_of(key)
        await asyncio.to_thread(old.kill)
        alive = next(node for node in group.nodes if node is not old)
        login: dict[str, Any] = {"username": group.username, "password": group.password}
        with redis.cluster.RedisCluster(host=group.host, port=alive.port, **login) as client:
            for value in ("1", "2"):
                await until(partial(_written, client, key, value))
                await inbox.expect({key: ConfigurationItem(value)})


def _written(client: Any, key: str, value: str) -> bool:
    try:
        client.set(key, value)
    except redis.RedisError:
        return False
    return True


@pytest.mark.parametrize("operation", ["create", "increment", "delete", "get"])
async def test_an_operation_of_the_binding_whose_reply_is_lost_is_unknown_and_sent_once(
    redis_server: RedisBackend, proxy: FaultProxy, key: str, operation: str
) -> None:
    redis_server.call("SET", key, 5)
    async with binding_on(through(proxy, redis_server)) as binding:
        # So that the server knows the script, and what is lost is the reply to its run.
        before = {"key": f"before-{uuid.uuid4()}", "delete": "true"}
        await binding.invoke("create", b"5", metadata=before)
        await binding.invoke(operation, b"5", metadata=before)
        trap = proxy.drop_reply(key.encode())
        with pytest.raises(OutcomeUnknownError):
            await binding.invoke(operation, b"9", metadata={"key": key, "delete": "true"})
        assert trap.hit
        expected = {"create": b"9", "increment": b"6"}.get(operation)
        assert redis_server.call("GET", key) == expected
        await binding.invoke("create", b"works", metadata={"key": key})
        assert await (await binding.invoke("get", metadata={"key": key})).read() == b"works"


async def test_a_large_value_whose_reply_is_lost_is_unknown_and_sent_once(
    redis_server: RedisBackend, proxy: FaultProxy, key: str
) -> None:
    async with binding_on(through(proxy, redis_server)) as binding:
        trap = proxy.drop_reply(key.encode())
        accepted = proxy.counters.request_bytes
        with pytest.raises(OutcomeUnknownError):
            await binding.invoke("create", b"x" * 1_000_000, metadata={"key": key})
        assert trap.hit
        assert proxy.counters.request_bytes - accepted < 1_500_000
