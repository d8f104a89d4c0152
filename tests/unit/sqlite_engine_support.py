"""Engines on a file that a test can look at from outside, and functions to run on them."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lapel_contrib.sqlite.connection import SqliteOptions
from lapel_contrib.sqlite.engine import SqliteEngine

Open = Callable[..., Awaitable[SqliteEngine]]


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
