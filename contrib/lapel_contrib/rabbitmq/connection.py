"""One connection to a broker, with a sense of whether anybody is at the other end."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.connection import Connection as AmqpConnection
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from lapel.errors import LapelError

from .errors import Cancellation, unreachable
from .options import Address, RabbitOptions

__all__ = ["Connection"]

CLOSE_SECONDS = 2.0
SILENCE_SECONDS = 2.0
"""After so long without a byte the broker is asked for a sign of life."""
PATIENCE_SECONDS = 3.0
"""How long it has for that. Three times its heartbeat, which is what the library waits, is too long for users."""

_BUFFER = 256
"""Frames that a channel may be behind its connection."""


class _NoPayloads(logging.Filter):
    """Keeps what is sent, messages included, out of the library's log, where it is from DEBUG on."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(record.args, tuple) and any(isinstance(part, ChannelFrame) for part in record.args))


logging.getLogger("aiormq.connection").addFilter(_NoPayloads())


class _Reader(asyncio.StreamReader):
    """Knows when the last bytes came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=2**18, loop=loop)
        self._clock = loop.time
        self.heard = loop.time()

    def feed_data(self, data: Any) -> None:
        self.heard = self._clock()
        super().feed_data(data)


class _Transport(TransportFactory):
    """Makes the stream, and keeps hold of it."""

    reader: _Reader
    writer: asyncio.StreamWriter | None = None

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        self.reader = _Reader(loop)
        protocol = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=self._context
            )
        except OSError as exc:
            raise AMQPConnectionError(type(exc).__name__) from exc
        self.writer = asyncio.StreamWriter(transport, protocol, self.reader, loop)
        return self.reader, self.writer

    def abort(self) -> None:
        """End the stream, if there is one, without a word and without waiting for one."""
        if self.writer is not None:
            self.writer.transport.abort()

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[None]:
        """Raise `TimeoutError` after that time, and end the stream then.

        Cancelled, the library cleans up, and over TLS it waits for the other side to say good-bye.
        """
        try:
            async with asyncio.timeout(seconds):
                ending = asyncio.get_running_loop().call_later(seconds, self.abort)
                try:
                    yield
                finally:
                    ending.cancel()
        except TimeoutError:
            self.abort()
            raise


class _Amqp(AmqpConnection):
    # A queue with a bound would keep those waiting for ever who wait for room in it when the connection is lost.
    FRAME_BUFFER_SIZE = 0


class Connection:
    """An open connection. It is never repaired: when it is lost, make another one.

    `lost` is done when it cannot be used any more.
    """

    def __init__(self, amqp: AmqpConnection, transport: _Transport, control: Channel) -> None:
        self.amqp = amqp
        self.lost: asyncio.Future[Any] = amqp.closing
        self._transport = transport
        self._control: Channel | None = control
        self._asking = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._unsent = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(
        cls, options: RabbitOptions, context: ssl.SSLContext | None, address: Address, name: str, seconds: float
    ) -> Connection:
        """Connect to one node and log in. Raises `UnavailableError` or `PermissionDeniedError` in that time."""
        transport = _Transport(context)
        amqp = _Amqp(
            _url(options, address),
            transport_factory=transport,
            client_properties={"connection_name": name, "product": "lapel"},
        )
        cancellation = Cancellation()
        try:
            async with transport.limit(seconds):
                await amqp.connect()
                control = await _channel(amqp, confirms=False)
                return cls(amqp, transport, control)
        except BaseException as exc:
            transport.abort()
            if isinstance(exc, asyncio.CancelledError) and not cancellation.is_ours():
                exc = ConnectionResetError()
            if isinstance(exc, LapelError) or not isinstance(exc, Exception):
                raise
            raise unreachable(options.place, exc) from None

    @property
    def usable(self) -> bool:
        """Whether it has not been lost, as far as is known."""
        return not self.lost.done()

    @property
    def blocked(self) -> bool:
        """Whether the broker takes no messages from it, because of an alarm over its memory or disk."""
        ready = self.amqp.ready()
        try:
            ready.send(None)
        except StopIteration:
            return False
        finally:
            ready.close()
        return True

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel; the caller gives it to `discard`."""
        return await _channel(self.amqp, confirms=confirms)

    async def ask(self) -> None:
        """Return when the broker has answered something."""
        async with self._asking:
            control, self._control = self._control, None
            if control is None or control.is_closed:
                control = await self.channel(confirms=False)
            await control.basic_qos(prefetch_count=0)
            # After a question without an answer the library does not use a channel again.
            self._control = control

    async def watch(self) -> None:
        """Return when it is lost. A broker that gives no sign of life for too long counts as gone."""
        while self.usable:
            await asyncio.wait((self.lost,), timeout=SILENCE_SECONDS / 2)
            if self.usable and not self._heard_lately() and not self.blocked and not await self._is_alive():
                self.abort()
                await asyncio.wait((self.lost,), timeout=CLOSE_SECONDS)
                return

    def abort(self) -> None:
        """Give it up without a word."""
        self._transport.abort()

    def discard(self, channel: Channel) -> asyncio.Task[None]:
        """Close a channel in the background; what it had not settled goes back to the queues. Bounded."""
        return self.spawn(self._close_channel(channel))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that must not be cancelled half-way; `close` waits for it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Say good-bye, and end it in any case. Bounded."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        try:
            # Whatever it raises, the abort below ends the connection.
            with suppress(Exception):
                async with self._transport.limit(CLOSE_SECONDS):
                    await self.amqp.close()
        finally:
            self.abort()

    async def _close_channel(self, channel: Channel) -> None:
        cancellation = Cancellation()
        try:
            # What it raises says that it is closed. One that does not close would keep its messages, so the limit ends
            # the connection.
            with suppress(Exception):
                async with self._transport.limit(CLOSE_SECONDS):
                    await channel.close()
        except asyncio.CancelledError:
            if cancellation.is_ours():
                raise

    def _heard_lately(self) -> bool:
        assert self._transport.writer is not None
        before, self._unsent = self._unsent, self._transport.writer.transport.get_write_buffer_size()
        # Bytes that leave are a sign of life as well: a large message may keep the line busy.
        return self._unsent < before or self._loop.time() - self._transport.reader.heard < SILENCE_SECONDS

    async def _is_alive(self) -> bool:
        asked = self._loop.time()
        cancellation = Cancellation()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.ask()
        except asyncio.CancelledError:
            if cancellation.is_ours():
                raise
        except Exception:
            # A loop that was busy all the time has not heard what was said meanwhile.
            if self._loop.time() - asked > PATIENCE_SECONDS + 0.5:
                return True
        return self._transport.reader.heard >= asked or not self.usable


def _url(options: RabbitOptions, address: Address) -> URL:
    host, port = address
    scheme = "amqps" if options.tls else "amqp"
    login = f"{quote(options.username, safe='')}:{quote(options.password.reveal(), safe='')}"
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    query = f"heartbeat={options.heartbeat}{'&auth=external' if options.external else ''}"
    return URL(f"{scheme}://{login}@{place}/{quote(options.vhost, safe='')}?{query}", encoded=True)


async def _channel(amqp: AmqpConnection, *, confirms: bool) -> Channel:
    channel = await amqp.channel(publisher_confirms=confirms, frame_buffer_size=_BUFFER)
    assert isinstance(channel, Channel)
    return channel
