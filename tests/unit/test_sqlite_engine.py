"""What drivers on the SQLite engine may rely on."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sqlite3
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lapel.coalesce import was_sent
from lapel.errors import (
    ClosedError,
    ConfigurationError,
    EtagMismatchError,
    InvalidArgumentError,
    LapelError,
    OperationFailedError,
    StorageError,
    UnavailableError,
    WrongLoopError,
)
from lapel_contrib.sqlite import connection as connection_module
from lapel_contrib.sqlite.connection import (
    SqliteOptions,
    filesystem_type,
    network_filesystem,
    parse_connection_string,
)
from lapel_contrib.sqlite.engine import SqliteEngine
from lapel_contrib.sqlite.errors import translate
from lapel_contrib.sqlite.group import Write, WriteGroup

Open = Callable[..., Awaitable[SqliteEngine]]
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def put(key: str, value: str = "v") -> Callable[[sqlite3.Connection], str]:
    def write(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT OR REPLACE INTO item VALUES (?, ?)", (key, value))
        return key

    return write


def keys(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT key FROM item")}


def create(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS item (key TEXT PRIMARY KEY, value TEXT)")


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lapel-sqlite")]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Open engines on `items.db` with a table; all are closed, and their threads gone, after the test."""
    engines: list[SqliteEngine] = []

    async def open_engine(text: str | None = None, **options: Any) -> SqliteEngine:
        engine = await SqliteEngine.open(SqliteOptions(connection_string=text or str(tmp_path / "items.db"), **options))
        engines.append(engine)
        if not engine.read_only:
            await engine.write(create)
        return engine

    yield open_engine
    for engine in engines:
        await engine.close()
    assert engine_threads() == []


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[[], sqlite3.Connection]:
    return lambda: sqlite3.connect(tmp_path / "items.db", isolation_level=None, timeout=5, check_same_thread=False)


class Gate:
    """A write that holds its transaction open until `release` is set."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> None:
        put("gate")(connection)
        self.entered.set()
        self.release.wait(20)


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


async def test_cancelled_open_leaves_nothing_open(tmp_path: Path) -> None:
    for turns in range(6):
        opening = asyncio.ensure_future(SqliteEngine.open(SqliteOptions(connection_string=str(tmp_path / "items.db"))))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        done, _ = await asyncio.wait({opening})
        if not done.pop().cancelled():
            await opening.result().close()
    await until(lambda: engine_threads() == [])


async def test_callers_cancelled_at_random_never_harm_the_others(opened: Open) -> None:
    engine = await opened(max_group_items=16)
    chance = random.Random(7)
    unsent: set[str] = set()

    async def caller(key: str) -> str:
        try:
            return await engine.write(put(key), single=chance.random() < 0.5)
        except asyncio.CancelledError as exc:
            if not was_sent(exc):
                unsent.add(key)
            raise

    for burst in range(20):
        tasks = [asyncio.ensure_future(caller(f"{burst}-{n}")) for n in range(50)]
        reads = [asyncio.ensure_future(engine.read(keys)) for _ in range(5)]
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 20) + reads[:2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*reads, return_exceptions=True)
        stored = await engine.read(keys)
        for n, result in enumerate(results):
            assert result == f"{burst}-{n}" or isinstance(result, asyncio.CancelledError)
            assert isinstance(result, asyncio.CancelledError) or f"{burst}-{n}" in stored
        assert not unsent & stored
    assert unsent


async def test_a_cancelled_scan_gives_its_thread_back(opened: Open) -> None:
    engine = await opened()
    for _ in range(3):
        scans = [asyncio.ensure_future(engine.read(lambda c: c.execute(ENDLESS).fetchone(), scan=True)) for _ in "ab"]
        await until(lambda: sum(worker._slot.job is not None for worker in engine._scanners) == 2)
        assert await engine.read(keys) == set()
        for scan in scans:
            scan.cancel()
        await asyncio.wait(scans)
        assert await engine.read(keys, scan=True) == set()


async def test_close_under_load_answers_everybody_and_leaves_no_thread(opened: Open, tmp_path: Path) -> None:
    engine = await opened()

    async def caller(name: int) -> int:
        count = 0
        while True:
            try:
                await engine.write(put(f"{name}-{count}"))
                await engine.read(keys, scan=count % 3 == 0)
            except ClosedError:
                return count
            count += 1

    callers = [asyncio.ensure_future(caller(name)) for name in range(20)]
    await until(lambda: engine.version() > 5)
    await asyncio.gather(engine.close(), engine.close())
    counts = await asyncio.gather(*callers)
    assert sum(counts) > 0
    assert (engine_threads(), engine.closed) == ([], True)
    assert [path.name for path in tmp_path.iterdir()] == ["items.db"]
    with pytest.raises(ClosedError):
        await engine.wait_for_change(0, 1)


async def test_close_interrupts_what_does_not_end(opened: Open) -> None:
    engine = await opened()

    def endless(connection: sqlite3.Connection) -> None:
        put("half")(connection)
        connection.execute(f"INSERT INTO item SELECT i, i FROM ({ENDLESS.replace('count(*)', 'i')})")

    calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(engine.write(fn)) for fn in (put("a"), endless)]
    calls.append(asyncio.ensure_future(engine.read(lambda c: c.execute(ENDLESS).fetchone(), scan=True)))
    await until(lambda: engine._writer._slot.job is not None and any(w._slot.job for w in engine._scanners))
    await engine.close(deadline=2)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [ClosedError, ClosedError, UnavailableError]
    assert engine_threads() == []
    engine = await opened()
    assert await engine.read(keys) == set()


async def test_close_returns_although_a_thread_is_held_up(opened: Open) -> None:
    engine = await opened()
    gate = Gate()
    writing = asyncio.ensure_future(engine.write(gate))
    await until(gate.entered.is_set)
    await engine.close(deadline=0.05)
    with pytest.raises(LapelError) as caught:
        await writing
    assert was_sent(caught.value)
    gate.release.set()
    await until(lambda: engine_threads() == [])


async def test_a_forgotten_engine_ends_its_threads(tmp_path: Path) -> None:
    engine = await SqliteEngine.open(SqliteOptions(connection_string=str(tmp_path / "items.db")))
    await engine.write(create)
    await engine.read(keys)
    assert len(engine_threads()) == 2
    del engine
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    await until(lambda: engine_threads() == [])


async def test_a_forked_child_is_refused(opened: Open) -> None:
    engine = await opened()
    calls: list[Callable[[], Any]] = [
        lambda: engine.write(put("a")),
        lambda: engine.read(keys),
        lambda: engine.wait_for_change(0, 1),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            refused = 0
            for call in calls:
                try:
                    call().send(None)
                except WrongLoopError as exc:
                    refused += "after fork" in str(exc)
            try:
                engine.close().send(None)
            except StopIteration:
                refused += 1
            status = 0 if refused == 4 else 2
        finally:
            os._exit(status)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert await engine.write(put("a")) == "a"


def test_another_loop_is_refused(tmp_path: Path) -> None:
    async def begin() -> SqliteEngine:
        engine = await SqliteEngine.open(SqliteOptions(connection_string=str(tmp_path / "items.db")))
        await engine.write(create)
        return engine

    async def use(engine: SqliteEngine) -> None:
        for call in (engine.write(create), engine.read(keys), engine.wait_for_change(0, 1)):
            with pytest.raises(WrongLoopError):
                await call
        await engine.close()
        await until(lambda: engine_threads() == [])

    asyncio.run(use(asyncio.run(begin())))


async def test_a_commit_of_this_engine_is_noticed_at_once(opened: Open) -> None:
    engine = await opened()
    seen = engine.version()
    waiting = [asyncio.ensure_future(engine.wait_for_change(seen, 30)) for _ in range(3)]
    await asyncio.sleep(0)
    await engine.write(put("a"))
    assert await asyncio.gather(*waiting) == [seen + 1] * 3
    assert await engine.wait_for_change(seen, 30) == seen + 1


async def test_only_what_changed_something_counts_as_a_change(opened: Open) -> None:
    engine = await opened()
    seen = engine.version()
    await engine.write(lambda c: c.execute("DELETE FROM item WHERE key = 'none'").close())
    await engine.read(keys)
    assert await engine.wait_for_change(seen, 0.06) == seen


@pytest.mark.parametrize("options", [{}, {"disable_wal": True}])
async def test_a_commit_of_another_process_is_noticed(opened: Open, tmp_path: Path, options: dict[str, Any]) -> None:
    engine = await opened(**options)
    script = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)\n"
        "for line in sys.stdin:\n"
        "    connection.execute('INSERT INTO item VALUES (?, 1)', (line.strip(),))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "items.db"), stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    for name in ("a", "b"):
        seen = engine.version()
        waiting = asyncio.ensure_future(engine.wait_for_change(seen, 30))
        await asyncio.sleep(0)
        process.stdin.write(f"{name}\n".encode())
        assert await waiting > seen
        assert name in await engine.read(keys)
    process.stdin.close()
    assert await process.wait() == 0


async def test_a_foreign_commit_while_nobody_waited_is_noticed_by_the_next_wait(
    opened: Open, foreign: Callable[[], sqlite3.Connection]
) -> None:
    engine = await opened()
    seen = engine.version()
    with closing(foreign()) as other:
        put("a")(other)
    assert await engine.wait_for_change(seen, 30) > seen


async def test_waiting_for_a_change_ends_at_its_timeout_at_close_and_when_cancelled(opened: Open) -> None:
    engine = await opened()
    seen = engine.version()
    assert await engine.wait_for_change(seen, 0.01) == seen
    assert await engine.wait_for_change(seen, 0) == seen
    waiting, cancelled = (asyncio.ensure_future(engine.wait_for_change(seen, 30)) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    await engine.close()
    with pytest.raises(ClosedError):
        await waiting


async def test_two_engines_on_one_file_see_each_other(opened: Open) -> None:
    first, second = await opened(), await opened(synchronous="NORMAL")
    assert first.target.key == second.target.key
    seen = second.version()
    writes = [engine.write(put(f"{name}{n}")) for n in range(30) for name, engine in (("a", first), ("b", second))]
    await asyncio.gather(*writes)
    assert await second.wait_for_change(seen, 30) > seen
    assert len(await first.read(keys)) == 60


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
