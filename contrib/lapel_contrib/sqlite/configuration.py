"""configuration.sqlite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from lapel.configuration import (
    ConfigurationDriver,
    ConfigurationItem,
    GetConfigurationRequest,
    Watcher,
    WatchRequest,
)
from lapel.driver import DriverContext
from lapel.errors import ClosedError, OperationFailedError

from . import CONFIGURATION
from .engine import SqliteEngine
from .settings import SqliteConfigurationSettings
from .sharing import EngineLease
from .tables import prepare_table

__all__ = ["SqliteConfiguration"]

WAIT_SECONDS = 60.0
BATCH = 500
"""Keys looked up by one statement; SQLite allows 999 parameters in old versions."""

_COLUMNS = frozenset({"key", "metadata", "value", "version"})

T = TypeVar("T")


class SqliteConfiguration(ConfigurationDriver[SqliteConfigurationSettings]):
    """Keeps items in one table of a SQLite file; operators write to it with any SQLite program.

    Columns, all text: `key`, `value`, `version`, and `metadata`, a JSON object of texts; null in the last three counts
    as empty. A row that does not fit makes the call fail with `OperationFailedError`, which names the key.
    Changes are noticed whoever makes them. `unwrap(SqliteEngine)` gives the engine.
    """

    descriptor = CONFIGURATION

    def __init__(self, settings: SqliteConfigurationSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = EngineLease(settings.options(), context.shared)
        self._engine: SqliteEngine | None = None
        # The name is checked by the settings.
        self._create = (
            f'CREATE TABLE IF NOT EXISTS "{settings.table_name}" (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, '
            "version TEXT NOT NULL DEFAULT '', metadata TEXT NOT NULL DEFAULT '{}')"
        )
        self._select = f'SELECT key, value, version, metadata FROM "{settings.table_name}"'  # noqa: S608  # as above

    @property
    def call_timeout(self) -> float | None:
        return self.settings.timeout.total_seconds()

    async def open(self) -> None:
        engine = await self._lease.acquire()
        await prepare_table(engine, self.settings.table_name, self._create, _COLUMNS)
        self._engine = engine

    async def close(self) -> None:
        self._engine = None
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().read(
            lambda connection: connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        )

    def unwrap(self, kind: type[T]) -> T:
        return cast("T", self._engine) if kind is SqliteEngine and self._engine is not None else super().unwrap(kind)

    async def get(self, request: GetConfigurationRequest) -> Mapping[str, ConfigurationItem]:
        keys = request.keys

        def select(connection: sqlite3.Connection) -> dict[str, ConfigurationItem]:
            if not keys:
                return _items(connection.execute(self._select).fetchall())
            found: dict[str, ConfigurationItem] = {}
            for start in range(0, len(keys), BATCH):
                batch = keys[start : start + BATCH]
                marks = ", ".join("?" * len(batch))
                found.update(_items(connection.execute(f"{self._select} WHERE key IN ({marks})", batch).fetchall()))
            return found

        return await self._opened().read(select, scan=not keys or len(keys) > BATCH)

    async def watch(self, request: WatchRequest) -> Watcher:
        return _SqliteWatcher(self._opened())

    def _opened(self) -> SqliteEngine:
        if self._engine is None:
            raise ClosedError("the driver is not open")
        return self._engine


class _SqliteWatcher(Watcher):
    def __init__(self, engine: SqliteEngine) -> None:
        self._engine = engine
        self._seen = engine.version()

    async def changed(self) -> None:
        before = self._seen
        while self._seen == before:
            self._seen = await self._engine.wait_for_change(before, WAIT_SECONDS)

    async def close(self) -> None:
        pass


def _items(rows: Iterable[tuple[Any, ...]]) -> dict[str, ConfigurationItem]:
    return {key: _item(key, *rest) for key, *rest in rows}


def _item(key: Any, value: Any, version: Any, metadata: Any) -> ConfigurationItem:
    texts = (key, "" if value is None else value, "" if version is None else version)
    if not all(isinstance(text, str) for text in texts):
        raise OperationFailedError(f"the row of key {key!r} holds something else than text; write it as text")
    pairs: Any = {}
    if metadata:
        try:
            pairs = json.loads(metadata)
        except (TypeError, ValueError):
            pairs = None
        if not isinstance(pairs, dict) or not all(isinstance(text, str) for text in pairs.values()):
            raise OperationFailedError(f"the metadata of key {key!r} is not a JSON object of texts; correct that row")
    return ConfigurationItem(texts[1], texts[2], pairs)
