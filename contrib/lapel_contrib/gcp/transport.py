"""Blocking work on threads that can be broken off, which a thread alone cannot.

Each piece of work is a `Step`. The connections of `WatchedAdapter` tell the step of their thread when they are used, so
that a step whose caller has gone away can be ended by shutting down its socket: what waits for an answer stops at once.

Steps take turns: of many threads only a few run Python code at a time, the others wait for the network. Were they all
to compete for the interpreter, the event loop would have to wait for it behind each of them.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple

from requests import Response
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager
from urllib3.response import HTTPResponse
from urllib3.util.wait import wait_for_read

__all__ = ["BrokenOffError", "Step", "Turns", "WatchedAdapter", "current_step", "note_answer", "waiting"]

_Args = TypeVarTuple("_Args")
_T = TypeVar("_T")
_thread = threading.local()


class BrokenOffError(OSError):
    """The step was broken off before it could send something. Nobody waits for its result."""


class Turns:
    """Lets a few threads at a time run."""

    def __init__(self, size: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(size):
            self._free.put(None)

    def begin(self) -> None:
        """Wait for a turn."""
        self._free.get()

    def end(self) -> None:
        """Let another one run."""
        self._free.put(None)


class Step:
    """One piece of blocking work. `run` on a thread, `break_off` on any other.

    `connection` is one that the work goes on with, without sending a request first.
    """

    __slots__ = ("_broken_off", "_lock", "_over", "_running", "_turns", "answer", "connection", "sent")

    def __init__(self, turns: Turns, connection: HTTPConnection | None = None) -> None:
        self._turns = turns
        self._running = False
        self._lock = threading.Lock()
        self._broken_off = False
        self._over = False
        self.connection = connection
        self.answer: Response | None = None
        """The last one that came."""
        self.sent = False
        """Whether a request may have left this process."""

    def run(self, work: Callable[[*_Args], _T], args: tuple[*_Args]) -> _T:
        """Do the work."""
        if self._broken_off:
            raise BrokenOffError
        _thread.step = self
        self.go_on()
        try:
            return work(*args)
        finally:
            self.pause()
            _thread.step = None
            with self._lock:
                # From now on the connection is another step's.
                self._over = True

    def pause(self) -> None:
        """Let other steps run, before waiting for the network."""
        if self._running:
            self._running = False
            self._turns.end()

    def go_on(self) -> None:
        """Run again, when it is this step's turn."""
        if not self._running:
            self._turns.begin()
            self._running = True

    def use(self, connection: HTTPConnection, *, sends: bool) -> None:
        """Note the connection that the work uses now; `sends`: a request follows."""
        with self._lock:
            self.connection = connection
            if not self._broken_off:
                self.sent = self.sent or sends
                return
        raise BrokenOffError

    def break_off(self) -> bool:
        """End the work as soon as possible, without waiting; return whether it certainly sent nothing."""
        self._broken_off = True
        # The lock is only ever held for a moment, and whoever holds it looks at the flag afterwards. Not to get it
        # means that the work is about to send or to end: that it sent nothing is then not certain.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            sock = None if self._over or self.connection is None else self.connection.sock
            if sock is not None:
                with suppress(OSError):
                    # Past the TLS layer, which must not be touched while another thread is inside.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            return not self.sent
        finally:
            self._lock.release()


class _Connection(HTTPConnection):
    @override
    def connect(self) -> None:
        _pause()
        super().connect()
        _tell(self, sends=False)

    @override
    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        _tell(self, sends=True)
        _pause()
        super().request(*args, **kwargs)

    @override
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as the class above has it
        with waiting():
            _await_answer(self)
        return super().getresponse()


class _SecureConnection(HTTPSConnection):
    @override
    def connect(self) -> None:
        _pause()
        super().connect()
        _tell(self, sends=False)

    @override
    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        _tell(self, sends=True)
        _pause()
        super().request(*args, **kwargs)

    @override
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as the class above has it
        with waiting():
            _await_answer(self)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class WatchedAdapter(HTTPAdapter):
    """Keeps up to `size` connections to each host, and repeats nothing."""

    def __init__(self, size: int) -> None:
        super().__init__(pool_connections=4, pool_maxsize=size, max_retries=0)

    @override
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _watch(self.poolmanager)

    @override
    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        _watch(manager)
        return manager

    @override
    def close(self) -> None:
        """Close all connections that are not in use; `requests` would leave that to the garbage collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  # it is no mapping that can be iterated
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()


def _watch(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


def _tell(connection: HTTPConnection, *, sends: bool) -> None:
    step = current_step()
    if step is not None:
        try:
            step.use(connection, sends=sends)
        except BrokenOffError:
            connection.close()
            raise


@contextmanager
def waiting() -> Iterator[None]:
    """Let other steps run while the block waits for the network."""
    step = current_step()
    if step is None:
        yield
        return
    step.pause()
    try:
        yield
    finally:
        step.go_on()


def _pause() -> None:
    step = current_step()
    if step is not None:
        step.pause()


def _await_answer(connection: HTTPConnection) -> None:
    """Wait until there is something to read, or as long as reading would wait: then reading finds out what is wrong."""
    if connection.sock is not None:
        wait_for_read(connection.sock, connection.sock.gettimeout())


def current_step() -> Step | None:
    """Return the step of this thread."""
    step: Step | None = getattr(_thread, "step", None)
    return step


def note_answer(answer: Response, *_: Any, **__: Any) -> None:
    """Keep an answer with the step of this thread; a hook for sessions, because the SDK keeps some to itself."""
    if answer.status_code == 401:
        # It is replaced by the answer to the next try, or by the failure to get a token. Nobody would read or close it.
        body = answer.content
        del body
    step = current_step()
    if step is not None:
        step.answer = answer
