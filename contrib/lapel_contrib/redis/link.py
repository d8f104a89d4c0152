"""One connection on which many commands are under way at a time.

redis-py opens it and logs in; then its stream is replaced by a protocol of our own. So several buffers can be under way
while replies to the first are read, a cancelled caller leaves nothing unread, the end of a connection is noticed at
once, also while it is idle, and it is known which replies had come. It is also faster: a reply took 0.3 microseconds
where redis-py's `read_response` took 1, and its pipelines, with packing and callbacks, took 10.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, cast

import hiredis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from lapel.errors import LapelError, OperationFailedError, PermissionDeniedError

from .errors import ReplyError, translate, unreachable, with_code
from .options import Address, RedisOptions

__all__ = ["Link", "LinkLostError", "connection_arguments", "connection_class", "open_link"]

_NOTHING = object()


class LinkLostError(Exception):
    """The connection ended while replies were due. `replies` are those that had come, in order."""

    def __init__(self, replies: list[Any], *, timed_out: bool) -> None:
        super().__init__("connection lost")
        self.replies = replies
        self.timed_out = timed_out


class _Batch:
    __slots__ = ("count", "ends_at", "future", "pause", "replies")

    def __init__(
        self, count: int, ends_at: float | None, pause: float | None, future: asyncio.Future[list[Any]]
    ) -> None:
        self.count = count
        self.ends_at = ends_at
        self.pause = pause
        self.future = future
        self.replies: list[Any] = []


class Link(asyncio.Protocol):
    """A connection that is logged in. `send` may be called at any time; replies come in the order of sending.

    A caller that is cancelled leaves its replies to be read and dropped. A batch that is not answered in time ends the
    connection, because nothing that comes later can be told apart.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.used_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ReplyError, notEnoughData=_NOTHING)
        self._batches: deque[_Batch] = deque()
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timed_out = False
        self._retired = False

    def adopt(self, connection: Connection) -> None:
        """Take the stream of a connection that redis-py has opened; the connection object is empty afterwards."""
        writer = connection._writer
        assert writer is not None, "redis-py says that it is connected"
        connection._writer = connection._reader = None
        self._writer = writer  # closes its transport when it is collected
        self._transport = transport = cast("asyncio.Transport", writer.transport)
        transport.set_protocol(self)

    @property
    def open(self) -> bool:
        """Whether `send` is possible."""
        return self._transport is not None

    @property
    def idle(self) -> bool:
        """Whether no reply is due."""
        return not self._batches

    def send(
        self, buffer: bytes, count: int, timeout: float | None, *, pause: float | None = None
    ) -> asyncio.Future[list[Any]]:
        """Send packed commands and return a future of their `count` replies; error replies are `ReplyError` objects.

        The future raises `LinkLostError` when the connection ends first, or when `timeout` seconds have passed; with
        `pause` when, after a reply has begun, nothing came for so many seconds, however long all of it takes.
        """
        loop, transport = self._loop, self._transport
        future: asyncio.Future[list[Any]] = loop.create_future()
        ends_at = None if timeout is None else loop.time() + timeout
        batch = _Batch(count, ends_at, pause, future)
        if transport is None:
            future.set_exception(LinkLostError([], timed_out=False))
            return future
        self._batches.append(batch)
        transport.write(buffer)
        if ends_at is not None and self._timer is None:
            self._timer = loop.call_at(ends_at, self._check_time)
        return future

    def retire(self) -> None:
        """End the connection as soon as no reply is due. Idempotent."""
        self._retired = True
        if not self._batches:
            self.close()

    def close(self) -> None:
        """End the connection. Replies that are due will not come. Idempotent."""
        transport = self._transport
        if transport is not None:
            transport.abort()
            self._end()

    # called by the transport

    def data_received(self, data: bytes) -> None:
        """Read the replies in a packet."""
        reader = self._reader
        try:
            reader.feed(data)
            while self._batches:
                batch = self._batches[0]
                replies, count = batch.replies, batch.count
                while len(replies) < count:
                    reply = reader.gets()
                    if reply is _NOTHING:
                        if batch.pause is not None:
                            batch.ends_at = self._loop.time() + batch.pause
                        return
                    replies.append(reply)
                self._batches.popleft()
                if not batch.future.done():
                    batch.future.set_result(replies)
            if self._retired:
                self.close()
        except hiredis.ProtocolError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is due."""
        self._end()

    def _end(self) -> None:
        self._transport = self._writer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batches, self._batches = self._batches, deque()
        for batch in batches:
            if not batch.future.done():
                batch.future.set_exception(LinkLostError(batch.replies, timed_out=self._timed_out))

    def _check_time(self) -> None:
        self._timer = None
        if not self._batches:
            return
        # Time-outs of one connection may differ, but what is behind a late reply is late too.
        ends_at = min((batch.ends_at for batch in self._batches if batch.ends_at is not None), default=None)
        if ends_at is None:
            return
        if ends_at <= self._loop.time():
            self._timed_out = True
            self.close()
        else:
            self._timer = self._loop.call_at(ends_at, self._check_time)


class _TlsConnection(SSLConnection):
    """With a TLS context made once, off the event loop, instead of one read from files for each connection."""

    def __init__(self, *, tls_context: ssl.SSLContext, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.ssl_context.context = tls_context


def connection_class(tls: ssl.SSLContext | None) -> type[Connection]:
    """Return the class of redis-py that connects in the clear, or with TLS."""
    return Connection if tls is None else _TlsConnection


def connection_arguments(
    options: RedisOptions, tls: ssl.SSLContext | None, *, sentinel: bool = False
) -> dict[str, Any]:
    """Return what redis-py's connections are made with, but for host and port. Nothing is repeated by redis-py."""
    password = options.sentinel_password if sentinel else options.password
    arguments: dict[str, Any] = {
        "username": options.sentinel_username if sentinel else options.username,
        "password": None if password is None else password.reveal(),
        "db": 0 if sentinel or options.mode == "cluster" else options.database,
        "socket_connect_timeout": options.dial_timeout,
        # `open_link` watches the clock. redis-py would use `asyncio.wait_for`, which loses cancellations before 3.12.
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        # It would look for its own version on the disk, once for each connection.
        "driver_info": None,
    }
    return arguments if tls is None else {**arguments, "tls_context": tls}


async def open_link(
    address: Address, options: RedisOptions, tls: ssl.SSLContext | None, *, sentinel: bool = False
) -> Link:
    """Connect and log in, within dialTimeout.

    Raises `UnavailableError`, `PermissionDeniedError` or what else `translate` makes of the server's refusal.
    """
    host, port = address
    place = f"Redis {'sentinel ' if sentinel else ''}{host}:{port}"
    arguments = connection_arguments(options, tls, sentinel=sentinel)
    connection = connection_class(tls)(host=host, port=port, **arguments)
    link = Link(address)
    try:
        async with asyncio.timeout(options.dial_timeout):
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it so
        link.adopt(connection)
    except BaseException as exc:
        await connection.disconnect(nowait=True)
        if not isinstance(exc, Exception):
            raise
        raise _refusal(exc, place) from None
    return link


def _refusal(exc: Exception, place: str) -> LapelError:
    if isinstance(exc, AuthenticationError | AuthenticationWrongNumberOfArgsError):
        # redis-py drops the code of the reply.
        return PermissionDeniedError(
            f"{place}: it refused the log-in; check redisUsername and redisPassword, and that the user is on"
        )
    if isinstance(exc, NoPermissionError):
        return translate(ReplyError("NOPERM"), place)
    if isinstance(exc, ResponseError):
        return translate(ReplyError(with_code(str(exc))), place)
    if isinstance(exc, RedisError | OSError | TimeoutError):
        return unreachable(place, exc)
    return OperationFailedError(f"{place}: connecting failed with {type(exc).__name__}; please report this")
