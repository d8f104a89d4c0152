"""What the SQLite engine promises of reads and writes: they share commits, and each succeeds or fails alone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from tests.unit.sqlite_engine_support import Gate, Open, keys, put, until
from tests.unit.sqlite_engine_support import foreign as foreign
from tests.unit.sqlite_engine_support import opened as opened

from lapel.errors import EtagMismatchError, OperationFailedError, StorageError


async def test_a_write_is_readable_and_on_disk_when_it_returns(
    opened: Open, foreign: Callable[[], sqlite3.Connection]
) -> None:
    engine = await opened()
    assert await engine.write(put("a")) == "a"
    assert await engine.read(keys) == {"a"}
    assert await engine.read(keys, scan=True) == {"a"}
    with closing(foreign()) as other:
        assert keys(other) == {"a"}
    assert engine.journal_mode == "wal"
    assert await engine.write(lambda c: c.execute("PRAGMA synchronous").fetchone()) == (2,)


async def test_concurrent_writes_share_one_commit(opened: Open) -> None:
    engine = await opened()
    statements: list[str] = []
    await engine.write(lambda c: c.set_trace_callback(statements.append))
    statements.clear()
    results = await asyncio.gather(*(engine.write(put(str(n)), single=n % 2 == 0) for n in range(50)))
    await engine.write(lambda c: c.set_trace_callback(None))
    assert results == [str(n) for n in range(50)]
    first = statements[: statements.index("COMMIT") + 1]
    assert sum(statement.startswith("INSERT") for statement in first) == 50
    assert sum(statement.startswith("SAVEPOINT") for statement in first) == 25


async def test_large_writes_do_not_join_the_group_of_small_ones(opened: Open) -> None:
    engine = await opened(max_group_bytes=1000)
    statements: list[str] = []
    await engine.write(lambda c: c.set_trace_callback(statements.append))
    statements.clear()
    await asyncio.gather(*(engine.write(put(str(n)), size=size) for n, size in enumerate([10, 10, 5000, 10])))
    await engine.write(lambda c: c.set_trace_callback(None))
    kinds = [s.split()[0] for s in statements if s.startswith(("INSERT", "COMMIT"))]
    assert kinds[:6] == ["INSERT", "INSERT", "COMMIT", "INSERT", "COMMIT", "INSERT"]


@pytest.mark.parametrize("text", [None, ":memory:"])
async def test_a_bad_write_is_undone_alone(opened: Open, text: str | None) -> None:
    engine = await opened(text)

    def refused(connection: sqlite3.Connection) -> None:
        put("half")(connection)
        raise EtagMismatchError("changed meanwhile")

    def broken(connection: sqlite3.Connection) -> None:
        put("half")(connection)
        connection.execute("INSERT INTO nowhere VALUES (1)")

    results = await asyncio.gather(
        *(engine.write(fn) for fn in (put("a"), refused, put("b"), broken, put("c"))), return_exceptions=True
    )
    assert [type(result).__name__ for result in results] == [
        "str",
        "EtagMismatchError",
        "str",
        "OperationFailedError",
        "str",
    ]
    assert await engine.read(keys) == {"a", "b", "c"}
    with pytest.raises(EtagMismatchError):
        await engine.write(refused)
    assert await engine.read(keys) == {"a", "b", "c"}


async def test_a_later_write_of_a_group_sees_the_earlier_ones(opened: Open) -> None:
    engine = await opened()
    await engine.write(put("count", "0"))

    def increment(connection: sqlite3.Connection) -> int:
        (value,) = connection.execute("SELECT value FROM item WHERE key = 'count'").fetchone()
        put("count", str(int(value) + 1))(connection)
        return int(value) + 1

    assert await asyncio.gather(*(engine.write(increment) for _ in range(20))) == list(range(1, 21))


async def test_a_wrongly_declared_write_is_still_undone_alone(opened: Open) -> None:
    engine = await opened()

    def half_way(connection: sqlite3.Connection) -> None:
        put("half")(connection)
        raise ValueError("after the first statement")

    writes = [engine.write(fn, single=True) for fn in (put("a"), half_way, put("b"))]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert (results[0], results[2]) == ("a", "b")
    assert isinstance(results[1], ValueError)
    assert await engine.read(keys) == {"a", "b"}


async def test_a_write_that_rolls_the_whole_transaction_back_takes_no_neighbour_along(opened: Open) -> None:
    engine = await opened()

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR ROLLBACK INTO item VALUES ('a', '2')")

    await engine.write(put("a"))
    writes = [engine.write(fn, single=n % 2 == 0) for n, fn in enumerate((put("b"), put("c"), spoil, put("d")))]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(result) for result in results] == [str, str, OperationFailedError, str]
    assert await engine.read(keys) == {"a", "b", "c", "d"}


async def test_a_function_that_commits_is_told_so(opened: Open) -> None:
    engine = await opened()
    with pytest.raises(RuntimeError, match="ended the transaction"):
        await engine.write(lambda c: c.execute("COMMIT").close())
    assert await engine.write(put("a")) == "a"


@pytest.mark.parametrize("options", [{}, {"disable_wal": True}])
async def test_a_read_never_sees_a_group_that_is_not_committed(opened: Open, options: dict[str, Any]) -> None:
    engine = await opened(**options)
    assert engine.journal_mode == ("delete" if options else "wal")
    gate = Gate()
    writing = asyncio.ensure_future(engine.write(gate))
    await until(gate.entered.is_set)
    assert await engine.read(keys) == set()
    gate.release.set()
    await writing
    assert await engine.read(keys) == {"gate"}


async def test_in_memory_a_read_waits_for_the_commit(opened: Open) -> None:
    engine = await opened(":memory:")
    gate = Gate()
    writing = asyncio.ensure_future(engine.write(gate))
    await until(gate.entered.is_set)
    reads = [asyncio.ensure_future(engine.read(keys, scan=scan)) for scan in (False, True)]
    gate.release.set()
    assert await asyncio.gather(*reads) == [{"gate"}, {"gate"}]
    await writing


async def test_a_database_in_memory_is_private_to_its_engine(opened: Open) -> None:
    first, second = await opened(":memory:"), await opened("file::memory:")
    await first.write(put("a"))
    assert (await first.read(keys), await second.read(keys)) == ({"a"}, set())
    assert (first.target.memory, first.target.key) == (True, None)


async def test_a_bad_read_fails_alone_and_cannot_write(opened: Open) -> None:
    engine = await opened()
    await engine.write(put("a"))
    results = await asyncio.gather(
        engine.read(keys),
        engine.read(lambda c: c.execute("SELECT * FROM nowhere")),
        engine.read(put("b")),
        engine.read(keys),
        return_exceptions=True,
    )
    assert (results[0], results[3]) == ({"a"}, {"a"})
    assert [type(result) for result in results[1:3]] == [OperationFailedError, StorageError]
    assert "nowhere" not in str(results[1])
