"""SQLite for asyncio: one thread that writes, a few that read, one commit for many callers.

Calls that arrive while the disk syncs one transaction share the next one. Nothing here blocks the event loop.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from lapel.coalesce import Coalescer
from lapel.errors import ClosedError, ConfigurationError, StorageError, WrongLoopError

from .connection import SqliteOptions, Target, open_connection
from .errors import location
from .group import Call, Write, WriteGroup, read_group
from .worker import Changes, Worker

__all__ = ["SqliteEngine"]

T = TypeVar("T")

_MAX_READERS = 8
_READS_PER_SNAPSHOT = 128
_SCAN_THREADS = 2


class _Scan:
    """A read that may take long; `worker` is set while it runs or waits there."""

    __slots__ = ("call", "worker")

    def __init__(self, fn: Call, path: str | None) -> None:
        self.call: Call = partial(read_group, calls=(fn,), path=path)
        self.worker: Worker | None = None


class SqliteEngine:
    """An open SQLite database. Make one with `open`; it belongs to that event loop and process.

    Writes run on one thread, in the order of the calls, as many as have gathered in one transaction. A write returns
    when its transaction is committed and, with `synchronous` FULL, on the disk. Reads run on other threads and see
    what is committed, nothing else; in a private database in memory, which has one connection, they run between
    two transactions. All methods may be called concurrently. Cancelling a caller is safe at any time: its operation
    is skipped if its transaction has not been handed over, else it ends unseen (`lapel.coalesce.was_sent` tells).
    """

    def __init__(self, options: SqliteOptions, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._loop = loop
        self._pid = os.getpid()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._journal_mode = ""
        self._changes = Changes(loop)
        self._group = WriteGroup(path=target.path, begin=target.begin, busy_timeout=max(0.0, options.busy_timeout))
        connect = partial(open_connection, target, options, writer=False)
        self._writer = Worker(
            "lapel-sqlite-writer", partial(open_connection, target, options, writer=True), loop, self._changes
        )
        self._readers = [Worker("lapel-sqlite-reader", connect, loop) for _ in range(options.readers)]
        self._scanners = [Worker("lapel-sqlite-scanner", connect, loop) for _ in range(_SCAN_THREADS)]
        if target.memory:
            self._readers = self._scanners = []
        self._idle_readers = self._readers[:] or [self._writer]
        self._idle_scanners = self._scanners[:] or [self._writer]
        place = location(target.path)
        self._writes: Coalescer[Write, Any] = Coalescer(
            self._write_group,
            max_items=options.max_group_items,
            max_bytes=options.max_group_bytes,
            name=f"SQLite writer, {place}",
        )
        self._reads: Coalescer[Call, Any] = Coalescer(
            self._read_group,
            max_items=_READS_PER_SNAPSHOT,
            concurrency=len(self._idle_readers),
            name=f"SQLite reader, {place}",
        )
        self._scans: Coalescer[_Scan, Any] = Coalescer(
            self._scan, max_items=1, concurrency=len(self._idle_scanners), name=f"SQLite scanner, {place}"
        )

    @classmethod
    async def open(cls, options: SqliteOptions) -> SqliteEngine:
        """Open the database, off the loop; create the file where the mode allows it, never its directory.

        Raises `ConfigurationError` (connection string, numbers out of range), `StorageError` (no directory, no file,
        not a database, damaged, no access) or `UnavailableError` (locked by another process for `busy_timeout`).
        There is no deadline but that; a cancelled call leaves nothing open.
        """
        if not 1 <= options.readers <= _MAX_READERS:
            raise ConfigurationError(f"readers must be from 1 to {_MAX_READERS}, not {options.readers}")
        engine = cls(options, await asyncio.to_thread(options.target), asyncio.get_running_loop())
        try:
            await engine._writer.start()
            engine._journal_mode = await engine._writer.run(_read_journal_mode)
        except BaseException:
            engine._writer.stop()
            raise
        return engine

    @property
    def target(self) -> Target:
        """What the connection string names."""
        return self._target

    @property
    def journal_mode(self) -> str:
        """`wal`, `delete` or `memory`: what is in force, which may not be what was asked for."""
        return self._journal_mode

    @property
    def read_only(self) -> bool:
        """Writes are refused."""
        return self._target.read_only

    @property
    def closed(self) -> bool:
        """`close` was called."""
        return self._closed

    async def write(self, fn: Callable[[sqlite3.Connection], T], *, single: bool = False, size: int = 0) -> T:
        """Run `fn` on the writing thread, in a transaction shared with other callers; return when it is committed.

        `fn` gets the connection in autocommit mode with a transaction open. It must not begin, commit or roll back
        (`executescript` commits) and must not keep the connection or a cursor. It may run twice, because a group that
        was rolled back is run again, so it must have no effect but on the database. What it raises reaches the
        caller, an `sqlite3.Error` translated, and undoes all it did, nothing else.

        `single` declares that `fn` changes the database with one statement at most and raises only when that changed
        nothing; it saves a savepoint. A wrong declaration costs time, not correctness, except for statements that
        change the schema. `size` is the number of bytes that count for `max_group_bytes`.

        Raises `StorageError` (full, read-only, damaged) and `UnavailableError` (the lock was held by another process
        for `busy_timeout`), both with nothing written, `OperationFailedError`, `ClosedError`, `WrongLoopError`, and
        `OutcomeUnknownError` when `close` gave up on the transaction.
        """
        self._check_owner()
        if self._target.read_only:
            place = location(self._target.path)
            raise StorageError(f"cannot write, {place}: it was opened read-only, with mode=ro or immutable=1")
        result: T = await self._writes.submit(Write(fn, single), size)
        return result

    async def read(self, fn: Callable[[sqlite3.Connection], T], *, scan: bool = False) -> T:
        """Run `fn` on a reading thread, in a snapshot of what is committed, and return its result.

        It sees every write that returned before this call. Its connection refuses to write. `fn` must not keep the
        connection or a cursor. `scan` is for anything that may touch many rows: it gets a thread of its own,
        and is interrupted when the caller is cancelled. Raises as `write` does.
        """
        self._check_owner()
        result: T
        if not scan:
            result = await self._reads.submit(fn)
            return result
        job = _Scan(fn, self._target.path)
        try:
            result = await self._scans.submit(job)
        except asyncio.CancelledError:
            if job.worker is not None:
                job.worker.interrupt(job.call)
            raise
        return result

    def version(self) -> int:
        """Return a number that grows with every change noticed; it means nothing to another engine."""
        return self._changes.version

    async def wait_for_change(self, seen: int, timeout: float) -> int:
        """Wait until `version` differs from `seen`, at most `timeout` seconds, and return it.

        Changes by this engine are noticed at once, those of other connections and processes within about 40 ms,
        while the writing thread is not busy; those made while nobody waited are noticed by the next wait. A change
        may be reported that touched nothing of interest. Take `version` before reading, and none is missed. Raises
        `ClosedError`, also when the engine closes during the wait, and `WrongLoopError`.
        """
        self._check_owner()
        if self._closed:
            raise self._closed_error()
        changes = self._changes
        if changes.version != seen or timeout <= 0:
            return changes.version
        future: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_later(timeout, _wake, future)
        first = not changes.waiters
        changes.waiters.add(future)
        if first:
            self._writer.nudge()
        try:
            await future
        finally:
            timer.cancel()
            changes.waiters.discard(future)
        return changes.version

    async def close(self, deadline: float = 5.0) -> None:
        """Refuse new calls, fail those still queued with `ClosedError`, finish what is under way, check-point, close.

        What still runs after half of `deadline` seconds is interrupted and rolled back. Returns soon after the
        deadline at the latest: a thread that the operating system holds up is left to end by itself. Idempotent; calls
        may overlap. In a forked child, or on another loop, it only marks the engine closed and waits for nothing.
        """
        self._closed = True
        if os.getpid() != self._pid:
            return  # the threads and the locks are the parent's
        if asyncio.get_running_loop() is not self._loop:
            for worker in self._workers():
                worker.stop()
            return
        if self._closing is None:
            self._closing = self._loop.create_task(self._shut(deadline), name="close SQLite engine")
        await asyncio.shield(self._closing)

    async def _shut(self, deadline: float) -> None:
        end = self._loop.time() + deadline
        self._changes.fail(self._closed_error())
        timer = self._loop.call_later(deadline * 0.5, self._interrupt)
        fronts = (self._writes, self._reads, self._scans)
        await asyncio.gather(*(front.close(deadline * 0.85) for front in fronts))
        timer.cancel()
        readers = self._readers + self._scanners
        for worker in readers:
            worker.stop()
        await asyncio.gather(*(worker.join(max(0.1, end - self._loop.time())) for worker in readers))
        if self._journal_mode == "wal" and not self.read_only:
            checkpoint = self._loop.create_task(self._writer.run(_checkpoint))
            await asyncio.wait({checkpoint}, timeout=max(0.1, end - self._loop.time()))
            checkpoint.cancel()
        self._writer.stop()
        await self._writer.join(max(0.1, end - self._loop.time()))

    def _interrupt(self) -> None:
        self._group.stop.set()
        for worker in self._workers():
            worker.interrupt()

    def _workers(self) -> list[Worker]:
        return [self._writer, *self._readers, *self._scanners]

    async def _write_group(self, writes: list[Write]) -> list[Any]:
        results, changed = await self._writer.run(partial(self._group.run, writes=writes))
        if changed:
            self._changes.bump()
        return results

    async def _read_group(self, calls: list[Call]) -> list[Any]:
        worker = self._idle_readers.pop()
        try:
            if not worker.started:
                await worker.start()
            return await worker.run(partial(read_group, calls=calls, path=self._target.path))
        finally:
            self._idle_readers.append(worker)

    async def _scan(self, scans: list[_Scan]) -> list[Any]:
        scan = scans[0]
        worker = self._idle_scanners.pop()
        try:
            if not worker.started:
                await worker.start()
            scan.worker = worker
            results: list[Any] = await worker.run(scan.call)
            return results
        finally:
            self._idle_scanners.append(worker)

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"the SQLite engine is closed, {location(self._target.path)}; open a new component")

    def _check_owner(self) -> None:
        if os.getpid() != self._pid:
            raise WrongLoopError(
                f"{location(self._target.path)} was opened by process {self._pid} before it forked; SQLite connections "
                "do not survive that. Open components after fork"
            )
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoopError(
                f"{location(self._target.path)} was opened on another event loop; open one set of components per loop "
                "or use lapel.blocking"
            )


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _read_journal_mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0]).lower()


def _checkpoint(connection: sqlite3.Connection) -> None:
    # Where this fails, the log stays beside the file, and whoever opens it next continues from there.
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
