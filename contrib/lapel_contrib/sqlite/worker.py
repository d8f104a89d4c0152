"""One thread, one connection: where every call into SQLite happens."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from lapel.errors import ClosedError

__all__ = ["Changes", "Worker"]

R = TypeVar("R")

POLL_INTERVAL = 0.03
"""Seconds between two looks for commits of other connections, while somebody waits for them.

A look costs up to 0.2 ms of processor time, nearly all of it for waking up: 0.7 % of one core.
"""


class Changes:
    """Counts the commits that changed something, and wakes those who wait for the next one.

    All methods run on the event loop, except `poll`, which runs on the thread of the connection that writes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.version = 0
        self.waiters: set[asyncio.Future[None]] = set()
        self._loop = loop
        self._seen: int | None = None

    def bump(self) -> None:
        """Note a change and wake everyone who waits."""
        self.version += 1
        for future in self.waiters:
            if not future.done():
                future.set_result(None)

    def fail(self, error: Exception) -> None:
        """End every wait with an error."""
        for future in self.waiters:
            if not future.done():
                future.set_exception(error)

    def poll(self, connection: sqlite3.Connection) -> None:
        """Compare SQLite's count of the commits that other connections made with the last one seen."""
        try:
            (count,) = connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            return  # locked or failing at the moment; the next write or read reports what is wrong
        if self._seen is not None and count != self._seen:
            _post(self._loop, self.bump)
        self._seen = count


class _Job:
    __slots__ = ("fn", "future")

    def __init__(self, fn: Callable[[sqlite3.Connection], Any], future: asyncio.Future[Any]) -> None:
        self.fn = fn
        self.future = future


class _Slot:
    """What the thread and the event loop both touch; `lock` guards the pair of `connection` and `job`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changes: Changes | None) -> None:
        self.loop = loop
        self.changes = changes
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None
        self.job: Callable[[sqlite3.Connection], Any] | None = None


class Worker:
    """A connection and the daemon thread that alone uses it.

    `connect` runs on the thread. With `changes`, the thread polls for commits of other connections while there are
    waiters. The thread ends after `stop`, or when the worker is garbage.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], sqlite3.Connection],
        loop: asyncio.AbstractEventLoop,
        changes: Changes | None = None,
    ) -> None:
        self._name = name
        self._connect = connect
        self._loop = loop
        self._queue: queue.SimpleQueue[_Job | bool] = queue.SimpleQueue()
        self._slot = _Slot(loop, changes)
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._stopped = False
        weakref.finalize(self, self._queue.put, False)

    @property
    def started(self) -> bool:
        """`start` succeeded, and the thread has not ended since."""
        return self._slot.connection is not None

    async def start(self) -> None:
        """Start the thread and wait until its connection is open. Raises what `connect` raises."""
        if self._stopped:
            raise ClosedError("the SQLite engine is closed; open a new one")
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(
            target=_serve,
            args=(self._queue, self._slot, self._connect, opened, self._ended),
            name=self._name,
            daemon=True,
        )
        self._thread.start()
        await opened

    async def run(self, fn: Callable[[sqlite3.Connection], R]) -> R:
        """Call `fn` with the connection on the thread and return its result; first in, first out.

        When the caller is cancelled, a call that has not begun is skipped, and one that has begun ends unseen.
        """
        if self._stopped:
            raise ClosedError("the SQLite engine is closed; open a new one")
        future: asyncio.Future[R] = self._loop.create_future()
        self._queue.put(_Job(fn, future))
        return await future

    def nudge(self) -> None:
        """Look for changes now, and then regularly as long as there are waiters."""
        self._queue.put(True)

    def interrupt(self, fn: Callable[[sqlite3.Connection], Any] | None = None) -> None:
        """Make the statement under way fail with SQLITE_INTERRUPT; with `fn`, only if that is what runs now."""
        with self._slot.lock:
            slot = self._slot
            if slot.connection is not None and slot.job is not None and (fn is None or slot.job is fn):
                slot.connection.interrupt()

    def stop(self) -> None:
        """Let the thread end after what is queued; it closes the connection."""
        if not self._stopped:
            self._stopped = True
            self._queue.put(False)

    async def join(self, timeout: float) -> bool:
        """Wait for the end of the thread; False if it did not come within `timeout` seconds."""
        if self._thread is None or self._ended is None:
            return True
        end = self._loop.time() + timeout
        await asyncio.wait({self._ended}, timeout=timeout)
        # The thread tells the loop as its last act but one, so what is left to wait for is microseconds.
        while self._ended.done() and self._thread.is_alive() and self._loop.time() < end:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.001)
        return not self._thread.is_alive()


def _serve(
    jobs: queue.SimpleQueue[_Job | bool],
    slot: _Slot,
    connect: Callable[[], sqlite3.Connection],
    opened: asyncio.Future[None],
    ended: asyncio.Future[None],
) -> None:
    # A function and not a method: the thread must not keep the worker alive.
    loop = slot.loop
    try:
        connection = connect()
    except BaseException as exc:
        _post(loop, _settle, opened, None, exc)
        _post(loop, _settle, ended, None, None)
        return
    slot.connection = connection
    if slot.changes is not None:
        slot.changes.poll(connection)
    _post(loop, _settle, opened, None, None)
    try:
        _work(jobs, slot, connection)
    finally:
        with slot.lock:
            slot.connection = None
        connection.close()
        _post(loop, _settle, ended, None, None)


def _work(jobs: queue.SimpleQueue[_Job | bool], slot: _Slot, connection: sqlite3.Connection) -> None:
    loop, changes = slot.loop, slot.changes
    polled = 0.0
    while True:
        watched = changes is not None and bool(changes.waiters)
        try:
            job = jobs.get(timeout=POLL_INTERVAL if watched else None)
        except queue.Empty:
            job = True
        if job is False:
            return
        if isinstance(job, _Job):
            if not job.future.done():
                _call(job, slot, connection, loop)
            due = changes is not None and bool(changes.waiters) and time.monotonic() - polled >= POLL_INTERVAL
        else:
            due = True
        del job  # holds the caller's data, and this thread may now wait for a long time
        if due and changes is not None:
            changes.poll(connection)
            polled = time.monotonic()


def _call(job: _Job, slot: _Slot, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
    result, error = None, None
    with slot.lock:
        slot.job = job.fn
    try:
        result = job.fn(connection)
    except BaseException as exc:
        error = exc
    with slot.lock:
        slot.job = None
    _post(loop, _settle, job.future, result, error)


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(callback, *args)
