"""lock.redis: what lies in the server, and which servers are refused."""

from __future__ import annotations

import uuid

import pytest
from tests.backends.redis import RedisBackend
from tests.backends.redis_fixtures import OwnRedis
from tests.backends.redis_node import RedisOptions

from lapel.driver import DriverContext
from lapel.errors import ConfigurationError, InvalidArgumentError
from lapel.lock import LockStore, UnlockStatus
from lapel_contrib.redis.component_settings import RedisLockSettings
from lapel_contrib.redis.lock import TOKEN_KEY, RedisLock, _slot_tags
from lapel_contrib.redis.topology import slot_of


@pytest.fixture
def name() -> str:
    return f"lock||app||{uuid.uuid4()}"


def store_on(properties: dict[str, str]) -> LockStore:
    settings = RedisLockSettings.parse(properties, component="locks", driver="lock.redis")
    return LockStore(RedisLock(settings, DriverContext(component="locks")))


async def test_a_lock_is_the_owner_as_text_with_a_lifetime(redis_server: RedisBackend, name: str) -> None:
    async with store_on(redis_server.properties) as store:
        assert await store.try_lock(name, "öwner", 60)
        assert redis_server.call("GET", name) == "öwner".encode()
        assert 50 < redis_server.call("TTL", name) <= 60
        assert await store.renew(name, "öwner", 600)
        assert 590 < redis_server.call("TTL", name) <= 600
        assert redis_server.call("TTL", TOKEN_KEY) == -1


async def test_a_lock_that_a_sidecar_took_excludes_and_can_be_given_back_by_its_owner(
    redis_server: RedisBackend, name: str
) -> None:
    redis_server.call("SET", name, "sidecar", "NX", "EX", 60)
    async with store_on(redis_server.properties) as store:
        assert not await store.try_lock(name, "me", 60)
        assert await store.unlock(name, "me") is UnlockStatus.LOCK_BELONGS_TO_OTHERS
        assert await store.unlock(name, "sidecar") is UnlockStatus.SUCCESS
    assert redis_server.call("EXISTS", name) == 0


@pytest.mark.parametrize("loss", ["deleted", "no number"])
async def test_tokens_grow_also_when_the_last_one_is_lost(redis_server: RedisBackend, name: str, loss: str) -> None:
    async with store_on(redis_server.properties) as store:
        first = await store.try_lock(name, "one", 60)
        await store.unlock(name, "one")
        redis_server.call(*(("DEL", TOKEN_KEY) if loss == "deleted" else ("SET", TOKEN_KEY, "text")))
        second = await store.try_lock(name, "two", 60)
    assert first.token is not None
    assert second.token is not None
    assert second.token > first.token


async def test_tokens_grow_also_when_the_clock_is_behind_the_last_one(own_redis: OwnRedis, name: str) -> None:
    server = own_redis.server()
    ahead = 4 * 10**15
    server.call("SET", TOKEN_KEY, ahead)
    async with store_on(server.properties) as store:
        assert (await store.try_lock(name, "one", 60)).token == ahead + 1
        assert not await store.try_lock(name, "two", 60)
        await store.unlock(name, "one")
        assert (await store.try_lock(name, "two", 60)).token == ahead + 2


async def test_a_key_that_holds_no_text_belongs_to_others(redis_server: RedisBackend, name: str) -> None:
    redis_server.call("RPUSH", name, "x")
    async with store_on(redis_server.properties) as store:
        assert not await store.try_lock(name, "me", 60)
        assert await store.unlock(name, "me") is UnlockStatus.LOCK_BELONGS_TO_OTHERS
        assert not await store.renew(name, "me", 60)
    assert redis_server.call("LLEN", name) == 1


async def test_the_key_of_the_tokens_cannot_be_a_lock(redis_server: RedisBackend) -> None:
    async with store_on(redis_server.properties) as store:
        with pytest.raises(InvalidArgumentError, match="tokens"):
            await store.try_lock(TOKEN_KEY, "me", 60)


async def test_a_primary_with_replicas_is_refused_unless_sentinels_watch_it(redis_sentinel: RedisBackend) -> None:
    known = redis_sentinel.properties
    host, port = redis_sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", known["sentinelMasterName"])
    address = f"{host.decode()}:{port.decode()}"
    login = {name: text for name, text in known.items() if name in ("redisUsername", "redisPassword")}
    with pytest.raises(ConfigurationError, match="replicas"):
        await store_on({**login, "redisHost": address}).open()
    async with store_on(redis_sentinel.properties):
        pass


async def test_a_user_who_may_not_see_the_replicas_is_let_in(own_redis: OwnRedis, name: str) -> None:
    server = own_redis.server(RedisOptions(auth="none"))
    server.call("ACL", "SETUSER", "limited", "on", ">secret", "~lock||*", "+@all", "-info")
    async with store_on({**server.properties, "redisUsername": "limited", "redisPassword": "secret"}) as store:
        assert (await store.try_lock(name, "me", 60)).token


def test_each_slot_has_a_tag_of_its_own() -> None:
    tags = _slot_tags()
    assert len(tags) == len(set(tags)) == 16384
    assert all(slot_of(f"{TOKEN_KEY}||{{{tag}}}") == slot for slot, tag in enumerate(tags))
