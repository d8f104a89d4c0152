"""lock.sqlite."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TypeVar, cast

from lapel.driver import DriverContext
from lapel.errors import ClosedError, ConfigurationError, LapelError
from lapel.lock import LockDriver, LockGrant, RenewRequest, TryLockRequest, UnlockRequest, UnlockStatus

from . import LOCK
from .connection import network_filesystem
from .engine import SqliteEngine
from .settings import SqliteLockSettings
from .sharing import EngineLease
from .tables import prepare_table

__all__ = ["SqliteLock"]

SWEEP_SECONDS = 60.0
"""How often, at most, expired locks that nobody asked for again are deleted."""

_COLUMNS = frozenset({"expires_at", "owner", "resource", "token"})

T = TypeVar("T")


class SqliteLock(LockDriver[SqliteLockSettings]):
    """Keeps locks in one table of a SQLite file, for all processes of this machine that open it.

    Columns: `token` (grows with every acquisition of any resource and is never used again, also after a restart),
    `resource`, `owner`, `expires_at` in milliseconds since 1970. Locks expire by the machine's wall clock: setting it
    forward frees locks early, setting it back keeps them longer. A lock outlives the process and a restart, until it
    expires. Network file systems are refused because their file locks cannot be relied upon. Locks in a private
    database in memory exclude only the users of this component. `unwrap(SqliteEngine)` gives the engine.
    """

    descriptor = LOCK

    def __init__(self, settings: SqliteLockSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = EngineLease(settings.options(), context.shared)
        self._engine: SqliteEngine | None = None
        self._next_sweep = 0.0
        table = settings.table_name
        # The name is checked by the settings.
        self._create = (
            f'CREATE TABLE IF NOT EXISTS "{table}" (token INTEGER PRIMARY KEY AUTOINCREMENT, '
            "resource TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, expires_at INTEGER NOT NULL)"
        )
        # One statement, so that a refused try costs no savepoint. REPLACE removes an expired row of the resource, and
        # AUTOINCREMENT then gives a number that no row has ever had.
        self._take = (
            f'INSERT OR REPLACE INTO "{table}" (resource, owner, expires_at) SELECT ?, ?, ? '  # noqa: S608  # as above
            f'WHERE NOT EXISTS (SELECT 1 FROM "{table}" WHERE resource = ? AND expires_at > ?)'
        )
        self._free = f'DELETE FROM "{table}" WHERE resource = ? AND owner = ? AND expires_at > ?'  # noqa: S608  # as above
        self._find = f'SELECT 1 FROM "{table}" WHERE resource = ? AND expires_at > ?'  # noqa: S608  # as above
        self._extend = f'UPDATE "{table}" SET expires_at = ? WHERE resource = ? AND owner = ? AND expires_at > ?'  # noqa: S608  # as above
        self._sweep = f'DELETE FROM "{table}" WHERE expires_at <= ?'  # noqa: S608  # as above

    @property
    def call_timeout(self) -> float | None:
        return self.settings.timeout.total_seconds()

    async def open(self) -> None:
        path = (await asyncio.to_thread(self.settings.options().target)).path
        network = None if path is None else await asyncio.to_thread(network_filesystem, path)
        if network is not None:
            raise ConfigurationError(
                f"connectionString: {path!r} is on a network file system ({network}), whose locks do not exclude "
                "reliably; use a local disk, or another lock store"
            )
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

    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        await self._sweep_sometimes()

        def take(connection: sqlite3.Connection) -> LockGrant:
            now = _now()
            resource = request.resource
            cursor = connection.execute(self._take, (resource, request.owner, _end(now, request.expiry), resource, now))
            return LockGrant(True, cursor.lastrowid) if cursor.rowcount == 1 else LockGrant(False)

        return await self._opened().write(take, single=True)

    async def unlock(self, request: UnlockRequest) -> UnlockStatus:
        def free(connection: sqlite3.Connection) -> UnlockStatus:
            now = _now()
            if connection.execute(self._free, (request.resource, request.owner, now)).rowcount == 1:
                return UnlockStatus.SUCCESS
            held = connection.execute(self._find, (request.resource, now)).fetchone()
            return UnlockStatus.LOCK_BELONGS_TO_OTHERS if held else UnlockStatus.LOCK_DOES_NOT_EXIST

        return await self._opened().write(free, single=True)

    async def renew(self, request: RenewRequest) -> bool:
        def extend(connection: sqlite3.Connection) -> bool:
            now = _now()
            parameters = (_end(now, request.expiry), request.resource, request.owner, now)
            return connection.execute(self._extend, parameters).rowcount == 1

        return await self._opened().write(extend, single=True)

    async def _sweep_sometimes(self) -> None:
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_SECONDS
        try:
            await self._opened().write(
                lambda connection: connection.execute(self._sweep, (_now(),)).rowcount, single=True
            )
        except LapelError as exc:
            self.context.logger.debug("expired locks were not deleted: %s", exc)

    def _opened(self) -> SqliteEngine:
        if self._engine is None:
            raise ClosedError("the driver is not open")
        return self._engine


def _now() -> int:
    return time.time_ns() // 1_000_000


def _end(now: int, expiry: int) -> int:
    # `now` was rounded down; a lock must not end earlier than its holder believes.
    return now + expiry * 1000 + 1
