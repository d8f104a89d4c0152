from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from lapel.component import ComponentOptions
from lapel.driver import DriverContext, SharedClients
from lapel.errors import (
    EtagMismatchError,
    InvalidArgumentError,
    OutcomeUnknownTimeoutError,
    SettingsError,
    StorageError,
)
from lapel.state import DeleteOperation, SetOperation, StateStore
from lapel_contrib.sqlite.engine import SqliteEngine
from lapel_contrib.sqlite.settings import SqliteStateSettings
from lapel_contrib.sqlite.state import SqliteState
from lapel_contrib.sqlite.state_rows import Etags

# What a sidecar leaves behind: its tables, in its words.
DAPR = """
CREATE TABLE metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);
CREATE TABLE state (
  key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, is_binary BOOLEAN NOT NULL, etag TEXT NOT NULL,
  expiration_time TIMESTAMP DEFAULT NULL, update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
);
INSERT INTO metadata VALUES ('migrations', '1'), ('last-cleanup', CURRENT_TIMESTAMP);
INSERT INTO state VALUES
  ('app||json', '{"a":1,"b":"\\u003c"}', 0, '5c1d-json', NULL, CURRENT_TIMESTAMP),
  ('app||text', '"hello"', 0, '5c1d-text', NULL, CURRENT_TIMESTAMP),
  ('app||bytes', 'AAEC/w==', 1, '5c1d-bytes', NULL, CURRENT_TIMESTAMP),
  ('app||lives', '1', 0, '5c1d-lives', DATETIME(CURRENT_TIMESTAMP, '+3600 seconds'), CURRENT_TIMESTAMP),
  ('app||gone', '1', 0, '5c1d-gone', DATETIME(CURRENT_TIMESTAMP, '-1 seconds'), CURRENT_TIMESTAMP);
"""
TABLE = [
    ("key", "TEXT", 1, None, 1),
    ("value", "TEXT", 1, None, 0),
    ("is_binary", "BOOLEAN", 1, None, 0),
    ("etag", "TEXT", 1, None, 0),
    ("expiration_time", "TIMESTAMP", 0, "NULL", 0),
    ("update_time", "TIMESTAMP", 1, "CURRENT_TIMESTAMP", 0),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def sql(path: Path) -> Callable[..., list[Any]]:
    """Run statements on the file as another process would."""

    def run(*statements: str) -> list[Any]:
        db = sqlite3.connect(path)
        rows = [db.execute(statement).fetchall() for statement in statements][-1]
        db.commit()
        db.close()
        return rows

    return run


@pytest.fixture
def sidecar(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript(DAPR)
    db.close()


@pytest.fixture
async def open_store(path: Path) -> AsyncIterator[Callable[..., Any]]:
    stores: list[StateStore] = []

    async def make(app_id: str | None = None, shared: SharedClients | None = None, **fields: Any) -> StateStore:
        settings = SqliteStateSettings(**({"connection_string": str(path)} | fields))
        context = DriverContext(component="store", shared=shared or SharedClients())
        stores.append(StateStore(SqliteState(settings, context), options=ComponentOptions(app_id=app_id)))
        return await stores[-1].open()

    yield make
    for store in stores:
        await store.aclose()


async def row(sql: Any, key: str) -> Any:
    columns = "value, is_binary, etag, expiration_time, update_time"
    (found,) = await asyncio.to_thread(sql, f"SELECT {columns} FROM state WHERE key = '{key}'")
    return found


async def test_rows_of_a_sidecar_are_read(open_store: Any, sidecar: None) -> None:
    store = await open_store("app")
    outcomes = await store.bulk_get(["json", "text", "bytes", "lives", "gone"])
    json_, text, data, lives, gone = (outcome.item for outcome in outcomes)
    assert (json_.data, json_.json(), json_.etag) == (b'{"a":1,"b":"\\u003c"}', {"a": 1, "b": "<"}, "5c1d-json")
    assert (text.text(), data.data, gone) == ("hello", b"\x00\x01\x02\xff", None)
    assert abs(lives.expires_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    assert (await store.keys()).keys == ["bytes", "json", "lives", "text"]
    assert [hit.key for hit in (await store.query({"filter": {"EQ": {"b": "<"}}})).items] == ["json"]
    await store.set("json", 2, etag="5c1d-json")
    await store.delete("bytes", etag="5c1d-bytes")
    with pytest.raises(EtagMismatchError):
        await store.set("gone", 1, etag="5c1d-gone")
    await store.set("gone", 1, concurrency="first-write")


async def test_rows_are_written_as_a_sidecar_writes_them(open_store: Any, sql: Any) -> None:
    store = await open_store("app")
    before = datetime.now(UTC)
    etag = await store.set("json", {"a": "é"})
    await store.set("null", None)
    await store.set("bytes", b"\x00\xff")
    await store.set("lives", "text", ttl=60)
    after = datetime.now(UTC)
    assert (await row(sql, "app||json"))[:4] == ('{"a":"é"}', 0, etag, None)
    assert (await row(sql, "app||null"))[:2] == ("null", 0)
    assert (await row(sql, "app||bytes"))[:2] == ("AP8=", 1)
    value, _, written, ends, updated = await row(sql, "app||lives")
    assert (value, UUID(written).version) == ('"text"', 4)
    assert all(len(text) == 19 and "T" not in text for text in (ends, updated))
    ends = datetime.fromisoformat(ends).replace(tzinfo=UTC)
    assert before + timedelta(seconds=60) <= ends < after + timedelta(seconds=61), "rounded up, never down"
    assert (await store.get("lives")).expires_at == ends
    await store.set("lives", 1)
    assert (await row(sql, "app||lives"))[3] is None


async def test_tables_are_those_of_a_sidecar(open_store: Any, sql: Any) -> None:
    await (await open_store()).aclose()
    rows = await asyncio.to_thread(sql, "PRAGMA table_info(state)")
    assert [tuple(row[1:]) for row in rows] == TABLE
    assert await asyncio.to_thread(sql, "SELECT key, value FROM metadata") == [("migrations", "1")]
    assert await asyncio.to_thread(sql, "PRAGMA journal_mode") == [("wal",)]


async def test_two_instances_open_one_new_file_at_once(open_store: Any, sql: Any) -> None:
    stores = await asyncio.gather(*(open_store() for _ in range(4)))
    await stores[0].set("k", 1)
    assert (await stores[3].get("k")).json() == 1
    assert await asyncio.to_thread(sql, "SELECT count(*) FROM metadata") == [(1,)]


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("UPDATE metadata SET value = '2'", "level '2'.*knows level 1"),
        ("ALTER TABLE state ADD COLUMN more TEXT", "other columns.*tableName"),
    ],
)
async def test_layout_of_another_version_is_refused(
    open_store: Any, sql: Any, sidecar: None, statement: str, text: str
) -> None:
    await asyncio.to_thread(sql, statement)
    with pytest.raises(StorageError, match=text):
        await open_store()


async def test_read_only_file_can_be_read_and_nothing_else(open_store: Any, path: Path, sidecar: None) -> None:
    store = await open_store(connection_string=f"file:{path}?mode=ro", cleanup_interval=timedelta(seconds=1))
    assert (await store.get("app||text")).text() == "hello"
    with pytest.raises(StorageError, match="read-only"):
        await store.set("k", 1)
    with pytest.raises(StorageError, match="no table 'other'"):
        await open_store(connection_string=f"file:{path}?mode=ro", table_name="other")


async def test_expired_row_is_invisible_at_once_everywhere(open_store: Any, sql: Any) -> None:
    store = await open_store()
    etag = await store.set("p||k", {"a": 1}, ttl=1000)
    await store.set("p||other", 1)
    await asyncio.to_thread(sql, "UPDATE state SET expiration_time = DATETIME('now') WHERE key = 'p||k'")
    assert await store.get("p||k") is None
    assert [outcome.item for outcome in await store.bulk_get(["p||k"])] == [None]
    assert (await store.keys()).keys == ["p||other"]
    assert [hit.key for hit in (await store.query({})).items] == ["p||other"]
    for call in (
        store.set("p||k", 1, etag=etag),
        store.delete("p||k", etag=etag),
        store.transaction([DeleteOperation("p||k", etag=etag)]),
    ):
        with pytest.raises(EtagMismatchError):
            await call
    assert await store.delete_with_prefix("p") == 1, "the expired one is removed and not counted"
    assert await store.transaction([SetOperation("p||k", 1, concurrency="first-write")])


async def test_refused_transaction_changes_nothing_and_neighbours_go_on(open_store: Any) -> None:
    store = await open_store()
    etag = await store.set("a", 1)
    good = [SetOperation("a", 2), SetOperation("b", 2)]
    bad = SetOperation("c", 2, etag="no")

    async def refused() -> None:
        with pytest.raises(EtagMismatchError):
            await store.transaction([*good, bad, DeleteOperation("a")])

    _, _, outcomes, _ = await asyncio.gather(
        refused(), store.set("n", 1), store.bulk_set([bad, SetOperation("m", 1), SetOperation("m", 2)]), refused()
    )
    assert (await store.get("a")).etag == etag
    assert [outcome.item and outcome.item.data for outcome in await store.bulk_get(["b", "c", "m", "n"])] == [
        None,
        None,
        b"2",
        b"1",
    ]
    assert isinstance(outcomes[0].error, EtagMismatchError)
    assert (await store.get("m")).etag == outcomes[2].etag


async def test_key_listing_is_case_sensitive_ordered_by_code_point_and_takes_any_character(open_store: Any) -> None:
    store = await open_store()
    keys = ["A", "a", "a\nb", "a%b", "a*b", "a[b", "a]b", "a_b", "a\\b", "aXb", "é", "\uffff", "\U0001f600"]
    await store.bulk_set([SetOperation(key, None) for key in keys])
    assert (await store.keys()).keys == sorted(keys)
    for pattern, expected in {
        "A": ["A"],
        "a_b": ["a\nb", "a%b", "a*b", "aXb", "a[b", "a\\b", "a]b", "a_b"],
        r"a\_b": ["a_b"],
        r"a\%b": ["a%b"],
        r"a\\b": ["a\\b"],
        "a*b": ["a*b"],
        "a[b": ["a[b"],
        "_": ["A", "a", "é", "\uffff", "\U0001f600"],
        "[a-z]": [],
    }.items():
        assert (await store.keys(pattern)).keys == sorted(expected), pattern
    page = await store.keys("a%", page_size=5)
    assert (await store.keys("a%", page_size=5, token=page.token)).token is None
    with pytest.raises(InvalidArgumentError, match="50000 bytes"):
        await store.keys("x" * 50_001)


async def test_listing_by_prefix_uses_the_index(open_store: Any) -> None:
    store = await open_store()
    plan = "EXPLAIN QUERY PLAN SELECT key FROM state WHERE key GLOB ? AND key > '' ORDER BY key"
    rows = await store.unwrap(SqliteEngine).read(lambda db: db.execute(plan, ("app||*",)).fetchall())
    assert "SEARCH" in rows[0][3]
    assert len(rows) == 1, "no sorting"


async def test_sweep_removes_expired_rows_and_only_one_instance_sweeps(
    open_store: Any, sql: Any, sidecar: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[int] = []
    sweep = SqliteState.sweep

    async def counted(self: SqliteState) -> int:
        swept.append(await sweep(self))
        return swept[-1]

    monkeypatch.setattr(SqliteState, "sweep", counted)
    monkeypatch.setattr("lapel_contrib.sqlite.state.SWEEP_ROWS", 2)
    rows = ", ".join(f"('x{n}', '1', 0, 'e', DATETIME('now', '-1 seconds'), CURRENT_TIMESTAMP)" for n in range(5))
    old = "UPDATE metadata SET value = DATETIME('now', '-1 day') WHERE key = 'last-cleanup'"
    await asyncio.to_thread(sql, f"INSERT INTO state VALUES {rows}", old)
    first = await open_store(cleanup_interval=timedelta(hours=1))
    second = await open_store(cleanup_interval=timedelta(hours=1))
    claims = [
        await store.unwrap(SqliteEngine).write(lambda db, store=store: store.driver._claim_sweep(db, 3600.0))
        for store in (first, second, first)
    ]
    assert claims == [True, False, False]
    await asyncio.to_thread(sql, old)
    timed = await open_store(cleanup_interval=timedelta(milliseconds=5))
    while not swept:
        await asyncio.sleep(0.005)
    assert swept == [6]
    left = await asyncio.to_thread(sql, "SELECT key FROM state ORDER BY key")
    assert left == [("app||bytes",), ("app||json",), ("app||lives",), ("app||text",)]
    await timed.aclose()


async def test_components_of_one_file_share_one_engine(open_store: Any) -> None:
    shared = SharedClients()
    first = await open_store(shared=shared)
    second = await open_store(shared=shared, table_name="other")
    engine = first.unwrap(SqliteEngine)
    assert second.unwrap(SqliteEngine) is engine
    await first.aclose()
    await second.set("k", 1)
    await second.aclose()
    assert engine.closed


async def test_private_databases_in_memory_are_not_shared(open_store: Any) -> None:
    shared = SharedClients()
    first, second = [await open_store(shared=shared, connection_string=":memory:") for _ in range(2)]
    await first.set("k", 1)
    assert await second.get("k") is None


async def test_failed_open_leaves_nothing_behind(open_store: Any, sidecar: None, sql: Any) -> None:
    shared = SharedClients()
    await asyncio.to_thread(sql, "UPDATE metadata SET value = '2'")
    with pytest.raises(StorageError):
        await open_store(shared=shared)
    assert shared._entries == {}


async def test_write_that_another_process_holds_up_has_an_unknown_outcome_and_the_store_goes_on(path: Path) -> None:
    settings = SqliteStateSettings(connection_string=str(path), busy_timeout=timedelta(seconds=30))
    options = ComponentOptions(call_timeout=timedelta(milliseconds=50))
    async with StateStore(SqliteState(settings, DriverContext(component="store")), options=options) as store:
        other = await asyncio.to_thread(sqlite3.connect, path, isolation_level=None, check_same_thread=False)
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        with pytest.raises(OutcomeUnknownTimeoutError):
            await store.set("k", 1)
        await asyncio.to_thread(other.execute, "ROLLBACK")
        await asyncio.to_thread(other.close)
        while (await store.get("k")) is None:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "column",
    ["value = 'not base64', is_binary = 1", "expiration_time = 'tomorrow'"],
)
async def test_damaged_row_is_an_error_that_says_so_and_spoils_no_other(open_store: Any, sql: Any, column: str) -> None:
    store = await open_store()
    await store.bulk_set([SetOperation("bad", 1), SetOperation("good", 1)])
    await asyncio.to_thread(sql, f"UPDATE state SET {column} WHERE key = 'bad'")
    with pytest.raises(StorageError, match="repair or remove"):
        await store.get("bad")
    bad, good = await store.bulk_get(["bad", "good"])
    assert isinstance(bad.error, StorageError)
    assert good.item.json() == 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"connectionString": "a.db?_pragma=journal_mode(DELETE)"}, "connectionString.*disableWAL"),
        ({"connectionString": "a.db", "tableName": "state; DROP TABLE x"}, "tableName"),
        ({"connectionString": "a.db", "tableName": "Metadata"}, "must differ"),
        ({"connectionString": "a.db", "metadataTableName": "sqlite_x"}, "keeps for itself"),
        ({"connectionString": "a.db", "timeoutInSeconds": "0.5s"}, "at least"),
        ({}, "connectionString"),
    ],
)
def test_wrong_settings_name_the_field(fields: dict[str, str], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        SqliteStateSettings.parse(fields)


def test_settings_reach_the_engine() -> None:
    settings = SqliteStateSettings.parse(
        {
            "url": "file:a.db",
            "timeout": "7",
            "busyTimeout": "-1",
            "disableWAL": "true",
            "cleanupIntervalInSeconds": "-1",
        }
    )
    options = settings.options()
    assert (options.connection_string, options.busy_timeout, options.disable_wal) == ("file:a.db", 0.0, True)
    assert SqliteState(settings, DriverContext(component="store")).call_timeout == 7.0


def test_etags_are_distinct_version_4_uuids() -> None:
    new = Etags().new
    etags = [new() for _ in range(1000)]
    assert len(set(etags)) == 1000
    assert all(str(UUID(etag)) == etag and UUID(etag).version == 4 for etag in etags)
