"""The shared client of the Redis components, and what state.redis does with it, against a server made up here."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from unittest.mock import Mock

import pytest
from tests.unit.redis_support import serving

from lapel.driver import DriverContext, SharedClients
from lapel.errors import EtagMismatchError, OutcomeUnknownError, UnavailableError
from lapel.lock import LockStore
from lapel.state import DeleteOperation, SetOperation, StateStore
from lapel_contrib.redis import options as options_module
from lapel_contrib.redis.client import RedisClient, _target
from lapel_contrib.redis.component_settings import RedisLockSettings
from lapel_contrib.redis.errors import ReplyError
from lapel_contrib.redis.link import Link, LinkLostError
from lapel_contrib.redis.lock import RedisLock
from lapel_contrib.redis.options import RedisOptions
from lapel_contrib.redis.settings import RedisStateSettings
from lapel_contrib.redis.state import RedisState
from lapel_contrib.redis.topology import SlotTable

UNKNOWN = b"-NOSCRIPT No matching script\r\n"


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def array(*items: bytes) -> bytes:
    return b"*%d\r\n%s" % (len(items), b"".join(items))


class Replicated:
    """A primary with one replica, which confirms when `confirmed` says so; scripts return `result`."""

    def __init__(self, result: bytes, *, confirmed: int, knows: bool = True) -> None:
        self.result = result
        self.confirmed = confirmed
        self.knows = knows

    def __call__(self, command: list[bytes]) -> bytes:
        match command[0].upper():
            case b"INFO":
                return bulk(b"role:master\r\nconnected_slaves:1\r\n")
            case b"WAIT":
                return b":%d\r\n" % self.confirmed
            case b"EVALSHA" if not self.knows:
                return UNKNOWN
            case _:
                return array(self.result) if not self.result.startswith(b"*") else self.result


def alone(command: list[bytes]) -> bytes:
    return bulk(b"connected_slaves:0\r\n") if command[0].upper() == b"INFO" else b":1\r\n"


def state_on(properties: dict[str, str], **fields: str) -> StateStore:
    settings = RedisStateSettings.parse({**properties, **fields})
    return StateStore(RedisState(settings, DriverContext(component="states")))


def lock_on(properties: dict[str, str], **fields: str) -> LockStore:
    driver = RedisLock(RedisLockSettings.parse({**properties, **fields}), DriverContext(component="locks"))
    return LockStore(driver)


async def test_replicas_are_waited_for_after_a_script_that_the_server_did_not_know() -> None:
    answer = Replicated(bulk(b"17"), confirmed=1, knows=False)
    async with serving(answer) as server, state_on(server.properties) as store:
        server.commands.clear()
        assert await store.set("key", b"1", consistency="strong") == "17"
    assert server.commands == [b"EVALSHA", b"WAIT", b"EVAL", b"WAIT"]


async def test_a_refused_write_is_refused_whatever_the_replicas_do() -> None:
    async with serving(Replicated(b":-2\r\n", confirmed=0)) as server, state_on(server.properties) as store:
        server.commands.clear()
        with pytest.raises(EtagMismatchError):
            await store.set("key", b"1", etag="5", consistency="strong")
        with pytest.raises(EtagMismatchError):
            await store.delete("key", etag="5", consistency="strong")
        assert server.commands.count(b"EVALSHA") == 2
        server.answer = Replicated(array(b":1\r\n", b":-2\r\n"), confirmed=0)
        with pytest.raises(EtagMismatchError, match="operation 1"):
            await store.transaction([SetOperation("key", b"1", etag="5", consistency="strong")])


async def test_a_conditional_write_that_no_replica_has_is_sent_once_and_says_where_it_is() -> None:
    async with serving(Replicated(bulk(b"17"), confirmed=0)) as server, state_on(server.properties) as store:
        server.commands.clear()
        with pytest.raises(OutcomeUnknownError, match="the primary has the write, but only 0 of 1"):
            await store.set("key", b"1", etag="5", consistency="strong")
        assert server.commands.count(b"EVALSHA") == 1
        server.answer = Replicated(b":0\r\n", confirmed=0)
        with pytest.raises(OutcomeUnknownError, match="the primary has"):
            await store.delete("key", etag="5", consistency="strong")
        server.answer = Replicated(array(b":0\r\n", bulk(b"17")), confirmed=0)
        with pytest.raises(OutcomeUnknownError, match="the primary has"):
            await store.transaction([SetOperation("key", b"1", etag="5", consistency="strong")])


async def test_in_bulk_only_strong_writes_that_were_done_are_in_doubt() -> None:
    answer = Replicated(array(bulk(b"17"), b":-2\r\n", bulk(b"18"), bulk(b"19")), confirmed=0)
    async with serving(answer) as server, state_on(server.properties) as store:
        results = await store.bulk_set(
            [
                SetOperation("a", b"1", consistency="strong"),
                SetOperation("b", b"1", etag="5", consistency="strong"),
                SetOperation("c", b"1"),
                SetOperation("d", b"1", consistency="strong"),
            ]
        )
        server.answer = Replicated(array(b":0\r\n", b":-1\r\n"), confirmed=0)
        deleted = await store.bulk_delete(
            [DeleteOperation("a", consistency="strong"), DeleteOperation("b", etag="5", consistency="strong")]
        )
    kinds = [type(result.error) for result in results]
    assert kinds == [OutcomeUnknownError, EtagMismatchError, type(None), OutcomeUnknownError]
    assert results[0].error is not results[3].error
    assert [type(result.error) for result in deleted] == [OutcomeUnknownError, EtagMismatchError]


async def test_components_that_wait_for_one_connection_fail_under_their_own_names() -> None:
    async with serving(alone) as server:
        shared, fields = SharedClients(), {**server.properties, "redisMaxRetries": "0"}
        state = RedisState(RedisStateSettings.parse(fields), DriverContext(component="states", shared=shared))
        lock = RedisLock(RedisLockSettings.parse(fields), DriverContext(component="locks", shared=shared))
        async with StateStore(state) as store, LockStore(lock) as locks:
            assert server.server is not None
            server.server.close()
            for writer in server.connections:
                writer.transport.abort()
            await asyncio.wait_for(server.server.wait_closed(), 5)
            client = state._client
            assert client is not None
            while client._single.pipeline.link is not None:
                await asyncio.sleep(0)
            errors = await asyncio.gather(store.get("key"), locks.try_lock("r", "me", 5), return_exceptions=True)
    assert [type(error) for error in errors] == [UnavailableError, UnavailableError]
    assert "'states'" in str(errors[0])
    assert "'locks'" in str(errors[1])
    assert "'states'" not in str(errors[1])


async def test_those_who_wait_for_the_slots_get_errors_of_their_own() -> None:
    table = SlotTable(RedisOptions(hosts=(("127.0.0.1", 1),), mode="cluster"), None)
    first, second = await asyncio.gather(table.refresh(), table.refresh(), return_exceptions=True)
    assert isinstance(first, UnavailableError)
    assert isinstance(second, UnavailableError)
    assert first is not second


async def test_without_readtimeout_a_half_open_connection_is_given_up_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(options_module, "LONGEST_ANSWER", 0.2)
    async with serving(alone) as server, lock_on(server.properties, readTimeout="-1") as locks:
        server.deaf.update(server.connections)
        with pytest.raises(OutcomeUnknownError, match="readTimeout"):
            await locks.try_lock("r", "me", 5)
        assert await locks.try_lock("r", "me", 5)


async def test_a_server_without_slots_is_unavailable() -> None:
    def answer(command: list[bytes]) -> bytes:
        return array() if command[0].upper() == b"CLUSTER" else b"+OK\r\n"

    async with serving(answer) as server:
        store = state_on(server.properties, redisType="cluster", redisMaxRetries="0")
        with pytest.raises(UnavailableError, match="no node serves any slot"):
            async with store:
                pass


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("code", [b"MOVED", b"ASK"])
async def test_a_redirection_without_a_host_leads_to_the_host_that_answered(code: bytes, large: bool) -> None:
    async with serving(lambda command: b":2\r\n") as other:
        port = other.properties["redisHost"].rpartition(":")[2].encode()

        def answer(command: list[bytes]) -> bytes:
            if command[0].upper() == b"CLUSTER":
                own = server.properties["redisHost"].rpartition(":")[2].encode()
                node = array(bulk(b""), b":%s\r\n" % own)
                return array(array(b":0\r\n", b":16383\r\n", node))
            return b"-%s 3999 :%s\r\n" % (code, port)

        async with serving(answer) as server:
            host, _, number = server.properties["redisHost"].rpartition(":")
            client = await RedisClient.open(RedisOptions(hosts=((host, int(number)),), mode="cluster"))
            try:
                if large:
                    assert await client.apart(("INCR", "key"), key="key") == [2]
                else:
                    assert await client.call("INCR", "key", key="key") == 2
            finally:
                await client.close()


class Clock:
    """A loop whose time is set by hand, with no timers."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[list[Any]]:
        return asyncio.get_running_loop().create_future()

    def call_at(self, when: float, callback: object) -> Mock:
        return Mock()


@pytest.mark.parametrize("pause", [None, 5.0])
async def test_a_reply_that_has_begun_may_take_long_where_each_part_has_its_own_limit(pause: float | None) -> None:
    link, clock = Link(("fake", 1)), Clock()
    link._loop, link._transport = cast("asyncio.AbstractEventLoop", clock), Mock()
    reply = link.send(b"", 1, 5.0, pause=pause)
    for clock.now, part in ((4.0, b"$4\r\na"), (8.0, b"bc")):
        link.data_received(part)
    clock.now = 12.0
    link._check_time()
    if pause is None:
        with pytest.raises(LinkLostError):
            await reply
        return
    link.data_received(b"d\r\n")
    assert await reply == [b"abcd"]
    silent = link.send(b"", 1, 5.0, pause=pause)
    clock.now = 17.0
    link._check_time()
    with pytest.raises(LinkLostError):
        await silent


def test_redirections_are_read() -> None:
    assert _target(ReplyError("MOVED 1 :7"), "there") == ("there", 7)
    assert _target(ReplyError("MOVED 1 ::1:7"), "there") == ("::1", 7)
