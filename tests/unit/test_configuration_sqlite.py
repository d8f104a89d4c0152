"""`configuration.sqlite`: rows are items as they are, and changes by others are delivered."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.unit.configuration_support import Inbox

from lapel.configuration import ConfigurationItem, ConfigurationStore
from lapel.driver import DriverContext
from lapel.errors import OperationFailedError, StorageError
from lapel_contrib.sqlite.configuration import SqliteConfiguration
from lapel_contrib.sqlite.settings import SqliteConfigurationSettings


def sqlite_store(path: Path | str, **fields: str) -> ConfigurationStore:
    settings = SqliteConfigurationSettings.parse({"connectionString": str(path), **fields})
    return ConfigurationStore(SqliteConfiguration(settings, DriverContext(component="settings")))


def execute(path: Path, sql: str, *rows: tuple[Any, ...]) -> None:
    connection = sqlite3.connect(path, timeout=10)
    with connection:
        connection.executemany(sql, rows or [()])
    connection.close()


PUT = "INSERT OR REPLACE INTO configuration (key, value, version, metadata) VALUES (?, ?, ?, ?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.db"


async def test_rows_are_items_with_version_and_metadata(path: Path) -> None:
    async with sqlite_store(path) as store:
        execute(path, PUT, ("a", "1", "v1", '{"owner": "ops"}'), ("b", "", "", ""))
        items = {"a": ConfigurationItem("1", "v1", {"owner": "ops"}), "b": ConfigurationItem("")}
        assert await store.get() == items
        assert await store.get(["b", "unknown"]) == {"b": items["b"]}


async def test_a_thousand_keys_and_odd_texts_are_exact(path: Path) -> None:
    async with sqlite_store(path) as store:
        rows = [(f"k{number}", str(number), "", "{}") for number in range(1000)]
        odd = "a||b\n'\";-- ☃ " + "x" * 65536
        execute(path, PUT, *rows, (odd, odd, odd, "{}"))
        found = await store.get([odd, *(f"k{number}" for number in range(1000)), "unknown"])
        assert len(found) == 1001
        assert found[odd] == ConfigurationItem(odd, odd)


@pytest.mark.parametrize("metadata", ["{", "[]", '{"a": 1}', b"\x00"])
async def test_a_row_that_does_not_fit_is_told_by_its_key(path: Path, metadata: Any) -> None:
    async with sqlite_store(path) as store:
        execute(path, PUT, ("bad key", "canary-5f1c", "", metadata))
        with pytest.raises(OperationFailedError, match="'bad key'") as caught:
            await store.get()
        assert "canary" not in str(caught.value)


async def test_changes_by_another_connection_are_delivered(path: Path) -> None:
    async with sqlite_store(path) as store:
        inbox = Inbox()
        await store.subscribe([], inbox)
        execute(path, PUT, ("a", "1", "", "{}"))  # right after subscribe returned
        await inbox.holds(a="1")
        execute(path, PUT, ("a", "2", "", "{}"))
        await inbox.holds(a="2")
        execute(path, "DELETE FROM configuration")
        await inbox.holds(a=None)


async def test_a_table_made_by_others_is_used_and_nulls_are_empty(path: Path) -> None:
    execute(path, "CREATE TABLE mine (id INTEGER, key TEXT, value TEXT, version TEXT, metadata TEXT)")
    execute(path, "INSERT INTO mine VALUES (1, 'a', NULL, NULL, NULL)")
    async with sqlite_store(path, tableName="mine") as store:
        assert await store.get() == {"a": ConfigurationItem("")}


async def test_a_read_only_database_is_read_and_needs_its_table(path: Path) -> None:
    execute(path, "CREATE TABLE other (a)")
    with pytest.raises(StorageError, match="no table 'configuration'"):
        await sqlite_store(f"file:{path}?mode=ro").open()
    async with sqlite_store(path):
        execute(path, PUT, ("a", "1", "", "{}"))
    async with sqlite_store(f"file:{path}?mode=ro") as store:
        assert (await store.get())["a"].value == "1"


async def test_a_table_of_something_else_is_refused(path: Path) -> None:
    execute(path, "CREATE TABLE configuration (key TEXT)")
    with pytest.raises(StorageError, match="metadata, value, version"):
        await sqlite_store(path).open()
