"""Stand-ins for Redis: a client for consumers of pubsub.redis, and a server whose replies a test decides on."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import hiredis

from lapel.errors import UnavailableError
from lapel_contrib.redis import pubsub_scripts as scripts
from lapel_contrib.redis.client import RedisClient
from lapel_contrib.redis.options import RedisOptions
from lapel_contrib.redis.pubsub_consumer import RedisConsumer
from lapel_contrib.redis.pubsub_member import Terms
from lapel_contrib.redis.pubsub_places import Places
from lapel_contrib.redis.scripts import Call, Script

PATIENCE = 10.0


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)
    assert condition(), what


class FakeGroup:
    """A group of one consumer: hands out what the test puts into it, and writes down which scripts ran on what."""

    def __init__(self) -> None:
        self.options = RedisOptions(hosts=(("fake", 1),))
        self.place = "fake"
        self.new: deque[bytes] = deque()
        self.endless = False
        self.given = 0
        self.handed_back: deque[bytes] = deque()
        self.lost: set[bytes] = set()
        self.ran: list[tuple[str, tuple[bytes, ...]]] = []
        self.gate = asyncio.Event()
        """Closed, it keeps the replies to TAKE back."""
        self.gate.set()
        self.broken: set[Script] = set()
        self.arrived = asyncio.Event()
        self.unblocked = False
        self.channels = 0

    def put(self, *ids: bytes) -> None:
        self.new += ids
        self.arrived.set()

    def on(self, script: Script) -> list[tuple[bytes, ...]]:
        """Return the ids of each run of a script."""
        return [ids for name, ids in self.ran if name == script.name]

    async def channel(self, topic: str) -> FakeChannel:
        self.channels += 1
        return FakeChannel(self)

    async def call(self, *command: Any, key: Any = None, writes: bool = True) -> Any:
        if command[:2] == ("CLIENT", "UNBLOCK"):
            self.unblocked = True
            self.arrived.set()
        if command[0] == "XPENDING":
            return []
        if command[0] == "XACK":
            self.ran.append(("XACK", command[3:]))
        return 1

    async def run(self, script: Script, keys: Any, args: Sequence[Any], *, writes: bool = True) -> Any:
        assert script not in (scripts.TAKE, scripts.RECLAIM), "their replies may be large"
        if script in self.broken:
            raise UnavailableError("broken")
        ids = tuple(arg for arg in args[2:] if isinstance(arg, bytes))
        self.ran.append((script.name, ids))
        if script is scripts.EXTEND:
            return [id_ for id_ in ids if id_ in self.lost]
        return 0

    async def apart(self, call: Call, *, key: str, timeout: float) -> list[Any]:
        assert call.script is not None
        if call.script in self.broken:
            raise UnavailableError("broken")
        if call.script is scripts.RECLAIM:
            ids: tuple[Any, ...] = call.args[2:]
            found, attempt = list(ids), 2
        else:
            found, attempt = [], 1
            while self.handed_back and len(found) < cast("int", call.args[3]):
                found.append(self.handed_back.popleft())
            ids = tuple(found)
        self.ran.append((call.script.name, ids))
        if call.script is scripts.TAKE:
            await self.gate.wait()
        return [[[[id_, attempt, [b"data", id_]] for id_ in found if id_ not in self.lost], 0]]


class FakeChannel:
    def __init__(self, group: FakeGroup) -> None:
        self.open = True
        self._group = group

    async def call(self, *command: Any, timeout: float, writes: bool = False) -> Any:
        group = self._group
        if command[0] == "CLIENT":
            return 7
        await asyncio.sleep(0)
        count = command[5]
        if group.endless:
            group.put(*(b"%d-0" % (group.given + number) for number in range(1, count + 1)))
        while not group.new:
            if group.unblocked:
                group.unblocked = False
                return None
            group.arrived.clear()
            await group.arrived.wait()
        ids = [group.new.popleft() for _ in range(min(count, len(group.new)))]
        group.given += len(ids)
        return [[b"t", [[id_, [b"data", id_]] for id_ in ids]]]

    def close(self) -> None:
        self.open = False


def make_consumer(
    group: FakeGroup, *, lease: float | None = 60.0, most_retries: int = 100, places: Places | None = None
) -> RedisConsumer:
    terms = Terms(topic="t", group="g", name="me", lease=lease, scan=15.0, most_retries=most_retries)
    return RedisConsumer(
        cast("RedisClient", group),
        terms,
        logger=logging.getLogger("test"),
        closed=lambda consumer, clean: None,
        handed_back=lambda consumer: None,
        places=places,
    )


Answer = Callable[[list[bytes]], bytes]
"""Returns the packed reply to a command; none when it is empty."""


class FakeServer:
    """Speaks Redis' protocol; `answer` makes the replies to all but what every connection begins with."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.commands: list[bytes] = []
        self.connections: list[asyncio.StreamWriter] = []
        self.deaf: set[asyncio.StreamWriter] = set()
        """Connections that get no replies any more."""
        self.server: asyncio.Server | None = None

    @property
    def properties(self) -> dict[str, str]:
        assert self.server is not None
        return {"redisHost": f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            if writer in self.deaf:
                continue
            parser.feed(data)
            while (command := parser.gets()) is not False:
                self.commands.append(command[0].upper())
                writer.write(self._reply(command))
        writer.close()

    def _reply(self, command: list[bytes]) -> bytes:
        name = command[0].upper()
        if name in (b"CLIENT", b"SELECT", b"PING"):
            return b"+OK\r\n"
        if name == b"COMMAND":
            return b"*%d\r\n" % (len(command) - 2) + b"*-1\r\n" * (len(command) - 2)
        return self.answer(command)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[FakeServer]:
    fake = FakeServer(answer)
    fake.server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    try:
        yield fake
    finally:
        fake.server.close()
        for writer in fake.connections:
            writer.close()
        await fake.server.wait_closed()
