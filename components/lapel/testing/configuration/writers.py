"""Ways to change what configuration stores read, for the suite."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from ...configuration import ConfigurationItem

__all__ = ["ConfigurationWriter", "FileWriter", "SqliteWriter"]


class ConfigurationWriter(ABC):
    """Changes the items of one store from outside. Built with the settings of the driver, anew for each test.

    The methods may block: no test measures time while they run.
    """

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def put(self, items: Mapping[str, ConfigurationItem]) -> None:
        """Add or change items.

        Also called before the component was ever opened, and then has to make the store usable.
        """

    @abstractmethod
    def remove(self, keys: Iterable[str]) -> None:
        """Remove items, those that are not there too."""


class FileWriter(ConfigurationWriter):
    """Writes the YAML file of the setting `path`, always by renaming."""

    def put(self, items: Mapping[str, ConfigurationItem]) -> None:
        entries = {
            key: {"value": item.value, "version": item.version, "metadata": dict(item.metadata)}
            for key, item in items.items()
        }
        self._write({**self._read(), **entries})

    def remove(self, keys: Iterable[str]) -> None:
        gone = set(keys)
        self._write({key: entry for key, entry in self._read().items() if key not in gone})

    @property
    def _path(self) -> Path:
        path: Path = self.settings.path
        return path

    def _read(self) -> dict[str, Any]:
        data: dict[str, Any] = yaml.safe_load(self._path.read_text("utf-8")) if self._path.exists() else {}
        return data

    def _write(self, data: dict[str, Any]) -> None:
        other = self._path.with_name(f"{self._path.name}.new")
        other.write_text(yaml.safe_dump(data, allow_unicode=True), "utf-8")
        other.replace(self._path)


class SqliteWriter(ConfigurationWriter):
    """Writes the table of the settings `connectionString` and `tableName`, through a connection of its own."""

    def put(self, items: Mapping[str, ConfigurationItem]) -> None:
        rows = [(key, item.value, item.version, json.dumps(dict(item.metadata))) for key, item in items.items()]
        self._execute(f"INSERT OR REPLACE INTO {self._table} (key, value, version, metadata) VALUES (?, ?, ?, ?)", rows)  # noqa: S608  # the name is checked by the settings

    def remove(self, keys: Iterable[str]) -> None:
        self._execute(f"DELETE FROM {self._table} WHERE key = ?", [(key,) for key in keys])  # noqa: S608  # as above

    @property
    def _table(self) -> str:
        return f'"{self.settings.table_name}"'

    def _execute(self, sql: str, rows: list[Any]) -> None:
        with closing(sqlite3.connect(self.settings.connection_string, timeout=20)) as connection, connection:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, "
                "version TEXT NOT NULL DEFAULT '', metadata TEXT NOT NULL DEFAULT '{}')"
            )
            connection.executemany(sql, rows)
