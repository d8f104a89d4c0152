"""Which databases the SQLite engine opens and how, and that it says what is wrong with all others."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

import pytest
from tests.unit.sqlite_engine_support import Open, engine_threads, keys, put, until
from tests.unit.sqlite_engine_support import opened as opened

from lapel.errors import ConfigurationError, StorageError
from lapel_contrib.sqlite import connection as connection_module
from lapel_contrib.sqlite.connection import SqliteOptions, filesystem_type, network_filesystem, parse_connection_string
from lapel_contrib.sqlite.engine import SqliteEngine


async def test_a_file_that_is_no_database_is_refused_at_open(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("just some text, long enough to be looked at\n" * 100)
    with pytest.raises(StorageError, match=r"notes\.txt.*not a SQLite database"):
        await SqliteEngine.open(SqliteOptions(connection_string=str(path)))
    await until(lambda: engine_threads() == [])


async def test_a_damaged_file_is_a_storage_error(opened: Open, tmp_path: Path) -> None:
    engine = await opened()
    await asyncio.gather(*(engine.write(put(str(n), "x" * 200)) for n in range(200)))
    await engine.close()
    path = tmp_path / "items.db"
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)
    engine = await SqliteEngine.open(SqliteOptions(connection_string=str(path)))
    with pytest.raises(StorageError, match=r"items\.db.*damaged"):
        await engine.read(lambda c: c.execute("SELECT * FROM item").fetchall())
    await engine.close()


@pytest.mark.parametrize("query", ["mode=ro", "immutable=1"])
async def test_a_read_only_database_reads_refuses_writes_and_keeps_its_bytes(
    opened: Open, tmp_path: Path, query: str
) -> None:
    engine = await opened()
    await engine.write(put("a"))
    await engine.close()
    path = tmp_path / "items.db"
    before = path.read_bytes()
    engine = await opened(f"file:{path}?{query}")
    assert await engine.read(keys) == {"a"}
    with pytest.raises(StorageError, match="read-only"):
        await engine.write(put("b"))
    await engine.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing/items.db", "no directory.*create it"),
        ("items.db?mode=rw", "no such file"),
        ("items.db?mode=ro", "no such file"),
        (".", "this is a directory"),
    ],
)
async def test_a_file_that_cannot_be_opened_says_what_to_do(tmp_path: Path, name: str, expected: str) -> None:
    with pytest.raises(StorageError, match=expected) as caught:
        await SqliteEngine.open(SqliteOptions(connection_string=f"{tmp_path}/{name}"))
    assert str(tmp_path) in str(caught.value)
    await until(lambda: engine_threads() == [])


async def test_a_number_out_of_range_is_refused_before_anything_is_opened() -> None:
    for readers in (0, 9):
        with pytest.raises(ConfigurationError, match="readers"):
            await SqliteEngine.open(SqliteOptions(connection_string=":memory:", readers=readers))
    assert engine_threads() == []


@pytest.mark.parametrize(
    ("text", "path", "read_only", "begin"),
    [
        ("/data/a.db", "/data/a.db", False, "BEGIN IMMEDIATE"),
        ("file:/data/a.db", "/data/a.db", False, "BEGIN IMMEDIATE"),
        ("file:///data/a%20b.db?mode=ro", "/data/a b.db", True, "BEGIN IMMEDIATE"),
        ("file://localhost/data/a.db?immutable=true", "/data/a.db", True, "BEGIN IMMEDIATE"),
        ("/data/a.db?_txlock=exclusive&cache=private", "/data/a.db", False, "BEGIN EXCLUSIVE"),
        (":memory:", None, False, "BEGIN IMMEDIATE"),
        ("file::memory:?cache=shared", None, False, "BEGIN IMMEDIATE"),
        ("file:name?mode=memory", None, False, "BEGIN IMMEDIATE"),
    ],
)
def test_connection_strings_mean_what_they_mean_to_dapr(
    text: str, path: str | None, read_only: bool, begin: str
) -> None:
    target = parse_connection_string(text)
    assert (target.path, target.read_only, target.begin) == (path, read_only, begin)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "names no file"),
        ("file:?mode=ro", "names no file"),
        ("file://host/a.db", "host 'host'"),
        ("a.db?_txlock=never", "deferred, immediate, exclusive"),
        ("a.db?_pragma=busy_timeout(100)", "use busyTimeout"),
        ("a.db?_pragma=JOURNAL_MODE(off)", "use disableWAL"),
        ("a.db?_pragma=foreign_keys(1)", "cannot be changed"),
        ("a.db?_pragma=cache_size;drop", "name\\(value\\)"),
        ("a.db?mode=rx", "unknown mode"),
        ("a.db?timeout=5", "unknown option 'timeout'"),
        ("a#b.db", "%23"),
    ],
)
def test_a_connection_string_without_effect_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as caught:
        parse_connection_string(text)
    assert "connectionString" in str(caught.value)


async def test_other_pragmas_of_the_connection_string_are_in_force(opened: Open, tmp_path: Path) -> None:
    engine = await opened(f"{tmp_path / 'items.db'}?_pragma=cache_size(1234)&_pragma=secure_delete%3D1")

    def pragmas(connection: sqlite3.Connection) -> list[int]:
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("cache_size", "secure_delete")]

    assert await engine.write(pragmas) == [1234, 1]
    assert await engine.read(pragmas) == [1234, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the type of a file system")
def test_the_type_of_a_file_system_is_known(tmp_path: Path) -> None:
    assert filesystem_type("/proc/self") == "proc"
    assert filesystem_type(tmp_path / "not" / "there.db") not in {None, "proc"}
    assert network_filesystem("/proc") is None


@pytest.mark.parametrize(
    ("kind", "network"),
    [("nfs4", True), ("cifs", True), ("9p", True), ("fuse.sshfs", True), ("ext4", False), ("fuse.ntfs", False)],
)
def test_network_file_systems_are_told_apart(monkeypatch: pytest.MonkeyPatch, kind: str, network: bool) -> None:
    monkeypatch.setattr(connection_module, "filesystem_type", lambda path: kind)
    assert network_filesystem("/data/a.db") == (kind if network else None)
