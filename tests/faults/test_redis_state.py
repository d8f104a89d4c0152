"""state.redis when the connection, a reply or a server is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import pytest
import pytest_asyncio
from tests.backends.redis import RedisBackend
from tests.backends.redis_fixtures import OwnRedis
from tests.backends.redis_node import RedisOptions

from lapel.driver import DriverContext
from lapel.errors import (
    DeadlineExceededError,
    LapelError,
    OutcomeUnknownError,
    OutcomeUnknownTimeoutError,
    UnavailableError,
)
from lapel.health import HealthState
from lapel.state import SetOperation, StateStore
from lapel.testing.proxy import FaultProxy
from lapel_contrib.redis.settings import RedisStateSettings
from lapel_contrib.redis.state import RedisState

pytestmark = pytest.mark.faults

KEY = "key-of-the-fault"
PATTERN = KEY.encode()


def build(backend: RedisBackend, **fields: str) -> StateStore:
    settings = RedisStateSettings.parse({**backend.properties, **fields}, warnings=[])
    return StateStore(RedisState(settings, DriverContext(component="store")))


@pytest_asyncio.fixture
async def behind(
    own_redis: OwnRedis,
) -> AsyncIterator[Callable[..., Awaitable[tuple[RedisBackend, FaultProxy, StateStore]]]]:
    """Return a function that starts a server and opens a store on it through a proxy."""
    async with AsyncExitStack() as stack:

        async def start(**fields: str) -> tuple[RedisBackend, FaultProxy, StateStore]:
            # With the default user off, Redis 7.0 refuses to load what scripts wrote: it replays them as that user.
            options = RedisOptions(persistent=True, auth="password")
            server = await asyncio.to_thread(own_redis.server, options)
            proxy = await stack.enter_async_context(FaultProxy(server.host, server.port))
            store = build(server, redisHost=f"{proxy.host}:{proxy.port}", **fields)
            return server, proxy, await stack.enter_async_context(store)

        yield start


Behind = Callable[..., Awaitable[tuple[RedisBackend, FaultProxy, StateStore]]]


async def until_it_works(store: StateStore, key: str, seconds: float = 20) -> None:
    """Write until that succeeds, as an application does that can repeat it."""
    end = time.monotonic() + seconds
    while True:
        try:
            await store.set(key, b"works")
            return
        except LapelError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)


async def until_noticed(store: StateStore) -> None:
    """Wait until the store has seen that its connections are gone; before that a write would be sent into the void."""
    client = cast("RedisState", store.driver)._client
    assert client is not None
    async with asyncio.timeout(10):
        while any(endpoint.pipeline.link is not None for endpoint in client._endpoints.values()):
            await asyncio.sleep(0.001)


@asynccontextmanager
async def load(store: StateStore) -> AsyncIterator[list[LapelError]]:
    """Read and write in the background; the errors are collected, what is read must be what belongs to the key."""
    failures: list[LapelError] = []
    stop = asyncio.Event()

    async def worker(number: int) -> None:
        while not stop.is_set():
            key = f"load-{number}"
            try:
                await store.set(key, key.encode())
                item = await store.get(key)
                assert item is not None
                assert item.data == key.encode()
            except LapelError as exc:
                failures.append(exc)
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as tasks:
        for number in range(16):
            tasks.create_task(worker(number))
        yield failures
        stop.set()


async def test_a_write_whose_reply_is_lost_is_sent_once(behind: Behind) -> None:
    server, proxy, store = await behind()
    first = await store.set(KEY, b"1")
    trap = proxy.drop_reply(PATTERN)
    with pytest.raises(OutcomeUnknownError):
        await store.set(KEY, b"2")
    assert trap.hit
    assert server.call("HGET", KEY, "version") == str(int(str(first)) + 1).encode()
    item = await store.get(KEY)
    assert item is not None
    assert item.data == b"2"


async def test_a_write_that_never_arrived_is_of_unknown_outcome_too(behind: Behind) -> None:
    _, proxy, store = await behind()
    trap = proxy.cut_request(PATTERN)
    with pytest.raises(OutcomeUnknownError):
        await store.set(KEY, b"1")
    assert trap.hit
    assert await store.get(KEY) is None


async def test_a_read_whose_reply_is_lost_is_repeated(behind: Behind) -> None:
    _, proxy, store = await behind()
    await store.set(KEY, b"1")
    trap = proxy.drop_reply(PATTERN)
    item = await store.get(KEY)
    assert trap.hit
    assert item is not None


async def test_a_conditional_write_whose_reply_is_lost_is_never_taken_for_a_conflict(behind: Behind) -> None:
    _, proxy, store = await behind()
    etag = await store.set(KEY, b"1")
    trap = proxy.drop_reply(PATTERN)
    with pytest.raises(OutcomeUnknownError):
        await store.set(KEY, b"2", etag=etag)
    assert trap.hit


@pytest.mark.parametrize("size", [1, 100_000])
async def test_a_transaction_and_a_bulk_are_sent_once(behind: Behind, size: int) -> None:
    server, proxy, store = await behind()
    operations = [SetOperation(KEY, b"x" * size), SetOperation("other", b"2")]
    await store.transaction(operations)
    await store.bulk_set(operations)  # from here on the server knows the scripts
    version = int(server.call("HGET", KEY, "version"))
    trap = proxy.drop_reply(PATTERN)
    with pytest.raises(OutcomeUnknownError):
        await store.transaction(operations)
    assert trap.hit
    trap = proxy.drop_reply(PATTERN)
    outcomes = await store.bulk_set(operations)
    assert trap.hit
    assert {type(outcome.error) for outcome in outcomes} == {OutcomeUnknownError}
    assert int(server.call("HGET", KEY, "version")) == version + 2


async def test_neighbours_of_a_lost_reply_are_told_the_truth(behind: Behind) -> None:
    _, proxy, store = await behind()
    await store.set(KEY, b"1")
    trap = proxy.drop_reply(PATTERN)
    results = await asyncio.gather(
        *(store.set(f"many-{number}", b"1") for number in range(40)),
        store.set(KEY, b"2"),
        *(store.get(KEY) for _ in range(40)),
        return_exceptions=True,
    )
    assert trap.hit
    for result in results[:41]:
        assert isinstance(result, str | OutcomeUnknownError | UnavailableError), result
    assert not [result for result in results[41:] if isinstance(result, BaseException)], "reads are repeated"


async def test_a_connection_that_was_cut_while_idle_is_not_noticed_by_anyone(behind: Behind) -> None:
    _, proxy, store = await behind()
    for _ in range(5):
        assert proxy.cut() > 0
        await until_noticed(store)
        await store.set(KEY, b"1")


async def test_a_server_that_refuses_is_unavailable_and_nothing_is_done(behind: Behind) -> None:
    _, proxy, store = await behind()
    proxy.refuse()
    proxy.cut()
    await until_noticed(store)
    with pytest.raises(UnavailableError, match="nothing was done"):
        await store.set(KEY, b"1")
    assert (await store.health()).state is not HealthState.READY
    assert proxy.counters.refused > 0
    proxy.heal()
    await until_it_works(store, KEY)


async def test_a_frozen_connection_is_given_up_after_read_timeout(behind: Behind) -> None:
    _, proxy, store = await behind(readTimeout="200ms")
    await store.set(KEY, b"1")
    proxy.freeze()
    results = await asyncio.gather(
        store.set(KEY, b"2"),
        store.set("other", b"x" * 100_000),
        store.bulk_set([SetOperation("third", b"1")]),
        return_exceptions=True,
    )
    assert isinstance(results[0], OutcomeUnknownTimeoutError)
    assert isinstance(results[1], OutcomeUnknownTimeoutError | DeadlineExceededError | UnavailableError)
    assert isinstance(results[2], list)
    assert isinstance(results[2][0].error, OutcomeUnknownTimeoutError)
    proxy.heal()
    await until_it_works(store, KEY)


async def test_a_half_open_connection_is_replaced(behind: Behind) -> None:
    _, proxy, store = await behind(readTimeout="200ms", dialTimeout="200ms")
    await store.set(KEY, b"1")
    proxy.black_hole()
    with pytest.raises(LapelError):
        await store.get(KEY)
    assert proxy.counters.dropped_request_bytes > 0
    proxy.heal()
    await until_it_works(store, KEY)


async def test_a_slow_server_only_takes_longer(behind: Behind) -> None:
    _, proxy, store = await behind()
    proxy.delay(0.05)
    await asyncio.gather(*(store.set(f"{KEY}-{number}", b"1") for number in range(100)))
    outcomes = await store.bulk_get([f"{KEY}-{number}" for number in range(100)])
    assert all(outcome.item is not None for outcome in outcomes)
    assert proxy.counters.delayed_chunks > 0


async def test_a_restart_under_load_is_survived(behind: Behind) -> None:
    server, _, store = await behind()
    async with load(store) as failures:
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.restart)
        await until_it_works(store, KEY)
        for failure in failures:
            assert isinstance(failure, OutcomeUnknownError | UnavailableError), failure
        failures.clear()
        for _ in range(200):
            await store.set(KEY, b"again")
        assert not failures


async def test_cancelled_callers_leave_every_reply_with_its_owner(behind: Behind) -> None:
    _, proxy, store = await behind()
    proxy.delay(0.002)
    for number in range(50):
        await store.set(f"{KEY}-{number}", str(number).encode())
    for round_ in range(20):
        tasks = [asyncio.create_task(store.get(f"{KEY}-{number}")) for number in range(50)]
        await asyncio.sleep(0.0005 * round_)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            if number % 2:
                assert not isinstance(result, BaseException)
                assert result is not None
                assert result.data == str(number).encode()
    assert proxy.counters.cut == 0
    assert proxy.counters.accepted <= 2, "the connection stays"


async def test_a_sentinel_failover_is_followed(own_redis: OwnRedis) -> None:
    group = await asyncio.to_thread(own_redis.sentinel)
    async with build(group, dialTimeout="1s", readTimeout="500ms") as store:
        await store.set(KEY, b"1", consistency="strong")
        await asyncio.to_thread(group.primary().kill)
        await until_it_works(store, KEY, 30)
        item = await store.get(KEY)
        assert item is not None
        assert item.data == b"works"


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_a_cluster_failover_is_followed(own_redis: OwnRedis, how: str) -> None:
    cluster = await asyncio.to_thread(own_redis.cluster)
    async with build(cluster, readTimeout="500ms") as store:
        await store.set(KEY, b"1", consistency="strong")
        primary = await asyncio.to_thread(cluster.primary_of, KEY)
        await asyncio.to_thread(getattr(primary, how))
        try:
            await until_it_works(store, KEY, 40)
            await store.set(KEY, b"x" * 100_000)
            assert (await store.keys(f"{KEY}%")).keys == [KEY]
        finally:
            if how == "freeze":
                primary.thaw()
