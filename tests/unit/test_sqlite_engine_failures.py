"""What the SQLite engine does when a disk, a commit or a lock fails it: a typed error, and nothing half written."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from tests.unit.sqlite_engine_support import Open, create, keys, put
from tests.unit.sqlite_engine_support import foreign as foreign
from tests.unit.sqlite_engine_support import opened as opened

from lapel.errors import InvalidArgumentError, LapelError, OperationFailedError, StorageError, UnavailableError
from lapel_contrib.sqlite.errors import translate
from lapel_contrib.sqlite.group import Write, WriteGroup


async def test_a_full_disk_is_a_storage_error_and_the_engine_goes_on(opened: Open) -> None:
    engine = await opened()
    (pages,) = await engine.read(lambda c: c.execute("PRAGMA page_count").fetchone())
    await engine.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())
    for single in (True, False):
        writes = [
            engine.write(put(key, "x" * size), single=single) for key, size in [("s1", 1), ("L", 99999), ("s2", 1)]
        ]
        small, large, other = await asyncio.gather(*writes, return_exceptions=True)
        assert (small, other) == ("s1", "s2")
        assert isinstance(large, StorageError)
        assert "items.db" in str(large)
        assert "free some space" in str(large)
    await engine.write(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
    await engine.write(put("large", "x" * 100_000))
    assert await engine.read(keys) == {"s1", "s2", "large"}


class _FailingCommit(sqlite3.Connection):
    """Fails the next commits with the SQLite codes in `codes`."""

    codes: list[int]

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.codes:
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = self.codes.pop(0)
            raise error
        return super().execute(sql, *args)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, StorageError),
        (sqlite3.SQLITE_IOERR_FSYNC, StorageError),
        (sqlite3.SQLITE_READONLY, StorageError),
        (sqlite3.SQLITE_CORRUPT, StorageError),
        (sqlite3.SQLITE_BUSY, UnavailableError),
    ],
)
def test_a_failed_commit_leaves_nothing_of_the_group(code: int, expected: type[LapelError]) -> None:
    group = WriteGroup(path="/items.db", begin="BEGIN IMMEDIATE", busy_timeout=0)
    with closing(sqlite3.connect(":memory:", isolation_level=None, factory=_FailingCommit)) as connection:
        connection.codes = []
        create(connection)
        for writes in ([Write(put("a"), False)], [Write(put("a"), False), Write(put("b"), True)]):
            connection.codes = [code]
            with pytest.raises(expected, match=r"items\.db"):
                group.run(connection, writes)
            assert keys(connection) == set()
        assert group.run(connection, [Write(put("a"), False), Write(put("b"), True)]) == (["a", "b"], True)


def test_a_commit_refused_for_another_reason_is_tried_for_each_alone() -> None:
    group = WriteGroup(path=None, begin="BEGIN IMMEDIATE", busy_timeout=0)
    with closing(sqlite3.connect(":memory:", isolation_level=None, factory=_FailingCommit)) as connection:
        connection.codes = []
        create(connection)
        connection.codes = [sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_CONSTRAINT]
        results, _ = group.run(connection, [Write(put("a"), False), Write(put("b"), False)])
        assert isinstance(results[0], OperationFailedError)
        assert results[1] == "b"
        assert keys(connection) == {"b"}


async def test_a_lock_held_elsewhere_is_unavailable_after_the_busy_timeout(
    opened: Open, foreign: Callable[[], sqlite3.Connection]
) -> None:
    engine = await opened(busy_timeout=0.03)
    with closing(foreign()) as other:
        other.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(*(engine.write(put(str(n))) for n in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [UnavailableError] * 3
        assert "busyTimeout" in str(results[0])
        assert await engine.read(keys) == set()
        other.execute("ROLLBACK")
    assert await engine.write(put("a")) == "a"


async def test_a_write_waits_for_a_lock_held_elsewhere(opened: Open, foreign: Callable[[], sqlite3.Connection]) -> None:
    engine = await opened(busy_timeout=30)
    with closing(foreign()) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.ensure_future(engine.write(put("a")))
        done, _ = await asyncio.wait({writing}, timeout=0.12)
        assert not done
        other.execute("ROLLBACK")
        assert await writing == "a"


async def test_close_does_not_wait_for_a_lock_held_elsewhere(
    opened: Open, foreign: Callable[[], sqlite3.Connection]
) -> None:
    engine = await opened(busy_timeout=3600)
    with closing(foreign()) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.ensure_future(engine.write(put("a")))
        await asyncio.sleep(0)
        await engine.close(deadline=1)
        with pytest.raises(UnavailableError):
            await writing


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_CANTOPEN, StorageError),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, UnavailableError),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, UnavailableError),
        (sqlite3.SQLITE_TOOBIG, InvalidArgumentError),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, OperationFailedError),
        (None, OperationFailedError),
    ],
)
def test_errors_name_the_file_and_never_quote_the_statement(code: int | None, expected: type[LapelError]) -> None:
    error = sqlite3.OperationalError('near "secret": syntax error')
    if code is not None:
        error.sqlite_errorcode = code
    translated = translate(error, path="/data/a.db")
    assert type(translated) is expected
    assert "/data/a.db" in str(translated)
    assert "secret" not in str(translated)
