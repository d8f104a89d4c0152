from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.state_fake import ALL, Fake, stores

from lapel.descriptor import Capability, Kind
from lapel.errors import (
    InvalidArgumentError,
    UnavailableError,
    UnsupportedError,
)
from lapel.policy import RetryPolicy
from lapel.registry import default_registry
from lapel.state import (
    DeleteOperation,
    GetRequest,
    IfAbsent,
    IfMatch,
    SetOperation,
    SetRequest,
    StateItem,
)


@pytest.fixture(autouse=True, scope="module")
def _scanned() -> None:
    """Look for installed drivers as the assembly does before it opens components: errors name those that could."""
    default_registry().with_capability(Kind.STATE, Capability.ETAG)


@pytest.fixture
async def open_store() -> AsyncIterator[Callable[..., Any]]:
    async with stores() as make:
        yield make


async def test_app_id_prefixes_every_key_and_is_taken_off_again(open_store: Any) -> None:
    driver = Fake()
    store = await open_store(driver, app_id="app")
    await store.get("k")
    await store.set("k", 1)
    await store.delete("k")
    await store.transaction([SetOperation("k", 1), DeleteOperation("k")])
    assert (await store.keys("a%", token="app||one")).keys == ["one", "two"]
    assert [hit.key for hit in (await store.query({})).items] == ["one"]
    await store.delete_with_prefix("p")
    get, put, delete, transaction, keys, query, prefix = driver.seen
    assert (get.key, put.key, delete.key) == ("app||k",) * 3
    assert [operation.key for operation in transaction.operations] == ["app||k"] * 2
    assert (keys.pattern, query.key_prefix, prefix.prefix) == ("app||a%", "app||", "app||p||")


async def test_wildcards_in_the_app_id_match_only_themselves(open_store: Any) -> None:
    driver = Fake()
    store = await open_store(driver, app_id="a_b%")
    await store.keys("%")
    assert driver.seen[0].pattern == r"a\_b\%||%"


async def test_bars_are_refused_only_when_an_app_id_separates_with_them(open_store: Any) -> None:
    driver = Fake()
    with pytest.raises(InvalidArgumentError, match=r"component 'store'.*key prefix"):
        await (await open_store(driver, app_id="app")).get("a||b")
    assert driver.seen == []
    await (await open_store(driver)).get("a||b")
    assert driver.seen == [GetRequest("a||b")]


@pytest.mark.parametrize("app_id", ["äpp", "a\ud800", "app"])
@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", "k" * 16, "é" * 8, "a||b", 7])
async def test_bad_key_is_refused_with_any_prefix(open_store: Any, app_id: str, key: Any) -> None:
    """A key may have 20 bytes together with its prefix."""
    driver = Fake()
    store = await open_store(driver, app_id=app_id)
    for call in (store.get(key), store.set(key, 1), store.delete(key)):
        with pytest.raises(InvalidArgumentError, match="key"):
            await call
    assert driver.seen == []


@pytest.mark.parametrize(
    ("app_id", "key"), [("app", "k" * 15), ("äpp", "k" * 14), ("app", "é" * 7), (None, "k" * 20), (None, "é" * 10)]
)
async def test_the_longest_key_is_taken(open_store: Any, app_id: str | None, key: str) -> None:
    driver = Fake()
    await (await open_store(driver, app_id=app_id)).get(key)
    assert driver.seen == [GetRequest(key if app_id is None else f"{app_id}||{key}")]


async def test_a_prefix_that_is_no_text_is_refused_with_every_key(open_store: Any) -> None:
    driver = Fake()
    store = await open_store(driver, app_id="a\ud800")
    with pytest.raises(InvalidArgumentError, match="surrogate"):
        await store.get("k")
    assert driver.seen == []


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", "k" * 21, "é" * 11, 7])
async def test_bad_key_is_refused_before_anything_is_sent(open_store: Any, key: Any) -> None:
    driver = Fake()
    store = await open_store(driver)
    for call in (store.get(key), store.set(key, 1), store.delete(key), store.transaction([SetOperation(key, 1)])):
        with pytest.raises(InvalidArgumentError, match="component 'store'"):
            await call
    (outcome,) = await store.bulk_set([SetOperation(key, 1)])
    assert isinstance(outcome.error, InvalidArgumentError)
    assert driver.seen == []


@pytest.mark.parametrize(
    ("ttl", "metadata", "default", "expected"),
    [
        (None, {}, None, None),
        (None, {}, 7, 7),
        (5, {}, 7, 5),
        (timedelta(minutes=1), {}, None, 60),
        (-1, {}, 7, None),
        (None, {"ttlInSeconds": "5"}, None, 5),
        (None, {"ttlInSeconds": ""}, 7, 7),
        (None, {"ttlInSeconds": "-1"}, 7, None),
        (None, {"ttlInSeconds": "0"}, 7, None),
        (9, {"ttlInSeconds": "5"}, None, 9),
    ],
)
async def test_lifetime_reaches_the_driver(
    open_store: Any, ttl: Any, metadata: Any, default: Any, expected: Any
) -> None:
    driver = Fake(ttl=default)
    await (await open_store(driver)).set("k", 1, ttl=ttl, metadata=metadata)
    assert driver.seen[0].ttl == expected


@pytest.mark.parametrize("ttl", [0, -2, 2**31, 1001, 1.5, True, timedelta(milliseconds=1500), "5"])
async def test_impossible_lifetime_is_refused(open_store: Any, ttl: Any) -> None:
    driver = Fake()
    with pytest.raises(InvalidArgumentError, match="ttl"):
        await (await open_store(driver)).set("k", 1, ttl=ttl)
    assert driver.seen == []


@pytest.mark.parametrize("text", ["-2", "1.5", " 2", "2147483648", "1e3", "foo", "--1", "²", "9" * 5000])
async def test_impossible_lifetime_in_metadata_is_refused(open_store: Any, text: str) -> None:
    driver = Fake()
    with pytest.raises(InvalidArgumentError, match="ttl"):
        await (await open_store(driver)).set("k", 1, metadata={"ttlInSeconds": text})
    assert driver.seen == []


@pytest.mark.parametrize(
    ("etag", "concurrency", "on_set", "on_delete"),
    [
        (None, None, None, None),
        ("", None, None, None),
        (None, "last-write", None, None),
        (None, "first-write", IfAbsent(), None),
        ("", "first-write", IfAbsent(), None),
        ("x", None, IfMatch("x"), IfMatch("x")),
        ("x", "first-write", IfMatch("x"), IfMatch("x")),
        ("x", "last-write", IfMatch("x"), IfMatch("x")),
    ],
)
async def test_etag_and_concurrency_become_one_precondition(
    open_store: Any, etag: Any, concurrency: Any, on_set: Any, on_delete: Any
) -> None:
    driver = Fake()
    store = await open_store(driver)
    await store.set("k", 1, etag=etag, concurrency=concurrency)
    await store.delete("k", etag=etag, concurrency=concurrency)
    await store.bulk_set([SetOperation("k", 1, etag=etag, concurrency=concurrency)])
    await store.transaction([SetOperation("k", 1, etag=etag, concurrency=concurrency)])
    put, delete, bulk, transaction = driver.seen
    assert [put.precondition, bulk.precondition, transaction.operations[0].precondition] == [on_set] * 3
    assert delete.precondition == on_delete


async def test_unknown_words_are_refused_everywhere(open_store: Any) -> None:
    driver = Fake()
    store = await open_store(driver)
    for call in (
        store.get("k", consistency="strongest"),
        store.set("k", 1, concurrency="second-write"),
        store.delete("k", concurrency="second-write"),
        store.transaction([DeleteOperation("k", consistency="weak")]),
    ):
        with pytest.raises(InvalidArgumentError, match="expected one of"):
            await call
    assert driver.seen == []


async def test_call_without_its_capability_is_refused(open_store: Any) -> None:
    driver = Fake(flags=Capability(0))
    store = await open_store(driver)
    for call in (
        store.set("k", 1, etag="x"),
        store.set("k", 1, concurrency="first-write"),
        store.set("k", 1, ttl=5),
        store.transaction([]),
        store.keys(),
        store.query({}),
        store.delete_with_prefix("p"),
        store.update("k", lambda item: 1),
    ):
        with pytest.raises(UnsupportedError, match=r"component 'store' \(state\.fake\)"):
            await call
    assert driver.seen == []


async def test_values_become_json_and_bytes_stay(open_store: Any) -> None:
    driver = Fake()
    store = await open_store(driver)
    await store.set("k", {"a": "é"})
    await store.set("k", b"\xff")
    await store.set("k", b"{}", metadata={"contentType": "application/json"})
    assert [(request.value, request.content_type) for request in driver.seen] == [
        ('{"a":"é"}'.encode(), "application/json"),
        (b"\xff", None),
        (b"{}", "application/json"),
    ]
    for value in (float("nan"), b"x" * 101):
        with pytest.raises(InvalidArgumentError, match="component 'store'"):
            await store.set("k", value)


async def test_bulk_fallback_answers_in_request_order_and_applies_the_good_ones(open_store: Any) -> None:
    driver = Fake(StateItem(data=b"1"), UnavailableError("down"), None)
    store = await open_store(driver, retries=RetryPolicy.off())
    outcomes = await store.bulk_get(["a", "", "b", "c", "a"])
    assert [outcome.key for outcome in outcomes] == ["a", "", "b", "c", "a"]
    assert [request.key for request in driver.seen].count("a") == 2
    assert isinstance(outcomes[1].error, InvalidArgumentError)
    assert sum(isinstance(outcome.error, UnavailableError) for outcome in outcomes) == 1


async def test_bulk_fallback_applies_one_key_in_order_and_bounds_parallelism(open_store: Any) -> None:
    running: list[str] = []
    most = 0

    async def step(request: SetRequest) -> str:
        nonlocal most
        assert request.key not in running, "one key must never be written in parallel"
        running.append(request.key)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(request.key)
        return "etag"

    driver = Fake(*[step] * 40)
    store = await open_store(driver)
    await store.bulk_set([SetOperation(f"k{index % 10}", index) for index in range(40)], parallelism=4)
    assert most == 4
    written = [int(request.value) for request in driver.seen if request.key == "k3"]
    assert written == [3, 13, 23, 33]


async def test_native_bulk_is_split_at_the_limit_and_skips_bad_items(open_store: Any) -> None:
    driver = Fake(flags=ALL | Capability.BULK_STATE)
    store = await open_store(driver)
    outcomes = await store.bulk_set([SetOperation(key, 1) for key in ("a", "", "b", "c")])
    assert [[request.key for request in part] for part in driver.seen] == [["a", "b"], ["c"]]
    assert [outcome.etag for outcome in outcomes] == ["a", None, "b", "c"]
    assert isinstance(outcomes[1].error, InvalidArgumentError)


async def test_transaction_limits_hold_before_anything_is_sent(open_store: Any) -> None:
    driver = Fake()
    store = await open_store(driver)
    assert await store.transaction([]) == []
    with pytest.raises(InvalidArgumentError, match="limit of 2"):
        await store.transaction([SetOperation("k", 1)] * 3)
    assert driver.seen == []
    assert await store.transaction([SetOperation("k", 1)] * 2) == ["etag", "etag"]


@pytest.mark.parametrize("pattern", ["", "a\0", "a\\", "\ud800"])
async def test_bad_listing_is_refused(open_store: Any, pattern: str) -> None:
    store = await open_store(Fake(), app_id="app")
    with pytest.raises(InvalidArgumentError):
        await store.keys(pattern)
    for arguments in ({"page_size": 0}, {"token": "other||k"}):
        with pytest.raises(InvalidArgumentError):
            await store.keys("%", **arguments)


@pytest.mark.parametrize("prefix", ["", "||"])
async def test_prefix_delete_needs_a_prefix(open_store: Any, prefix: str) -> None:
    with pytest.raises(InvalidArgumentError, match="prefix is required"):
        await (await open_store(Fake())).delete_with_prefix(prefix)
