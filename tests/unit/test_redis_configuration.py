"""configuration.redis: the layout of its texts, and how it has the server notify."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping

import pytest
from tests.backends.redis import RedisBackend
from tests.backends.redis_fixtures import OwnRedis
from tests.backends.redis_node import RedisOptions

from lapel.configuration import ConfigurationItem, ConfigurationStore
from lapel.driver import DriverContext
from lapel.errors import OperationFailedError
from lapel.testing.configuration.base import Inbox
from lapel_contrib.redis import watching
from lapel_contrib.redis.component_settings import RedisConfigurationSettings
from lapel_contrib.redis.configuration import RedisConfiguration
from lapel_contrib.redis.watching import merge_flags


@pytest.fixture
def key() -> str:
    return f"setting-{uuid.uuid4()}"


def store_on(properties: Mapping[str, str]) -> ConfigurationStore:
    settings = RedisConfigurationSettings.parse(properties, component="settings", driver="configuration.redis")
    return ConfigurationStore(RedisConfiguration(settings, DriverContext(component="settings")))


@pytest.mark.parametrize(
    ("text", "value", "version"),
    [
        ("plain", "plain", ""),
        ("value||1", "value", "1"),
        ("a||b||1", "a||b", "1"),
        ("a||b||", "a||b", ""),
        ("a|||1", "a|", "1"),
        ("||1", "", "1"),
        ("", "", ""),
        ("one|bar", "one|bar", ""),
    ],
)
async def test_the_last_two_bars_separate_the_version(
    redis_server: RedisBackend, key: str, text: str, value: str, version: str
) -> None:
    redis_server.call("SET", key, text)
    async with store_on(redis_server.properties) as store:
        assert await store.get([key]) == {key: ConfigurationItem(value, version)}


async def test_other_types_are_left_out_and_texts_that_are_not_utf8_are_an_error(own_redis: OwnRedis) -> None:
    server = own_redis.server()
    server.call("RPUSH", "list", "x")
    server.call("SET", "binary", b"\xff")
    server.call("SET", b"\xff", "x")
    server.call("SET", "text", "x")
    async with store_on(server.properties) as store:
        assert await store.get(["list", "text"]) == {"text": ConfigurationItem("x")}
        assert await store.get() == {"text": ConfigurationItem("x")}
        with pytest.raises(OperationFailedError, match="'binary'"):
            await store.get(["binary", "text"])


@pytest.mark.parametrize(
    ("present", "merged"),
    [("", "Kg$xe"), ("Kg$xe", "Kg$xe"), ("AKE", "AKE"), ("AE", "AEK"), ("Elx", "ElxKg$e"), ("KEA", "KEA")],
)
def test_flags_are_added_to_those_that_are_there(present: str, merged: str) -> None:
    assert merge_flags(present) == merged


async def test_subscribing_keeps_what_the_server_notifies_of_already(own_redis: OwnRedis) -> None:
    server = own_redis.server(RedisOptions(settings={"notify-keyspace-events": "Elh"}))
    async with store_on(server.properties) as store:
        await store.subscribe(["key"], Inbox())
        assert set(server.call("CONFIG", "GET", "notify-keyspace-events")[1]) == set(b"ElhKg$xe")


@pytest.mark.parametrize("rights", [["-config"], ["-config|set"], ["-subscribe"]])
async def test_where_notifications_are_refused_it_polls_and_warns_once(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rights: list[str]
) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.05)
    server = own_redis.server(RedisOptions(auth="none"))
    server.call("ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", *rights)
    login = {"redisUsername": "limited", "redisPassword": "secret"}
    inbox = Inbox()
    with caplog.at_level(logging.WARNING):
        async with store_on({**server.properties, **login}) as store:
            await store.subscribe(["key"], inbox)
            await store.subscribe(["key"], Inbox())
            server.call("SET", "key", "1")
            await inbox.expect({"key": ConfigurationItem("1")})
    assert len([record for record in caplog.records if "changes are looked for" in record.getMessage()]) == 1


async def test_what_no_notification_tells_is_found_all_the_same(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "REVIEW_SECONDS", 0.1)
    server = own_redis.server()
    server.call("SET", "key", "1")
    inbox = Inbox()
    async with store_on(server.properties) as store:
        await store.subscribe(["key"], inbox)
        server.call("FLUSHALL")
        await inbox.expect({"key": ConfigurationItem("", deleted=True)})


async def test_an_expiry_is_a_deletion(redis_server: RedisBackend, key: str) -> None:
    inbox = Inbox()
    redis_server.call("SET", key, "1")
    async with store_on(redis_server.properties) as store:
        await store.subscribe([key], inbox)
        redis_server.call("PEXPIRE", key, 50)
        await inbox.expect({key: ConfigurationItem("", deleted=True)})


async def test_a_server_that_falls_silent_is_given_up(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SILENCE_SECONDS", 0.1)
    server = own_redis.server()
    inbox = Inbox()
    async with store_on({**server.properties, "readTimeout": "200", "dialTimeout": "200"}) as store:
        await store.subscribe(["key"], inbox)
        await asyncio.to_thread(server.freeze)
        async with asyncio.timeout(20):
            while not store._open_health().reason:
                await asyncio.sleep(0.02)
        await asyncio.to_thread(server.thaw)
        await asyncio.to_thread(server.call, "SET", "key", "1")
        await inbox.expect({"key": ConfigurationItem("1")})
