"""What SQLite's result codes mean to a caller."""

from __future__ import annotations

import sqlite3

from lapel.errors import (
    InvalidArgumentError,
    LapelError,
    OperationFailedError,
    StorageError,
    UnavailableError,
)

__all__ = ["is_busy", "location", "translate"]

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_STORAGE = {
    sqlite3.SQLITE_FULL: "the disk, quota or page limit is full; free some space",
    sqlite3.SQLITE_READONLY: "it is read-only; allow this user to write the file and its directory, or drop mode=ro",
    sqlite3.SQLITE_PERM: "access is not permitted; allow this user to read and write the file and its directory",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a backup, or look at it with PRAGMA integrity_check",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database, or is encrypted; check the path",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its directory exists and that this user may write there",
    sqlite3.SQLITE_IOERR: "the disk reported an input or output error; check the disk and the system log",
    sqlite3.SQLITE_NOLFS: "the file would be larger than the file system allows; move it to another one",
}


def location(path: str | None) -> str:
    """Name the database in an error text; None is the one in memory."""
    return f"database {path!r}" if path is not None else "in-memory database"


def is_busy(exc: sqlite3.Error) -> bool:
    """Tell whether another connection or process held the lock, so that waiting may help."""
    return _primary(exc) in _BUSY


def translate(exc: sqlite3.Error, *, path: str | None, action: str = "write") -> LapelError:
    """Choose the error of lapel for an error of `sqlite3`; the caller chains it with `from exc`.

    `path` names the file (None: in memory), `action` is the verb of the text. The text holds SQLite's name for the
    code, never SQLite's message, which may quote the statement. A code that no class describes is
    `OperationFailedError`.
    """
    code = _primary(exc)
    name = getattr(exc, "sqlite_errorname", None) or type(exc).__name__
    start = f"cannot {action}, {location(path)}: "
    if code in _STORAGE:
        return StorageError(f"{start}{_STORAGE[code]} ({name})")
    if code in _BUSY:
        return UnavailableError(
            f"{start}another connection or process holds its lock; nothing was done. Try again, raise busyTimeout, or "
            f"look for a long transaction ({name})"
        )
    if code == sqlite3.SQLITE_INTERRUPT:
        return UnavailableError(f"{start}interrupted before it was done; nothing was done ({name})")
    if code == sqlite3.SQLITE_TOOBIG:
        return InvalidArgumentError(f"{start}a key or value is larger than SQLite can hold ({name})")
    return OperationFailedError(f"{start}SQLite refused it ({name})")


def _primary(exc: sqlite3.Error) -> int | None:
    code = getattr(exc, "sqlite_errorcode", None)  # absent when the module itself raised, without asking SQLite
    return code & 0xFF if isinstance(code, int) else None
