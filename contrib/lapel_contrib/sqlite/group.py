"""Writes of many callers in one transaction, reads of many callers in one snapshot. Runs on the threads."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from typing import Any, NamedTuple

from lapel.errors import ClosedError, LapelError, StorageError, UnavailableError

from .errors import is_busy, location, translate

__all__ = ["Call", "Write", "WriteGroup", "read_group"]

Call = Callable[[sqlite3.Connection], Any]


class _SpoiledError(Exception):
    """The transaction no longer holds exactly the work of the operations that succeeded."""


class Write(NamedTuple):
    """One operation of a group; `single` as in `SqliteEngine.write`."""

    fn: Call
    single: bool


class WriteGroup:
    """Applies groups of writes, each in one transaction with one commit.

    An operation alone in its group needs no savepoint, nor does one that declares to be `single`; the others get one
    each. Where SQLite has given up the whole transaction because of one operation, or a `single` one failed half-way,
    everything is rolled back and the operations run again, a transaction each, so that only the bad one fails.
    """

    def __init__(self, *, path: str | None, begin: str, busy_timeout: float) -> None:
        self._path = path
        self._begin_statement = begin
        self._busy_timeout = busy_timeout
        self.stop = threading.Event()
        """Set to end the wait for another process's lock."""

    def run(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> tuple[list[Any], bool]:
        """Return the results, with an exception for each that failed, and whether anything changed.

        Raises the error that concerns the whole group; then nothing was written.
        """
        before = connection.total_changes
        results = [self._alone(connection, writes[0])] if len(writes) == 1 else self._together(connection, writes)
        return results, connection.total_changes != before

    def _together(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> list[Any]:
        self._begin(connection)
        try:
            results = self._apply(connection, writes)
            self._commit(connection)
            return results
        except (StorageError, UnavailableError):
            _rollback(connection)
            raise
        except (_SpoiledError, LapelError, sqlite3.Error):
            _rollback(connection)
        except BaseException:
            _rollback(connection)
            raise
        return self._one_by_one(connection, writes)

    def _one_by_one(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> list[Any]:
        if self.stop.is_set():
            raise ClosedError(f"closed while a transaction was under way, {location(self._path)}; nothing was written")
        results: list[Any] = []
        refused: LapelError | None = None
        for write in writes:
            if refused is not None:
                results.append(copy(refused))
                continue
            try:
                results.append(self._alone(connection, write))
            except LapelError as exc:
                results.append(exc)
                if isinstance(exc, UnavailableError):
                    refused = exc  # waiting for the lock once is enough for all of them
        return results

    def _apply(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> list[Any]:
        results: list[Any] = []
        execute = connection.execute
        for fn, single in writes:
            if single:
                before = connection.total_changes
                try:
                    results.append(fn(connection))
                except BaseException as exc:
                    if not connection.in_transaction or connection.total_changes != before:
                        raise _SpoiledError from exc
                    results.append(self._refusal(exc))
                else:
                    self._check_open(connection)
                continue
            execute("SAVEPOINT lapel")
            try:
                results.append(fn(connection))
            except BaseException as exc:
                if not connection.in_transaction:
                    raise _SpoiledError from exc
                execute("ROLLBACK TO lapel")
                results.append(self._refusal(exc))
            else:
                self._check_open(connection)
            execute("RELEASE lapel")
        return results

    def _alone(self, connection: sqlite3.Connection, write: Write) -> Any:
        self._begin(connection)
        try:
            result = write.fn(connection)
        except BaseException as exc:
            _rollback(connection)
            return self._refusal(exc)
        self._check_open(connection)
        self._commit(connection)
        return result

    def _check_open(self, connection: sqlite3.Connection) -> None:
        if not connection.in_transaction:
            raise RuntimeError("a function given to SqliteEngine.write ended the transaction that it was called in")

    def _refusal(self, exc: BaseException) -> BaseException:
        return _chained(exc, self._path, "write") if isinstance(exc, sqlite3.Error) else exc

    def _begin(self, connection: sqlite3.Connection) -> None:
        _rollback(connection)  # only where an earlier rollback failed too
        self._patiently(connection, self._begin_statement)

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            self._patiently(connection, "COMMIT")
        except LapelError:
            _rollback(connection)
            raise

    def _patiently(self, connection: sqlite3.Connection, statement: str) -> None:
        until = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.execute(statement)
                return
            except sqlite3.Error as exc:
                if not is_busy(exc) or time.monotonic() >= until or self.stop.wait(0.001):
                    raise _chained(exc, self._path, "write") from exc


def read_group(connection: sqlite3.Connection, calls: Sequence[Call], path: str | None) -> list[Any]:
    """Call each with the connection, all in one read transaction; an exception for each that failed."""
    results: list[Any] = []
    try:
        connection.execute("BEGIN")
    except sqlite3.Error as exc:
        raise translate(exc, path=path, action="read") from exc
    for fn in calls:
        try:
            results.append(fn(connection))
        except sqlite3.Error as exc:
            results.append(_chained(exc, path, "read"))
        except BaseException as exc:
            results.append(exc)
    _rollback(connection)
    return results


def _rollback(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _chained(exc: sqlite3.Error, path: str | None, action: str) -> LapelError:
    error = translate(exc, path=path, action=action)
    error.__cause__ = exc
    return error
