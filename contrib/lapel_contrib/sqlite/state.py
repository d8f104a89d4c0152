"""state.sqlite."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, cast

from lapel.driver import DriverContext
from lapel.errors import LapelError
from lapel.state.driver import StateDriver
from lapel.state.like import Wildcard, parse_like
from lapel.state.types import (
    DeletePrefixRequest,
    DeleteRequest,
    GetRequest,
    KeysPage,
    KeysRequest,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateItem,
    TransactionRequest,
)

from . import STATE
from .engine import SqliteEngine
from .errors import translate
from .settings import SqliteStateSettings
from .sharing import EngineLease
from .state_query import QueryStatement, glob_of
from .state_rows import LIVE, Etags, Rows, utc_text
from .state_schema import check_schema, migrate

__all__ = ["SqliteState"]

SWEEP_ROWS = 500
"""Most expired rows removed in one transaction."""
POINT_READS = 100
"""A bulk of more keys goes to the threads for long reads."""
TIDY = 0.1
"""How much earlier than the interval, in seconds, a sweep may come, so that timers that run early do not skip one."""

R = TypeVar("R", SetRequest, DeleteRequest)
T = TypeVar("T")


class SqliteState(StateDriver[SqliteStateSettings]):
    """Keeps items in one table of a SQLite file, laid out as Dapr's, so that a sidecar can use the same file.

    Writes of concurrent callers share a transaction and its sync to the disk. A value written as `application/json`
    is stored as text, any other as base64; both come back byte for byte, the content type does not. Queries see the
    former. Lifetimes are rounded up to whole seconds of the wall clock. `unwrap(SqliteEngine)` gives the engine.
    """

    descriptor = STATE

    def __init__(self, settings: SqliteStateSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = EngineLease(settings.options(), context.shared)
        self._engine: SqliteEngine | None = None
        self._table = settings.table_name
        self._rows = Rows(settings.table_name)
        self._new_etag = Etags().new
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def call_timeout(self) -> float | None:
        return self.settings.timeout.total_seconds()

    async def open(self) -> None:
        engine = await self._lease.acquire()
        tables = (self.settings.table_name, self.settings.metadata_table_name)
        if engine.read_only:
            await engine.read(lambda connection: check_schema(connection, *tables))
        else:
            await engine.write(lambda connection: migrate(connection, *tables))
            interval = self.settings.cleanup_interval.total_seconds()
            if interval > 0:
                name = f"lapel sweep {self.context.component}"
                self._sweeper = asyncio.create_task(self._sweep_forever(interval), name=name)
        self._engine = engine

    async def close(self) -> None:
        self._engine = None
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait({self._sweeper})
            self._sweeper = None
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().read(
            lambda connection: connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        )

    def unwrap(self, kind: type[T]) -> T:
        return cast("T", self._engine) if kind is SqliteEngine and self._engine is not None else super().unwrap(kind)

    async def get(self, request: GetRequest) -> StateItem | None:
        return await self._opened().read(partial(self._rows.get, request.key))

    async def set(self, request: SetRequest) -> str | None:
        write = partial(self._rows.set, request, self._new_etag())
        return await self._opened().write(write, single=True, size=len(request.value))

    async def delete(self, request: DeleteRequest) -> None:
        await self._opened().write(partial(self._rows.delete, request), single=True)

    async def bulk_get(self, requests: Sequence[GetRequest]) -> Sequence[StateItem | LapelError | None]:
        keys = [request.key for request in requests]

        def read(connection: sqlite3.Connection) -> list[StateItem | LapelError | None]:
            return [self._attempt(connection, partial(self._rows.get, key), "read") for key in keys]

        return await self._opened().read(read, scan=len(keys) > POINT_READS)

    async def bulk_set(self, requests: Sequence[SetRequest]) -> Sequence[str | LapelError | None]:
        writes = [partial(self._rows.set, request, self._new_etag()) for request in requests]
        return await self._write_all(writes, sum(len(request.value) for request in requests))

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> Sequence[LapelError | None]:
        return await self._write_all([partial(self._rows.delete, request) for request in requests], 0)

    async def transaction(self, request: TransactionRequest) -> Sequence[str | None]:
        rows = self._rows
        operations = [(operation, self._new_etag()) for operation in request.operations]

        def apply(connection: sqlite3.Connection) -> list[str | None]:
            etags: list[str | None] = []
            for operation, etag in operations:
                if isinstance(operation, SetRequest):
                    etags.append(rows.set(operation, etag, connection))
                else:
                    rows.delete(operation, connection)
                    etags.append(None)
            return etags

        size = sum(len(operation.value) for operation, _ in operations if isinstance(operation, SetRequest))
        return await self._opened().write(apply, single=len(operations) == 1, size=size)

    async def keys(self, request: KeysRequest) -> KeysPage:
        token, size = request.token, request.page_size
        sql = f'SELECT key FROM "{self._table}" WHERE key GLOB ? AND key > ? AND {LIVE} ORDER BY key LIMIT ?'  # noqa: S608  # the name is checked by the settings
        glob = glob_of(parse_like(request.pattern))

        def read(connection: sqlite3.Connection) -> list[str]:
            limit = -1 if size is None else size + 1
            parameters = (glob, token or "", utc_text(int(time.time())), limit)
            return [key for (key,) in connection.execute(sql, parameters)]

        found = await self._opened().read(read, scan=True)
        if size is None or len(found) <= size:
            return KeysPage(keys=found)
        return KeysPage(keys=found[:size], token=found[size - 1])

    async def delete_with_prefix(self, request: DeletePrefixRequest) -> int:
        glob = glob_of([request.prefix, Wildcard.RUN])
        condition = f"FROM \"{self._table}\" WHERE key GLOB ? AND instr(substr(key, ?), '||') = 0"

        def apply(connection: sqlite3.Connection) -> int:
            parameters = (glob, len(request.prefix) + 1)
            count = connection.execute(
                f"SELECT count(*) {condition} AND {LIVE}",  # as above
                (*parameters, utc_text(int(time.time()))),
            ).fetchone()
            connection.execute(f"DELETE {condition}", parameters)
            return int(count[0])

        return await self._opened().write(apply, single=True)

    async def query(self, request: QueryRequest) -> QueryResult:
        return await self._opened().read(QueryStatement(self._table, request).run, scan=True)

    async def sweep(self) -> int:
        """Remove the rows that have expired from the file and return how many there were. Safe at any time."""
        engine = self._opened()
        sql = f'SELECT rowid FROM "{self._table}" WHERE expiration_time <= ?'  # noqa: S608  # as above
        delete = f'DELETE FROM "{self._table}" WHERE rowid = ? AND expiration_time <= ?'  # noqa: S608  # as above
        now = utc_text(int(time.time()))
        rows = await engine.read(lambda connection: connection.execute(sql, (now,)).fetchall(), scan=True)
        removed = 0
        for start in range(0, len(rows), SWEEP_ROWS):
            part = [(rowid, now) for (rowid,) in rows[start : start + SWEEP_ROWS]]
            removed += await engine.write(partial(_execute_many, sql=delete, parameters=part))
        return removed

    async def _sweep_forever(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                if await self._opened().write(partial(self._claim_sweep, interval=interval), single=True):
                    await self.sweep()
            except LapelError as exc:
                self.context.logger.warning("could not remove expired rows; trying again later: %s", exc)

    def _claim_sweep(self, connection: sqlite3.Connection, interval: float) -> bool:
        """Note the time of this sweep, unless another instance swept within the interval."""
        table = self.settings.metadata_table_name
        cursor = connection.execute(
            f"INSERT INTO \"{table}\" (key, value) VALUES ('last-cleanup', CURRENT_TIMESTAMP) "  # noqa: S608  # as above
            "ON CONFLICT (key) DO UPDATE SET value = CURRENT_TIMESTAMP "
            "WHERE strftime('%s', CURRENT_TIMESTAMP) - strftime('%s', value) > ? OR strftime('%s', value) IS NULL",
            (interval - TIDY,),
        )
        return cursor.rowcount == 1

    def _opened(self) -> SqliteEngine:
        assert self._engine is not None, "the component makes no call before open or after close"
        return self._engine

    async def _write_all(self, writes: Sequence[Callable[[sqlite3.Connection], T]], size: int) -> list[T | LapelError]:
        def apply(connection: sqlite3.Connection) -> list[T | LapelError]:
            return [self._attempt(connection, write, "write") for write in writes]

        return await self._opened().write(apply, size=size)

    def _attempt(
        self, connection: sqlite3.Connection, call: Callable[[sqlite3.Connection], T], action: str
    ) -> T | LapelError:
        """Return what goes wrong with one of many single statements, each of which SQLite undoes by itself."""
        try:
            return call(connection)
        except LapelError as exc:
            return exc
        except sqlite3.Error as exc:
            if not connection.in_transaction:
                raise  # all of it was undone
            target = self._engine.target if self._engine is not None else None
            error = translate(exc, path=target.path if target is not None else None, action=action)
            error.__cause__ = exc
            return error


def _execute_many(connection: sqlite3.Connection, sql: str, parameters: Sequence[tuple[int, str]]) -> int:
    return connection.executemany(sql, parameters).rowcount
