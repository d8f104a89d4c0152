from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lapel.driver import DriverContext
from lapel.errors import EtagMismatchError
from lapel.state import DeleteOperation, SetOperation, StateStore
from lapel_contrib.memory import state as module
from lapel_contrib.memory.settings import MemoryStateSettings
from lapel_contrib.memory.state import MemoryState

SETTINGS = MemoryStateSettings()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
async def store() -> AsyncIterator[StateStore]:
    async with StateStore(MemoryState(SETTINGS, DriverContext(component="store"))) as store:
        yield store


def finish(coroutine: Any) -> Any:
    """Run a coroutine that must not suspend."""
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    return done.value.value


async def test_get_and_set_never_suspend(store: StateStore) -> None:
    etag = finish(store.set("k", b"v", ttl=5))
    assert finish(store.get("k")).etag == etag


async def test_expired_key_is_invisible_at_once_and_counts_as_absent(store: StateStore, clock: Clock) -> None:
    etag = await store.set("p||k", {"a": 1}, ttl=5)
    clock.now += 4.99
    assert await store.get("p||k") is not None
    clock.now += 0.01
    with pytest.raises(EtagMismatchError):
        await store.set("p||k", 1, etag=etag)
    assert await store.get("p||k") is None
    assert (await store.keys()).keys == []
    await store.set("p||k", {"a": 1}, ttl=5, concurrency="first-write")
    clock.now += 5
    assert (await store.query({})).items == []
    await store.set("p||k", 1, ttl=5)
    clock.now += 5
    assert await store.delete_with_prefix("p") == 0


async def test_expired_keys_are_swept_without_being_asked_for(
    store: StateStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.0)
    monkeypatch.setattr(module, "SWEEP_ITEMS", 3)
    driver = store.driver
    assert isinstance(driver, MemoryState)
    for index in range(10):
        await store.set(f"k{index}", 1, ttl=5)
    await store.set("kept", 1, ttl=50)
    clock.now += 5
    while len(driver._items) > 1:
        await asyncio.sleep(0)
    assert (list(driver._items), list(driver._ends)) == (["kept"], ["kept"])


async def test_rewriting_a_key_with_a_lifetime_does_not_grow_the_store(store: StateStore) -> None:
    driver = store.driver
    assert isinstance(driver, MemoryState)
    for _ in range(1000):
        await store.set("k", 1, ttl=1000)
    assert len(driver._queue) < 100
    await store.set("k", 1)
    assert driver._ends == {}


async def test_refused_transaction_restores_values_etags_and_lifetimes(store: StateStore, clock: Clock) -> None:
    await store.set("a", 1, ttl=5)
    await store.set("b", 1)
    before = [await store.get(key) for key in "abc"]
    for place in range(4):
        operations: list[Any] = [SetOperation("a", 2), DeleteOperation("b"), SetOperation("c", 2, ttl=1)]
        operations.insert(place, DeleteOperation("d", etag="no"))
        with pytest.raises(EtagMismatchError):
            await store.transaction(operations)
        assert [await store.get(key) for key in "abc"] == before
    clock.now += 5
    assert await store.get("a") is None


async def test_etag_from_before_a_delete_never_matches_again(store: StateStore) -> None:
    etags = []
    for _ in range(3):
        etags.append(await store.set("k", 1))
        await store.delete("k")
    assert len(set(etags)) == 3


async def test_long_listings_run_on_a_thread_and_agree(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("b", "a", "c"):
        await store.set(key, 1)
    keys = await store.keys("_", page_size=2)
    hits = [hit.key for hit in (await store.query({})).items]
    monkeypatch.setattr(module, "THREAD_ITEMS", 0)
    assert await store.keys("_", page_size=2) == keys
    assert [hit.key for hit in (await store.query({})).items] == hits
    assert (keys.keys, keys.token) == (["a", "b"], "b")
    assert (await store.keys("_", token="b")).keys == ["c"]
