"""The host's own server: uvicorn with httptools, uvloop where there is one, and a life that drains before it closes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import UnavailableError
from .asgi import HostApp
from .host import Host
from .options import HostOptions

__all__ = ["configuration", "new_event_loop", "serve"]

BACKLOG = 2048
IDLE_SECONDS = 75
"""How long a connection without a request stays. Longer than what clients keep pooled ones, who would meet a reset."""
HEAD_SECONDS = 10
"""How long a request's head may take, from its first byte."""
SLACK = 4096
"""Bytes beyond the read buffer that a head may have, as in Go's server, which Dapr's is."""
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 31\r\nconnection: close\r\n\r\nRequest Header Fields Too Large"
)
_UPGRADE = re.compile(rb"\r\nupgrade *:", re.IGNORECASE)
_log = logging.getLogger("lapel.host")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return the fastest event loop there is."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


async def serve(app: HostApp, *, listening: Callable[[str, int], None] | None = None) -> None:
    """Start the host, serve until a signal or the shutdown API ends it, drain, and close.

    `listening` is called with address and port once requests are taken. A signal also ends a start that is under way; a
    second one cuts short what is still at work. Raises what opening the components raises, and `UnavailableError` when
    the port is taken.
    """
    host, options = app.host, app.host.options
    with _listen(options.address, options.http_port) as listener, _signals(host.stopping) as forced:
        if not await _started(host):
            await host.stop()
            return
        async with host:
            config = configuration(app, options)
            address, port = listener.getsockname()[:2]
            server = _Server(config, lambda: listening(address, port) if listening is not None else None)
            serving = asyncio.create_task(server.serve(sockets=[listener]), name="lapel http server")
            forcing = asyncio.create_task(_force(server, forced), name="lapel force shutdown")
            try:
                await _first(serving, host.stopping.wait())
                # Deliveries may still call back, so requests are served until all of them are settled.
                await _first(forcing, host.drain())
            finally:
                server.should_exit = True
                try:
                    await serving
                finally:
                    forcing.cancel()


def configuration(app: Any, options: HostOptions) -> uvicorn.Config:
    """Return how uvicorn serves an ASGI application here: nothing around it that a host does not need."""
    return uvicorn.Config(
        app,
        http=_protocol(options.read_buffer_size + SLACK),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round(options.graceful_shutdown_seconds)),
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the host's: it drains first


async def _started(host: Host) -> bool:
    """Start the host; false when it is told to stop before its components are open."""
    starting = asyncio.create_task(host.start(), name="lapel open components")
    try:
        await _first(starting, host.stopping.wait())
        if starting.done():
            await starting
            return True
    finally:
        starting.cancel()
    return False


async def _first(task: asyncio.Task[None], other: Coroutine[Any, Any, Any]) -> None:
    """Wait until either is done; `other` is cancelled when it is not the first."""
    racing = asyncio.ensure_future(other)
    try:
        await asyncio.wait([task, racing], return_when=asyncio.FIRST_COMPLETED)
    finally:
        racing.cancel()


def _protocol(limit: int) -> type[HttpToolsProtocol]:
    """Return the protocol with a bound on request line and headers, which uvicorn's has not."""

    class Bounded(HttpToolsProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._head = 0  # bytes that came since the head began; more than the head where a body follows at once
            self._in_head = True
            self._head_ends_by = 0.0
            self._refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
            super().connection_made(transport)
            self._close_at(self.loop.time() + IDLE_SECONDS)

        def data_received(self, data: bytes) -> None:
            if self._in_head:
                if not self._head:
                    self._head_ends_by = self.loop.time() + HEAD_SECONDS
                self._head += len(data)
                if b"pgrade:" in data or b"PGRADE:" in data:
                    data = _without_upgrade(data)
            super().data_received(data)
            if self._in_head and self._head and not self.transport.is_closing():
                if self._head > limit:
                    self._refuse()
                else:
                    self._close_at(self._head_ends_by)

        def on_headers_complete(self) -> None:
            if self._head > limit and self._size() > limit:
                self._refused = True
                raise ValueError("the head is too large")  # ends the parser, which then answers
            self._in_head = False
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_head, self._head = True, 0
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            if self._refused:
                self._refuse()
            else:
                super().send_400_response(msg)

        def _close_at(self, moment: float) -> None:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_at(moment, self.timeout_keep_alive_handler)

        def _size(self) -> int:
            return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

        def _refuse(self) -> None:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    return Bounded


def _without_upgrade(data: bytes) -> bytes:
    """Rename the header Upgrade in the first head of `data`.

    There is nothing to upgrade to, and HTTP says that a server may ignore it. httptools would take the body for the
    other protocol and drop it; Java's client asks for HTTP/2 in this way with its first request.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-ignore:", head) + end + rest


async def _force(server: uvicorn.Server, forced: asyncio.Event) -> None:
    await forced.wait()
    server.force_exit = True


@contextlib.contextmanager
def _listen(address: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        text = f"cannot listen on {address} port {port}: {exc.strerror or exc}; is another host running?"
        raise UnavailableError(text) from exc
    with listener:
        yield listener


@contextlib.contextmanager
def _signals(stopping: asyncio.Event) -> Iterator[asyncio.Event]:
    """Let SIGINT and SIGTERM set `stopping`, and a second one the event that is returned."""
    forced = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(name: str) -> None:
        _log.info("%s: shutting down", name)
        if stopping.is_set():
            forced.set()
        stopping.set()

    handled = []
    for number in (signal.SIGINT, signal.SIGTERM):
        # Neither Windows nor a thread other than the main one has them; there the shutdown API ends the host.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop, number.name)
            handled.append(number)
    try:
        yield forced
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
