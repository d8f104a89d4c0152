"""Rows of state.sqlite: statements, and items to and from columns."""

from __future__ import annotations

import binascii
import os
import sqlite3
import time
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil

from lapel.errors import EtagMismatchError, StorageError
from lapel.jsontext import is_json
from lapel.state.types import DeleteRequest, IfMatch, SetRequest, StateItem

__all__ = ["LIVE", "Etags", "Rows", "StoredRow", "item_of", "utc_text"]

LIVE = "(expiration_time IS NULL OR expiration_time > ?)"
"""Takes `utc_text` of now."""

StoredRow = tuple[bytes, int, str, str | None]
"""Value, is_binary, etag, expiration_time."""

_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


@lru_cache(maxsize=16)
def utc_text(seconds: int) -> str:
    """Write whole seconds since the epoch the way the tables hold times."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


class Etags:
    """Makes version 4 UUIDs, as text, from the system's random numbers; faster than `uuid.uuid4`."""

    def __init__(self) -> None:
        self._digits = ""
        self._next = 0

    def new(self) -> str:
        """Return one that never was before."""
        start = self._next
        if start >= len(self._digits):
            self._digits = os.urandom(16 * 256).hex()
            start = 0
        self._next = start + 32
        digits = self._digits[start : start + 32]
        variant = _VARIANT[digits[16]]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Rows:
    """Reads and writes single rows of one table. Runs on the engine's threads, inside its transactions.

    A lifetime is rounded up to the next whole second of the clock: the column has no fractions, and an item must not
    go before its time. So it lives up to a second longer. The connection is the last parameter of every method, so
    that `functools.partial` makes them what the engine takes.
    """

    def __init__(self, table: str) -> None:
        columns = "(key, value, is_binary, etag, expiration_time, update_time) VALUES (?, ?, ?, ?, ?, ?)"
        changes = ", ".join(
            f"{name} = excluded.{name}" for name in ("value", "is_binary", "etag", "expiration_time", "update_time")
        )
        fields = "CAST(value AS BLOB), is_binary, etag, expiration_time"
        # The name comes from settings that allow letters, digits and underscores only.
        upsert = f'INSERT INTO "{table}" {columns} ON CONFLICT (key) DO UPDATE SET {changes}'
        self._get = f'SELECT {fields} FROM "{table}" WHERE key = ? AND {LIVE}'  # noqa: S608  # as above
        self._set = upsert
        self._create = f"{upsert} WHERE expiration_time <= ?"
        self._replace = (
            f'UPDATE "{table}" SET value = ?, is_binary = ?, etag = ?, expiration_time = ?, update_time = ? '  # noqa: S608  # as above
            f"WHERE key = ? AND etag = ? AND {LIVE}"
        )
        self._delete = f'DELETE FROM "{table}" WHERE key = ?'  # noqa: S608  # as above
        self._delete_match = f"{self._delete} AND etag = ? AND {LIVE}"

    def get(self, key: str, connection: sqlite3.Connection) -> StateItem | None:
        """Read a live row."""
        row = connection.execute(self._get, (key, utc_text(int(time.time())))).fetchone()
        return None if row is None else item_of(row)

    def set(self, request: SetRequest, etag: str, connection: sqlite3.Connection) -> str:
        """Write a row with one statement and return its etag. Raises `EtagMismatchError` with nothing changed."""
        value, binary = _columns_of(request)
        clock = time.time()
        now = utc_text(int(clock))
        ends = None if request.ttl is None else utc_text(ceil(clock + request.ttl))
        precondition = request.precondition
        if precondition is None:
            connection.execute(self._set, (request.key, value, binary, etag, ends, now))
        elif isinstance(precondition, IfMatch):
            parameters = (value, binary, etag, ends, now, request.key, precondition.etag, now)
            if connection.execute(self._replace, parameters).rowcount != 1:
                raise _mismatch()
        elif connection.execute(self._create, (request.key, value, binary, etag, ends, now, now)).rowcount != 1:
            raise EtagMismatchError("the key exists already, and first-write without an etag only creates")
        return etag

    def delete(self, request: DeleteRequest, connection: sqlite3.Connection) -> None:
        """Remove a row with one statement. Raises `EtagMismatchError` with nothing changed."""
        if request.precondition is None:
            connection.execute(self._delete, (request.key,))
            return
        parameters = (request.key, request.precondition.etag, utc_text(int(time.time())))
        if connection.execute(self._delete_match, parameters).rowcount != 1:
            raise _mismatch()


def item_of(row: StoredRow) -> StateItem:
    """Turn columns into an item. Raises `StorageError` for what neither this driver nor a sidecar writes."""
    value, binary, etag, ends = row
    if binary:
        try:
            value = binascii.a2b_base64(value)
        except binascii.Error:
            raise StorageError("a row is marked as binary, and its value is not base64; repair or remove it") from None
    return StateItem(data=value, etag=etag, expires_at=None if ends is None else _time_of(ends))


def _time_of(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise StorageError("a row's expiration_time is not a time; repair or remove it") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _columns_of(request: SetRequest) -> tuple[str, bool]:
    if is_json(request.content_type):
        try:
            return request.value.decode(), False
        except UnicodeDecodeError:
            pass
    return binascii.b2a_base64(request.value, newline=False).decode(), True


def _mismatch() -> EtagMismatchError:
    return EtagMismatchError("the item has been written or removed since the etag given was read")
