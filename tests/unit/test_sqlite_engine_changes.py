"""Whoever waits for a change of a SQLite database is told of every commit, whoever made it."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sqlite_engine_support import Open, keys, put
from tests.unit.sqlite_engine_support import foreign as foreign
from tests.unit.sqlite_engine_support import opened as opened

from lapel.errors import ClosedError


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
