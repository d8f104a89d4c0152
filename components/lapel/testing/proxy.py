"""A TCP proxy that stands between a driver and its backend, breaks the connection, and proves that it did.

```python
async with FaultProxy("127.0.0.1", 6379) as proxy:
    component = ...  # configured with proxy.host and proxy.port
    trap = proxy.drop_reply(b"XADD")
    with pytest.raises(OutcomeUnknownError):
        await pubsub.publish("orders", b"1")
    assert trap.hit
```

A fault that did not hit proves nothing, so every fault can be asked: `Trap.hit`, and `counters`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Self

__all__ = ["Counters", "FaultProxy", "Trap"]

CHUNK = 65_536
CONNECT_SECONDS = 5.0


@dataclass(slots=True)
class Counters:
    """What passed, and what did not. Bytes are those read from a side, whether or not they were forwarded."""

    accepted: int = 0
    refused: int = 0
    cut: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0
    dropped_request_bytes: int = 0
    dropped_reply_bytes: int = 0
    delayed_chunks: int = 0


class _Mode(Enum):
    PASS = auto()
    REFUSE = auto()
    BLACK_HOLE = auto()


@dataclass(slots=True, eq=False)
class Trap:
    """A fault that waits for its moment and strikes once.

    `pattern` is looked for in what the driver sends; empty means the next bytes whatever they are. `forward` says
    whether the request reaches the backend before the connection is cut. `request` holds the bytes that set it off.
    """

    pattern: bytes
    forward: bool
    hit: bool = False
    request: bytes = b""
    _struck: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    async def wait(self, seconds: float = 10.0) -> None:
        """Return when it has struck. Raises `TimeoutError` when it does not: the fault did not hit."""
        async with asyncio.timeout(seconds):
            await self._struck.wait()

    def _strike(self) -> None:
        self.hit = True
        self._struck.set()


class FaultProxy:
    """Forwards TCP connections on a free loopback port to `host` and `port`, with faults on demand.

    Faults hold until `heal`, for connections that are there and for new ones; traps strike once. One event loop.
    """

    def __init__(self, host: str, port: int) -> None:
        self.counters = Counters()
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._traps: list[Trap] = []
        self._mode = _Mode.PASS
        self._delay = 0.0
        self._flow = asyncio.Event()
        self._flow.set()

    @property
    def host(self) -> str:
        """The address to connect to."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port to connect to. The same for the life of the proxy."""
        assert self._server is not None, "the proxy is not started"
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    # faults

    def heal(self) -> None:
        """Let everything pass again. What was frozen goes on; what was dropped is gone."""
        self._mode, self._delay = _Mode.PASS, 0.0
        self._traps.clear()
        self._flow.set()

    def cut(self) -> int:
        """Reset every connection now and return how many there were. New ones are accepted."""
        links = list(self._links)
        for link in links:
            link.reset()
        self.counters.cut += len(links)
        return len(links)

    def refuse(self) -> None:
        """Reset new connections at once; those that are there go on (see `cut`)."""
        self._mode = _Mode.REFUSE

    def delay(self, seconds: float) -> None:
        """Hold back every chunk in both directions."""
        self._delay = seconds

    def freeze(self) -> None:
        """Move no byte in either direction, as a stopped backend: connections stay, new ones are accepted."""
        self._flow.clear()

    def black_hole(self) -> None:
        """Swallow every byte in both directions, as after a silent loss of the network (half-open connections)."""
        self._mode = _Mode.BLACK_HOLE

    def cut_request(self, pattern: bytes = b"") -> Trap:
        """Reset the connection when a request with `pattern` comes; the backend never sees that request."""
        return self._arm(Trap(pattern, forward=False))

    def drop_reply(self, pattern: bytes = b"") -> Trap:
        """Let a request with `pattern` through and reset the connection in place of its reply.

        The backend has done what was asked: the trap strikes when the first byte of the reply has come.
        """
        return self._arm(Trap(pattern, forward=True))

    # inside

    def _arm(self, trap: Trap) -> Trap:
        self._traps.append(trap)
        return trap

    def _sprung(self, chunk: bytes) -> Trap | None:
        for trap in self._traps:
            if trap.pattern in chunk:
                self._traps.remove(trap)
                trap.request = chunk
                return trap
        return None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._mode is _Mode.REFUSE:
            self.counters.refused += 1
            _reset(writer)
            return
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                backend_reader, backend_writer = await asyncio.open_connection(*self._target)
        except (OSError, TimeoutError):
            self.counters.refused += 1
            _reset(writer)
            return
        self.counters.accepted += 1
        link = _Link(writer, backend_writer)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._requests(link, reader, backend_writer))
                pumps.create_task(self._replies(link, backend_reader, writer))
        except* (OSError, ConnectionError):
            pass  # one side went away; both are closed below
        except* asyncio.CancelledError:
            pass  # the proxy ends; asyncio's stream protocol would log a cancelled handler as a fault
        finally:
            self._links.discard(link)
            link.reset()

    async def _requests(self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await self._read(source):
            self.counters.request_bytes += len(chunk)
            trap = self._sprung(chunk)
            if self._mode is _Mode.BLACK_HOLE:
                self.counters.dropped_request_bytes += len(chunk)
                continue
            if trap is not None and not trap.forward:
                self.counters.dropped_request_bytes += len(chunk)
                self._end(link, trap)
                return
            if trap is not None:
                link.trap = trap
            sink.write(chunk)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()

    async def _replies(self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await self._read(source):
            self.counters.reply_bytes += len(chunk)
            if link.trap is not None:
                self.counters.dropped_reply_bytes += len(chunk)
                self._end(link, link.trap)
                return
            if self._mode is _Mode.BLACK_HOLE:
                self.counters.dropped_reply_bytes += len(chunk)
                continue
            sink.write(chunk)
            await sink.drain()
        # The backend ended the connection: so do we, or a driver would wait on a line that is dead.
        link.reset()

    async def _read(self, source: asyncio.StreamReader) -> bytes:
        chunk = await source.read(CHUNK)
        if self._delay:
            self.counters.delayed_chunks += 1
            await asyncio.sleep(self._delay)
        await self._flow.wait()
        return chunk

    def _end(self, link: _Link, trap: Trap) -> None:
        self.counters.cut += 1
        link.reset()
        trap._strike()


@dataclass(slots=True, eq=False)
class _Link:
    client: asyncio.StreamWriter
    backend: asyncio.StreamWriter
    trap: Trap | None = None

    def reset(self) -> None:
        for writer in self._writers():
            _reset(writer)

    def _writers(self) -> Iterable[asyncio.StreamWriter]:
        return self.client, self.backend


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of a clean end, as a crash would."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
