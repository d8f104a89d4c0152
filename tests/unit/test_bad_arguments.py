"""Arguments that are wrong: refused with a typed error before anything is sent, whatever the driver."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.unit.embedded import BY_TYPE, ignore, prepare

from lapel.errors import EtagError, InvalidArgumentError, LapelError
from lapel.state import DeleteOperation, SetOperation, StateStore

STATES = ("state.in-memory", "state.sqlite")
NOT_TEXT: list[Any] = [None, 7, True, b"key"]
SURROGATE = "\ud800"
BAD_KEYS = {"": "the key is empty", "a\0b": "holds a NUL character", SURROGATE: "holds a lone surrogate"}

Calls = dict[str, Callable[[], Awaitable[object]]]


@pytest.fixture(params=STATES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    """A store that holds one item, which is still the only one at the end."""
    component = await BY_TYPE[request.param].made(tmp_path)
    async with component as opened:
        etag = await opened.set("kept", "value")
        yield opened
        assert (await opened.get("kept")).etag == etag
        assert [key async for key in _keys(opened)] == ["kept"]


async def _keys(store: StateStore) -> AsyncIterator[str]:
    for key in (await store.keys()).keys:
        yield key


async def refused(calls: Calls, error: type[LapelError] = InvalidArgumentError, words: str = "") -> None:
    """Expect `error`, naming component and driver, of each call."""
    for name, call in calls.items():
        try:
            found = await call()
        except Exception as exc:
            found = exc
        assert isinstance(found, error), f"{name}: {found!r}"
        assert str(found).startswith(f"component 'thing' ({found.driver})"), name
        assert words in str(found), f"{name}: {found}"


def keyed(store: StateStore, key: Any) -> Calls:
    """Return every call that takes a key, other than bulk ones."""
    return {
        "get": lambda: store.get(key),
        "set": lambda: store.set(key, 1),
        "set with etag": lambda: store.set(key, 1, etag="1"),
        "delete": lambda: store.delete(key),
        "update": lambda: store.update(key, lambda _: 1),
        "transaction": lambda: store.transaction([SetOperation("new", 1), SetOperation(key, 1)]),
        "transaction, delete": lambda: store.transaction([DeleteOperation("kept"), DeleteOperation(key)]),
    }


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_a_key_that_is_none_is_refused_everywhere(store: StateStore, key: str) -> None:
    words = BAD_KEYS[key]
    await refused(keyed(store, key), words=words)
    for outcomes in (
        await store.bulk_get(["kept", key]),
        await store.bulk_set([SetOperation("other", 1), SetOperation(key, 1)]),
        await store.bulk_delete(["other", key]),
    ):
        assert outcomes[0].error is None
        assert words in str(outcomes[1].error)
    if key:
        await refused({"delete_with_prefix": lambda: store.delete_with_prefix(key)}, words=words)


@pytest.mark.parametrize("key", NOT_TEXT)
async def test_a_key_that_is_not_text_is_refused_everywhere(store: StateStore, key: Any) -> None:
    etag: Any = key or 1
    others: Calls = {
        "bulk_set": lambda: store.bulk_set([key]),
        "bulk_delete": lambda: store.bulk_delete([key]),
        "delete_with_prefix": lambda: store.delete_with_prefix(key),
        "keys": lambda: store.keys(key),
        "etag": lambda: store.set("kept", 1, etag=etag),
    }
    await refused(keyed(store, key) | others)
    assert isinstance((await store.bulk_get([key]))[0].error, InvalidArgumentError)


async def test_bars_are_refused_where_a_prefix_applies_and_only_there(tmp_path: Path, store: StateStore) -> None:
    component = await BY_TYPE[store.type].made(tmp_path, app_id="shop")
    async with component as prefixed:
        await refused(keyed(prefixed, "a||b"), words="holds '||', which separates the key prefix")
        assert (await prefixed.keys()).keys == []
    await store.set("a||b", 1)
    await store.delete("a||b")


WRONG_TTLS: list[Any] = [
    0,
    -2,
    1.5,
    1.0,
    math.nan,
    math.inf,
    True,
    "x",
    "10",
    b"1",
    2**31,
    timedelta(0),
    timedelta(milliseconds=1500),
    timedelta(seconds=-1),
    timedelta.max,
]


@pytest.mark.parametrize("ttl", WRONG_TTLS, ids=repr)
async def test_a_wrong_ttl_is_refused_and_nothing_is_written(store: StateStore, ttl: Any) -> None:
    calls: Calls = {
        "set": lambda: store.set("kept", 1, ttl=ttl),
        "transaction": lambda: store.transaction([SetOperation("new", 1), SetOperation("kept", 1, ttl=ttl)]),
    }
    await refused(calls, words="ttl")
    assert "ttl" in str((await store.bulk_set([SetOperation("kept", 1, ttl=ttl)]))[0].error)


@pytest.mark.parametrize("ttl", ["-2", "1.5", "x", " 1", "+1", "1_0", "2147483648", "9" * 5000, "\u0663", 10])
async def test_a_wrong_ttl_in_metadata_is_refused(store: StateStore, ttl: Any) -> None:
    await refused({"set": lambda: store.set("kept", 1, metadata={"ttlInSeconds": ttl})})


@pytest.mark.parametrize("etag", ["not-an-etag", "a\0b", SURROGATE, "x" * 100_000])
async def test_an_etag_that_is_not_one_writes_nothing(store: StateStore, etag: str) -> None:
    calls: Calls = {
        "set": lambda: store.set("kept", 1, etag=etag),
        "set, missing key": lambda: store.set("new", 1, etag=etag),
        "delete": lambda: store.delete("kept", etag=etag),
        "transaction": lambda: store.transaction([SetOperation("new", 1), DeleteOperation("kept", etag=etag)]),
    }
    await refused(calls, EtagError)


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value", [math.nan, [math.inf], object(), {1: "a"}, {(1, 2): 3}, SURROGATE, {"a": SURROGATE}, CYCLE]
)
async def test_a_value_that_json_cannot_hold_is_refused(store: StateStore, value: Any) -> None:
    await refused({"set": lambda: store.set("kept", value)}, words="not JSON")


async def test_a_value_over_the_limit_is_refused_and_not_cut(tmp_path: Path) -> None:
    broker = await BY_TYPE["pubsub.sqlite"].made(tmp_path, maxMessageBytes="1Ki")
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def keep(message: Any) -> None:
        received.put_nowait(message.data)

    async with broker:
        await broker.subscribe("topic", keep, raw=True)
        await refused({"publish": lambda: broker.publish("topic", b"x" * 1025, raw=True)}, words="limit of 1024")
        outcomes = await broker.bulk_publish("topic", [b"x" * 1025, b"x" * 1024], raw=True)
        assert isinstance(outcomes[0].error, InvalidArgumentError)
        assert outcomes[1].error is None
        assert await asyncio.wait_for(received.get(), 10) == b"x" * 1024
    assert received.empty()


async def test_a_value_over_the_largest_of_a_database_is_refused_without_a_copy(tmp_path: Path) -> None:
    store = await BY_TYPE["state.sqlite"].made(tmp_path)
    async with store:
        # A bytes object of zeros is not touched by anybody, so it costs no memory.
        await refused({"set": lambda: store.set("key", bytes(2**29 + 1))}, words="takes at most 536870912")
        assert await store.get("key") is None


@pytest.mark.parametrize("lists", [None, 7, "abc", b"abc", [None], [7], [["a"]]], ids=repr)
async def test_what_is_not_a_list_of_operations_is_refused(store: StateStore, lists: Any) -> None:
    calls: Calls = {
        "bulk_set": lambda: store.bulk_set(lists),
        "bulk_delete": lambda: store.bulk_delete(lists),
        "transaction": lambda: store.transaction(lists),
    }
    if not isinstance(lists, list):
        calls["bulk_get"] = lambda: store.bulk_get(lists)
    await refused(calls)


@pytest.mark.parametrize("words", ["bogus", "LAST-WRITE", 7, True])
async def test_words_that_are_not_known_list_those_that_are(store: StateStore, words: Any) -> None:
    await refused({"concurrency": lambda: store.set("kept", 1, concurrency=words)}, words="'first-write'")
    await refused({"consistency": lambda: store.set("kept", 1, consistency=words)}, words="'strong'")


async def test_metadata_content_type_pages_and_queries_are_checked(store: StateStore) -> None:
    bad: list[Any] = [None, "text", {"a": 1}, {1: "a"}]
    for metadata in bad:
        await refused({"metadata": partial(store.set, "kept", 1, metadata=metadata)}, words="map text to text")
    types: list[Any] = [7, "a\0b", "text/plain\r\nX: y", SURROGATE]
    for content_type in types:
        await refused({"content type": partial(store.set, "kept", b"1", content_type=content_type)})
    sizes: list[Any] = [0, -1, 1.5, "1", True, 2**63]
    for size in sizes:
        await refused({"page_size": partial(store.keys, page_size=size)}, words="page_size")
    queries: list[Any] = [
        None,
        "",
        "{",
        b"\xff",
        "[]",
        {"filter": {"BOGUS": {"a": 1}}},
        {"filter": {"EQ": {SURROGATE: 1}}},
        {"filter": {"EQ": {"a": SURROGATE}}},
        {"filter": {"EQ": {"a": math.nan}}},
        {"page": {"limit": 2**63}},
        {"page": {"token": "forged"}},
    ]
    for query in queries:
        await refused({"query": partial(store.query, query)})


@pytest.mark.parametrize("driver", ["pubsub.in-memory", "pubsub.sqlite"])
async def test_wrong_arguments_publish_and_subscribe_nothing(tmp_path: Path, driver: str) -> None:
    broker = await BY_TYPE[driver].made(tmp_path)
    calls: dict[str, Callable[[], Awaitable[object]]] = {}

    def publish(**arguments: Any) -> None:
        calls[f"publish {arguments}"] = lambda: broker.publish(**({"topic": "topic", "data": 1} | arguments))

    def subscribe(**arguments: Any) -> None:
        calls[f"subscribe {arguments}"] = lambda: broker.subscribe(
            **({"topic": "topic", "handler": ignore} | arguments)
        )

    for topic in ("", None, 7, b"topic", "a\0b", SURROGATE):
        publish(topic=topic)
        subscribe(topic=topic)
    for ttl in (0, -1, math.nan, math.inf, True, "x", timedelta(0), timedelta(seconds=-1)):
        publish(ttl=ttl)
        publish(ttl=ttl, raw=True)
    for text in ("0", "-1", "1.5", "x", 10):
        publish(metadata={"ttlInSeconds": text})
    for delay in (-1, math.nan, True, "x"):
        publish(delay=delay)
    for key in (7, b"key", SURROGATE, "a\0b"):
        publish(key=key)
    for data in (math.nan, object(), SURROGATE):
        publish(data=data)
    for metadata in ("text", {"a": 1}, {"a": SURROGATE}):
        publish(metadata=metadata)
        subscribe(metadata=metadata)
    publish(content_type=7)
    subscribe(handler=None)
    subscribe(backoff=5)
    subscribe(group=7)
    subscribe(dead_letter_topic="topic")
    subscribe(dead_letter_topic="")
    subscribe(ordering="bogus")
    for number in (0, -1, 1.5, "x", True):
        subscribe(concurrency=number)
        subscribe(max_attempts=number)
    for seconds in (-1, math.nan, "x", timedelta(seconds=-1)):
        subscribe(drain_timeout=seconds)
    async with broker:
        await refused(calls)
        assert broker.subscriptions == frozenset()


@pytest.mark.parametrize("driver", ["lock.in-memory", "lock.sqlite"])
async def test_wrong_arguments_take_no_lock(tmp_path: Path, driver: str) -> None:
    store = await BY_TYPE[driver].made(tmp_path, app_id="shop")
    calls: dict[str, Callable[[], Awaitable[object]]] = {}

    async def hold(**arguments: Any) -> None:
        async with store.hold("resource", **arguments):
            pytest.fail("held")

    for text in ("", "a\0b", SURROGATE, *NOT_TEXT):
        calls[f"resource {text!r}"] = partial(store.try_lock, text, "owner", 1)
        calls[f"owner {text!r}"] = partial(store.try_lock, "resource", text, 1)
        calls[f"unlock {text!r}"] = partial(store.unlock, text, "owner")
        calls[f"renew {text!r}"] = partial(store.renew, text, "owner", 1)
    calls["bars"] = lambda: store.try_lock("a||b", "owner", 1)
    expiries: list[Any] = [0, -1, 1.5, math.nan, math.inf, True, "1", None, 2**31, timedelta(milliseconds=1500)]
    for expiry in expiries:
        calls[f"expiry {expiry!r}"] = partial(store.try_lock, "resource", "owner", expiry)
        calls[f"hold {expiry!r}"] = partial(hold, expiry=expiry)
    waits: list[Any] = [-1, math.nan, "1", timedelta(seconds=-1)]
    for wait in waits:
        calls[f"wait {wait!r}"] = partial(hold, wait=wait)
    async with store:
        await refused(calls)
        assert await store.try_lock("resource", "another", 1)


async def test_the_other_kinds_refuse_names_and_data_that_are_none(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    opened = {name: await BY_TYPE[name].made(folder) for name in BY_TYPE}
    secrets, settings = opened["secretstores.local.file"], opened["configuration.sqlite"]
    keys, cron = opened["crypto.dapr.localstorage"], opened["bindings.cron"]
    async with secrets, settings, keys, cron:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "keys as one text": lambda: settings.get("greeting"),
            "handler of settings": lambda: settings.subscribe([], None),
            "handler of events": lambda: cron.read(None),
            "concurrency of events": lambda: cron.read(ignore, concurrency=1.5),
        }
        for text in ("", "a\0b", SURROGATE, *NOT_TEXT):
            calls[f"secret {text!r}"] = partial(secrets.get, text)
            calls[f"setting {text!r}"] = partial(settings.get, [text])
            calls[f"document key {text!r}"] = partial(keys.encrypt, b"x", key_name=text)
            calls[f"key {text!r}"] = partial(keys.subtle.sign, b"x", algorithm="EdDSA", key_name=text)
        for data in ("text", None, 7, [1]):
            calls[f"document {data!r}"] = partial(keys.encrypt, data, key_name="key")
            calls[f"signed {data!r}"] = partial(keys.subtle.sign, data, algorithm="EdDSA", key_name="signing.pem")
        await refused(calls)


@pytest.mark.parametrize("name", ["../secrets.json", "/etc/passwd", "a/../../x", "..", "a\0b", SURROGATE, "x" * 300])
async def test_no_file_outside_the_folder_is_read_or_written(tmp_path: Path, name: str) -> None:
    folder = prepare(tmp_path)
    binding = await BY_TYPE["bindings.localstorage"].made(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    async with binding:
        for operation in ("create", "get", "delete"):
            with pytest.raises(LapelError, match="component 'thing'"):
                await binding.invoke(operation, b"data", metadata={"fileName": name})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
