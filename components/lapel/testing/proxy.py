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

__all__ = ["Counters", "FaultProxy", "Sightings", "Trap"]

CHUNK = 65_536
CONNECT_SECONDS = 5.0
LONGEST_PATTERN = 256
"""Bytes that a pattern may have, and be spread over two chunks."""


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
    trickled_pieces: int = 0


class _Mode(Enum):
    PASS = auto()
    REFUSE = auto()
    BLACK_HOLE = auto()


@dataclass(slots=True, eq=False)
class Trap:
    """A fault that waits for its moment and strikes once.

    `pattern` is looked for in what the driver sends, or with `in_reply` in what the backend sends; empty means the next
    bytes whatever they are. `forward` says whether a request reaches the backend before the connection is cut.
    `request` holds the bytes that set it off.
    """

    pattern: bytes
    forward: bool
    in_reply: bool = False
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


@dataclass(slots=True, eq=False)
class Sightings:
    """How often a text was in what came from drivers, on all connections together, forwarded or not."""

    pattern: bytes
    count: int = 0


class FaultProxy:
    """Forwards TCP connections on a loopback port to `host` and `port`, with faults on demand.

    `listen` is the port to listen on, 0 for any that is free. Faults hold until `heal`, for connections that are there
    and for new ones; traps strike once. One event loop.
    """

    def __init__(self, host: str, port: int, *, listen: int = 0) -> None:
        self.counters = Counters()
        self._target = (host, port)
        self._listen = listen
        self._sightings: list[Sightings] = []
        self._piece = 0
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
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._listen)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        self._flow.set()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    # faults

    def heal(self) -> None:
        """Let everything pass again. What was frozen goes on.

        A connection of which something was swallowed stays as it is, silent: no network goes on behind lost bytes.
        """
        self._mode, self._delay, self._piece = _Mode.PASS, 0.0, 0
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

    def trickle(self, size: int) -> None:
        """Hand on pieces of `size` bytes in both directions, each in a packet of its own."""
        self._piece = size

    def freeze(self) -> None:
        """Move no byte in either direction, as a stopped backend: connections stay, new ones are accepted."""
        self._flow.clear()

    def black_hole(self) -> None:
        """Swallow every byte in both directions, as after a silent loss of the network (half-open connections).

        After `heal` that goes on for connections which lost something; all others are as before.
        """
        self._mode = _Mode.BLACK_HOLE

    def cut_request(self, pattern: bytes = b"") -> Trap:
        """Reset the connection when a request with `pattern` comes; the backend never sees that request."""
        return self._arm(Trap(pattern, forward=False))

    def drop_reply(self, pattern: bytes = b"") -> Trap:
        """Let a request with `pattern` through and reset the connection in place of its reply.

        The backend has done what was asked: the trap strikes when the first byte of the reply has come.
        """
        return self._arm(Trap(pattern, forward=True))

    def cut_reply(self, pattern: bytes) -> Trap:
        """Reset the connection when the backend sends `pattern`, such as a message, before the driver has it."""
        return self._arm(Trap(pattern, forward=True, in_reply=True))

    def sightings(self, pattern: bytes) -> Sightings:
        """Count from now on how often drivers send `pattern`, of at most `LONGEST_PATTERN` bytes."""
        if not 0 < len(pattern) <= LONGEST_PATTERN:
            raise ValueError(f"a pattern to count has 1 to {LONGEST_PATTERN} bytes")
        self._sightings.append(found := Sightings(pattern))
        return found

    # inside

    def _arm(self, trap: Trap) -> Trap:
        self._traps.append(trap)
        return trap

    def _look(self, before: bytes, chunk: bytes) -> Trap | None:
        """Count what is to be counted, and return the trap that this chunk, with what came before it, sets off."""
        both = before + chunk
        for one in self._sightings:
            one.count += both.count(one.pattern) - before.count(one.pattern)
        return self._sprung(before, chunk, in_reply=False)

    def _sprung(self, before: bytes, chunk: bytes, *, in_reply: bool) -> Trap | None:
        both = before + chunk
        for trap in self._traps:
            if trap.in_reply is in_reply and both.count(trap.pattern) > before.count(trap.pattern):
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
        before = b""
        while chunk := await source.read(CHUNK):
            self.counters.request_bytes += len(chunk)
            await self._hold_back()
            trap = self._look(before, chunk)
            before = (before + chunk)[1 - LONGEST_PATTERN :]
            if self._swallows(link):
                self.counters.dropped_request_bytes += len(chunk)
                continue
            if trap is not None and not trap.forward:
                self.counters.dropped_request_bytes += len(chunk)
                self._end(link, trap)
                return
            if trap is not None:
                link.trap = trap
            await self._hand_on(chunk, sink)
        if sink.can_write_eof():
            sink.write_eof()

    async def _replies(self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        before = b""
        while chunk := await source.read(CHUNK):
            self.counters.reply_bytes += len(chunk)
            await self._hold_back()
            if (trap := link.trap or self._sprung(before, chunk, in_reply=True)) is not None:
                self.counters.dropped_reply_bytes += len(chunk)
                self._end(link, trap)
                return
            before = (before + chunk)[1 - LONGEST_PATTERN :]
            if self._swallows(link):
                self.counters.dropped_reply_bytes += len(chunk)
                continue
            await self._hand_on(chunk, sink)
        # The backend ended the connection: so do we, or a driver would wait on a line that is dead.
        link.reset()

    def _swallows(self, link: _Link) -> bool:
        link.swallowed = link.swallowed or self._mode is _Mode.BLACK_HOLE
        return link.swallowed

    async def _hand_on(self, chunk: bytes, sink: asyncio.StreamWriter) -> None:
        size = self._piece or len(chunk)
        for start in range(0, len(chunk), size):
            sink.write(chunk[start : start + size])
            await sink.drain()
            if size < len(chunk):
                self.counters.trickled_pieces += 1
                await asyncio.sleep(0)

    async def _hold_back(self) -> None:
        if self._delay:
            self.counters.delayed_chunks += 1
            await asyncio.sleep(self._delay)
        await self._flow.wait()

    def _end(self, link: _Link, trap: Trap) -> None:
        self.counters.cut += 1
        link.reset()
        trap._strike()


@dataclass(slots=True, eq=False)
class _Link:
    client: asyncio.StreamWriter
    backend: asyncio.StreamWriter
    trap: Trap | None = None
    swallowed: bool = False

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
