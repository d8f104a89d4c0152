"""Create and check the tables of the components that keep one table each."""

from __future__ import annotations

import sqlite3

from lapel.errors import StorageError

from .engine import SqliteEngine

__all__ = ["prepare_table"]


async def prepare_table(engine: SqliteEngine, table: str, definition: str, columns: frozenset[str]) -> None:
    """Create `table` from `definition` where it is missing and the database can be written.

    Raises `StorageError` when it is missing in a read-only database, or lacks one of `columns`.
    """

    def prepare(connection: sqlite3.Connection) -> None:
        if not engine.read_only:
            connection.execute(definition)
        rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
        if not rows:
            raise StorageError(f"the database has no table {table!r} and is read-only; correct tableName or the path")
        missing = columns - {name for (name,) in rows}
        if missing:
            raise StorageError(
                f"table {table!r} exists and is another one: it has no column {', '.join(sorted(missing))}; "
                "choose another tableName"
            )

    if engine.read_only:
        await engine.read(prepare)
    else:
        await engine.write(prepare)
