"""The tables of state.sqlite: Dapr's, column by column, so that a sidecar can open the same file.

Table `state`: `key` TEXT, `value` TEXT, `is_binary` BOOLEAN, `etag` TEXT, `expiration_time` TIMESTAMP or null,
`update_time` TIMESTAMP. Table `metadata`: `key`, `value`, with the rows `migrations` (the level, 1) and `last-cleanup`.
Times are `YYYY-MM-DD HH:MM:SS` in UTC; a row is live while `expiration_time` is null or later than now.
"""

from __future__ import annotations

import sqlite3

from lapel.errors import StorageError

__all__ = ["LEVEL", "check_schema", "migrate"]

LEVEL = 1
"""The level of the layout that this driver reads and writes."""

_COLUMNS = ("key", "value", "is_binary", "etag", "expiration_time", "update_time")
_STATE = """
CREATE TABLE IF NOT EXISTS "{}" (
  key TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL,
  is_binary BOOLEAN NOT NULL,
  etag TEXT NOT NULL,
  expiration_time TIMESTAMP DEFAULT NULL,
  update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
)
"""
_METADATA = 'CREATE TABLE IF NOT EXISTS "{}" (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)'


def migrate(connection: sqlite3.Connection, table: str, metadata_table: str) -> None:
    """Create what is missing, inside the caller's transaction. Raises `StorageError` for a layout not known here."""
    connection.execute(_METADATA.format(metadata_table))
    _check_level(connection, metadata_table)
    connection.execute(_STATE.format(table))
    _check_columns(connection, table)
    connection.execute(
        f"INSERT INTO \"{metadata_table}\" (key, value) VALUES ('migrations', ?) ON CONFLICT (key) DO NOTHING",  # noqa: S608  # the name is checked by the settings
        (str(LEVEL),),
    )


def check_schema(connection: sqlite3.Connection, table: str, metadata_table: str) -> None:
    """Check a database that cannot be written. Raises `StorageError` when its tables are missing or not known here."""
    if not _columns(connection, table):
        raise StorageError(f"the database has no table {table!r} and is read-only; correct tableName or the path")
    _check_columns(connection, table)
    if _columns(connection, metadata_table):
        _check_level(connection, metadata_table)


def _check_level(connection: sqlite3.Connection, metadata_table: str) -> None:
    row = connection.execute(
        f"SELECT value FROM \"{metadata_table}\" WHERE key = 'migrations'"  # noqa: S608  # as above
    ).fetchone()
    if row is not None and row[0] != str(LEVEL):
        raise StorageError(
            f"table {metadata_table!r} says that the layout has level {row[0]!r}; this version knows level {LEVEL}. "
            "Use a newer version, or another file"
        )


def _check_columns(connection: sqlite3.Connection, table: str) -> None:
    if _columns(connection, table) != _COLUMNS:
        raise StorageError(f"table {table!r} exists and has other columns than a state store; choose another tableName")


def _columns(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    return tuple(name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall())
