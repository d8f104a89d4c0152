"""The SQLite engine ends well: cancelled calls, close, fork and a lost engine harm nobody and leave no thread."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sqlite_engine_support import Gate, Open, create, engine_threads, keys, put, until
from tests.unit.sqlite_engine_support import opened as opened

from lapel.coalesce import was_sent
from lapel.errors import ClosedError, LapelError, UnavailableError, WrongLoopError
from lapel_contrib.sqlite.connection import SqliteOptions
from lapel_contrib.sqlite.engine import SqliteEngine

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


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
