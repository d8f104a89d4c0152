"""What state.redis promises beyond the suite: Dapr's layout, its connections, and what is particular to a shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from tests.backends.redis import RedisBackend
from tests.backends.redis_fixtures import OwnRedis
from tests.backends.redis_groups import RedisCluster
from tests.backends.redis_node import RedisOptions

from lapel.driver import DriverContext, SharedClients
from lapel.errors import (
    EtagMismatchError,
    InvalidArgumentError,
    OperationFailedError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StorageError,
    UnavailableError,
)
from lapel.state import DeleteOperation, SetOperation, StateStore
from lapel_contrib.redis.settings import RedisStateSettings
from lapel_contrib.redis.state import RedisState

INDEXES = '[{"name": "people", "indexes": [{"key": "name", "type": "TEXT"}, {"key": "age", "type": "NUMERIC"}]}]'

Open = Callable[..., Awaitable[StateStore]]


@pytest_asyncio.fixture
async def open_store() -> Any:
    """Return a function that opens a store on a backend, with further fields; closed with the test."""
    async with AsyncExitStack() as stack:

        async def open_(backend: RedisBackend, shared: SharedClients | None = None, **fields: str) -> StateStore:
            settings = RedisStateSettings.parse({**backend.properties, **fields}, warnings=[])
            context = DriverContext(component="store", shared=shared or SharedClients())
            return await stack.enter_async_context(StateStore(RedisState(settings, context)))

        yield open_


@pytest.fixture
def key() -> str:
    return f"test-{uuid4().hex}"


# Dapr's layout


async def test_an_item_is_a_hash_of_data_and_version(redis_server: RedisBackend, open_store: Open, key: str) -> None:
    store = await open_store(redis_server)
    etag = await store.set(key, {"a": 1}, concurrency="first-write")
    fields = redis_server.call("HGETALL", key)
    assert dict(zip(fields[::2], fields[1::2], strict=True)) == {b"data": b'{"a":1}', b"version": str(etag).encode()}


async def test_what_a_sidecar_wrote_is_read_and_counted_on(
    redis_server: RedisBackend, open_store: Open, key: str
) -> None:
    redis_server.call("HSET", key, "data", "theirs", "version", 7, "first-write", 0)
    store = await open_store(redis_server)
    item = await store.get(key)
    assert item is not None
    assert (item.data, item.etag) == (b"theirs", "7")
    assert await store.set(key, b"ours") == "8", "the mark of a first write is not obeyed"


async def test_a_text_of_old_times_is_read_without_an_etag(
    redis_server: RedisBackend, open_store: Open, key: str
) -> None:
    redis_server.call("SET", key, "old", "EX", 100)
    store = await open_store(redis_server)
    item = await store.get(key)
    assert item is not None
    assert (item.data, item.etag) == (b"old", None)
    assert item.expires_at is not None
    with pytest.raises(EtagMismatchError):
        await store.set(key, b"new", concurrency="first-write")
    assert await store.set(key, b"new")
    assert redis_server.call("HGET", key, "data") == b"new"
    assert redis_server.call("TTL", key) == -1


async def test_what_another_program_keeps_is_named_and_not_taken_for_an_item(
    redis_server: RedisBackend, open_store: Open, key: str
) -> None:
    redis_server.call("HSET", key, "other", "1")
    redis_server.call("RPUSH", f"{key}-list", "1")
    store = await open_store(redis_server)
    for name in (key, f"{key}-list"):
        with pytest.raises(OperationFailedError, match="not a state item"):
            await store.get(name)
    first, second, third = await store.bulk_get([key, f"{key}-none", f"{key}-list"])
    assert isinstance(first.error, OperationFailedError)
    assert isinstance(third.error, OperationFailedError)
    assert (second.item, second.error) == (None, None)


async def test_a_transaction_knows_the_types_that_it_leaves(
    redis_server: RedisBackend, open_store: Open, key: str
) -> None:
    redis_server.call("RPUSH", key, "1")
    store = await open_store(redis_server)
    with pytest.raises(EtagMismatchError, match="operation 2 of 2"):
        await store.transaction([SetOperation(key, b"1"), SetOperation(key, b"2", etag="3")])
    assert redis_server.call("TYPE", key) == b"list"
    etags = await store.transaction([SetOperation(key, b"1"), DeleteOperation(key), SetOperation(key, b"2", ttl=50)])
    assert len(set(etags)) == 3
    assert redis_server.call("HGET", key, "data") == b"2"
    assert 0 < redis_server.call("TTL", key) <= 50


async def test_a_default_lifetime_is_taken_and_overridden(
    redis_server: RedisBackend, open_store: Open, key: str
) -> None:
    store = await open_store(redis_server, ttlInSeconds="100")
    await store.set(key, b"1")
    assert 0 < redis_server.call("TTL", key) <= 100
    await store.set(key, b"1", ttl=-1)
    assert redis_server.call("TTL", key) == -1


# connections


async def test_concurrent_calls_share_script_runs(own_redis: OwnRedis, open_store: Open) -> None:
    server = own_redis.server()
    store = await open_store(server)
    await store.set("warm", b"1")
    server.call("CONFIG", "RESETSTAT")
    await asyncio.gather(*(store.set(f"key-{number}", b"1") for number in range(64)))
    stats = _info(server, "commandstats")
    assert stats["cmdstat_evalsha"].startswith("calls=2,"), "64 writes are two runs of 32"


async def test_components_of_one_assembly_share_a_connection(own_redis: OwnRedis, open_store: Open) -> None:
    server, shared = own_redis.server(), SharedClients()
    stores = [await open_store(server, shared, ttlInSeconds=str(number)) for number in range(5)]
    await asyncio.gather(*(store.set("key", b"1") for store in stores))
    # The shared one, one of the pool for looking around at open, and the one that asks.
    assert int(_info(server, "clients")["connected_clients"]) <= 3
    for store in stores[1:]:
        await store.aclose()
    assert await stores[0].get("key") is not None


async def test_scripts_are_sent_again_when_the_server_forgot_them(own_redis: OwnRedis, open_store: Open) -> None:
    server = own_redis.server()
    store = await open_store(server)
    await store.set("key", b"1")
    server.call("SCRIPT", "FLUSH")
    etag, item, _ = await asyncio.gather(store.set("key", b"2"), store.get("key"), store.bulk_get(["key", "other"]))
    server.call("SCRIPT", "FLUSH")
    large = b"x" * 100_000
    await store.set("key", large, etag=etag)
    server.call("SCRIPT", "FLUSH")
    item = await store.get("key")
    assert item is not None
    assert item.data == large


async def test_a_large_value_holds_nobody_up(own_redis: OwnRedis, open_store: Open) -> None:
    server = own_redis.server()
    store = await open_store(server)
    large = b"x" * 1_000_000
    await asyncio.gather(store.set("large", large), *(store.set(f"small-{number}", b"1") for number in range(50)))
    outcomes = await store.bulk_get(["small-1", "large", "none", "large"])
    assert [outcome.item and len(outcome.item.data) for outcome in outcomes] == [1, 1_000_000, None, 1_000_000]
    assert int(_info(server, "clients")["connected_clients"]) > 1


async def test_a_key_that_is_not_allowed_does_not_fail_its_neighbours(own_redis: OwnRedis, open_store: Open) -> None:
    server = own_redis.server(RedisOptions(auth="none"))
    server.call("ACL", "SETUSER", "limited", "on", ">secret", "~mine*", "+@all")
    store = await open_store(server, redisUsername="limited", redisPassword="secret")
    results = await asyncio.gather(
        *(store.set(key, b"1") for key in ("mine-1", "yours", "mine-2")), return_exceptions=True
    )
    assert isinstance(results[0], str)
    assert isinstance(results[1], PermissionDeniedError)
    assert isinstance(results[2], str)


async def test_wrong_log_in_data_are_a_matter_of_permission(own_redis: OwnRedis, open_store: Open) -> None:
    server = own_redis.server(RedisOptions(auth="password"))
    for fields in ({"redisPassword": "hunter2"}, {"redisPassword": "hunter2", "redisUsername": "nobody"}):
        with pytest.raises(PermissionDeniedError, match="redisPassword") as caught:
            await open_store(server, **fields)
        assert "hunter2" not in str(caught.value)
    open_server = own_redis.server(RedisOptions(auth="none"))
    with pytest.raises(PermissionDeniedError):
        await open_store(open_server, redisPassword="hunter2")
    with pytest.raises(InvalidArgumentError, match="redisDB"):
        await open_store(open_server, redisDB="99")


async def test_a_full_server_refuses_writes_and_still_answers_reads(own_redis: OwnRedis, open_store: Open) -> None:
    server = own_redis.server()
    store = await open_store(server)
    await store.set("key", b"1")
    server.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StorageError, match="maxmemory"):
        await store.set("key", b"2")
    with pytest.raises(StorageError):
        await store.transaction([SetOperation("other", b"2"), DeleteOperation("key")])
    item = await store.get("key")
    assert item is not None
    assert item.data == b"1"
    await store.transaction([DeleteOperation("key"), SetOperation("other", b"2")])
    assert await store.get("other") is not None, "one that makes room first is done whole"


async def test_a_replica_refuses_writes(own_redis: OwnRedis, open_store: Open) -> None:
    server = own_redis.server()
    store = await open_store(server)
    server.call("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StorageError, match="replica"):
        await store.set("key", b"1")


async def test_unwrap_gives_a_client_of_redis_py(redis_server: RedisBackend, open_store: Open, key: str) -> None:
    store = await open_store(redis_server)
    await store.set(key, b"1")
    redis = store.unwrap(Redis)
    assert await redis.hget(key, "data") == b"1"
    with pytest.raises(LookupError):
        store.unwrap(int)


async def test_tls_shows_the_certificate_and_verifies_the_server(
    redis_tls: RedisBackend, open_store: Open, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert redis_tls.tls is not None
    with pytest.raises(UnavailableError, match="certificate"):
        await open_store(redis_tls)
    monkeypatch.setenv("SSL_CERT_FILE", str(redis_tls.tls.ca))
    store = await open_store(redis_tls)
    await store.set(key, b"x" * 100_000)
    assert await store.get(key) is not None
    lenient = await open_store(redis_tls, insecureSkipTLSVerify="true")
    assert await lenient.get(key) is not None


# documents


async def test_json_is_a_document_where_indexes_are_asked_for(
    redis_stack: RedisBackend, open_store: Open, key: str
) -> None:
    store = await open_store(redis_stack, queryIndexes=INDEXES)
    etag = await store.set(key, {"name": "Ann"}, ttl=100)
    assert json.loads(redis_stack.call("JSON.GET", key)) == {"data": {"name": "Ann"}, "version": int(str(etag))}
    item = await store.get(key)
    assert item is not None
    assert (item.json(), item.etag) == ({"name": "Ann"}, etag)
    assert item.expires_at is not None
    assert await store.set(key, b"bytes", etag=etag) == str(int(str(etag)) + 1)
    assert redis_stack.call("TYPE", key) == b"hash"


async def test_json_is_a_hash_where_they_are_not_unless_the_request_says_so(
    redis_stack: RedisBackend, open_store: Open, key: str
) -> None:
    store = await open_store(redis_stack)
    await store.set(key, {"a": 1})
    assert redis_stack.call("TYPE", key) == b"hash"
    await store.set(key, {"a": 1}, metadata={"contentType": "application/json"})
    assert redis_stack.call("TYPE", key) == b"ReJSON-RL"


@pytest.mark.parametrize("text", ['{"a": 1e999}', "99999999999999999999999", '"\\ud800"', "[" * 200 + "]" * 200])
async def test_json_that_a_document_cannot_hold_comes_back_as_it_was(
    redis_stack: RedisBackend, open_store: Open, key: str, text: str
) -> None:
    store = await open_store(redis_stack, queryIndexes=INDEXES)
    await store.transaction([SetOperation(key, text.encode(), content_type="application/json")])
    item = await store.get(key)
    assert item is not None
    assert item.data == text.encode()


async def test_an_index_never_hides_a_match(redis_stack: RedisBackend, open_store: Open, key: str) -> None:
    store = await open_store(redis_stack, queryIndexes=INDEXES)
    people = [
        {"team": key, "name": "Ann the great", "age": 2**53 + 1},
        {"team": key, "name": "ann THE great", "age": 7},
    ]
    for number, person in enumerate(people):
        await store.set(f"{key}-{number}", person)
    queries: list[tuple[dict[str, Any], list[str]]] = [
        ({"EQ": {"name": "Ann the great"}}, ["0"]),
        ({"GT": {"age": 2**53}}, ["0"]),
        ({"IN": {"name": ["the", "ann THE great"]}}, ["1"]),
        ({"OR": [{"EQ": {"age": 7}}, {"EQ": {"name": "Ann the great"}}]}, ["0", "1"]),
    ]
    for repeated in range(2):
        for condition, expected in queries:
            result = await store.query({"filter": {"AND": [{"EQ": {"team": key}}, condition]}})
            assert [hit.key.removeprefix(f"{key}-") for hit in result.items] == expected, (repeated, condition)
        # RediSearch leaves a document with a value of another type out of the index.
        await store.set(f"{key}-odd", {"team": "none", "name": 5, "age": "text"})
    result = await store.query({"filter": {"EQ": {"age": "text"}}}, metadata={"queryIndexName": "people"})
    assert f"{key}-odd" in [hit.key for hit in result.items]
    await store.delete(f"{key}-odd")
    with pytest.raises(InvalidArgumentError, match="people"):
        await store.query({}, metadata={"queryIndexName": "nobody"})


# shapes


async def test_a_cluster_takes_transactions_of_one_slot_only(
    redis_cluster: RedisBackend, open_store: Open, key: str
) -> None:
    store = await open_store(redis_cluster)
    with pytest.raises(InvalidArgumentError, match="slots"):
        await store.transaction([SetOperation(f"{key}-{number}", b"1") for number in range(20)])
    assert await store.get(f"{key}-0") is None
    await store.transaction([SetOperation(f"{{{key}}}-{number}", b"1") for number in range(20)])
    assert len((await store.keys(f"{{{key}}}%")).keys) == 20


async def test_a_slot_that_moves_is_followed(own_redis: OwnRedis, open_store: Open) -> None:
    cluster = own_redis.cluster()
    store = await open_store(cluster)
    await store.set("{move}-1", b"1")
    slot, source, target = await asyncio.to_thread(_start_moving, cluster, "{move}-1")
    assert await store.set("{move}-2", b"2"), "a key that is not there (any more) is asked for at the new node"
    await store.set("{move}-large", b"x" * 100_000)
    await store.set("{move}-1", b"one")
    await asyncio.to_thread(_finish_moving, cluster, slot, source, target)
    outcomes = await store.bulk_get(["{move}-1", "{move}-2", "{move}-large"])
    assert [outcome.item and outcome.item.data[:3] for outcome in outcomes] == [b"one", b"2", b"xxx"]
    assert len((await store.keys("{move}%")).keys) == 3


async def test_strong_consistency_says_when_only_the_primary_has_it(own_redis: OwnRedis, open_store: Open) -> None:
    group = own_redis.sentinel()
    store = await open_store(group)
    await store.set("key", b"1", consistency="strong")
    (replica,) = [node for node in group.nodes if node is not group.primary()]
    assert await asyncio.to_thread(replica.call, "HGET", "key", "data") == b"1"
    replica.freeze()
    try:
        with pytest.raises(OutcomeUnknownError, match="the primary has the write"):
            await store.set("key", b"2", consistency="strong")
    finally:
        replica.thaw()
    item = await store.get("key")
    assert item is not None
    assert item.data == b"2"


def _info(server: RedisBackend, section: str) -> dict[str, str]:
    with server.connect() as connection:
        return connection.info("INFO", section)


def _start_moving(cluster: RedisCluster, key: str) -> tuple[int, Any, Any]:
    source = cluster.primary_of(key)
    target = next(node for node in cluster.nodes[:3] if node is not source)
    slot = source.call("CLUSTER", "KEYSLOT", key)
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.call("CLUSTER", "MYID"))
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.call("CLUSTER", "MYID"))
    return slot, source, target


def _finish_moving(cluster: RedisCluster, slot: int, source: Any, target: Any) -> None:
    login = ["AUTH2", cluster.username, cluster.password] if cluster.username else []
    for key in source.call("CLUSTER", "GETKEYSINSLOT", slot, 100):
        source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, *login, "KEYS", key)
    owner = target.call("CLUSTER", "MYID")
    for node in (target, source, *cluster.nodes[:3]):
        node.call("CLUSTER", "SETSLOT", slot, "NODE", owner)
