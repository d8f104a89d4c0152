"""A state store that talks to Redis over one plain connection: right, and in several ways wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from lapel.descriptor import Capability, Descriptor, Kind
from lapel.driver import DriverContext
from lapel.errors import LapelError, OperationFailedError, OutcomeUnknownError, UnavailableError
from lapel.state import DeleteRequest, GetRequest, SetRequest, StateDriver, StateItem
from lapel_contrib.redis.settings import RedisStateSettings

PLAIN = Descriptor(
    kind=Kind.STATE,
    name="plain",
    driver="tests.faults.mutants.plain_redis:PlainState",
    settings="lapel_contrib.redis.settings:RedisStateSettings",
    summary="Texts in Redis, for the tests of the fault suite.",
    capabilities=Capability(0),
)


class PlainState(StateDriver[RedisStateSettings]):
    """One call at a time on one connection, which is given up whenever it is not known what comes next on it."""

    descriptor = PLAIN

    def __init__(self, settings: RedisStateSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        await self.ask(b"PING", writes=False)

    async def close(self) -> None:
        self.drop()

    async def ping(self) -> None:
        await self.ask(b"PING", writes=False)

    async def get(self, request: GetRequest) -> StateItem | None:
        data = await self.ask(b"GET", request.key.encode(), writes=False)
        return None if data is None else StateItem(data=data)

    async def set(self, request: SetRequest) -> str | None:
        await self.ask(b"SET", request.key.encode(), request.value)
        return None

    async def delete(self, request: DeleteRequest) -> None:
        await self.ask(b"DEL", request.key.encode())

    async def ask(self, *command: bytes, writes: bool = True) -> Any:
        """Send a command and return its reply."""
        async with self._turn:
            reader, writer = await self.connected()
            try:
                writer.write(packed(*command))
                await writer.drain()
                return await self.reply(reader)
            except (OSError, EOFError) as exc:
                self.drop()
                raise self.lost(writes) from exc
            except asyncio.CancelledError:
                self.abandoned()
                raise

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the connection, made and logged in if there is none."""
        if self._streams is not None and self._streams[0].at_eof():
            self.drop()
        if self._streams is None:
            host, port = self.settings.options().hosts[0]
            try:
                reader, writer = await asyncio.open_connection(host, port)
                self._streams = reader, writer
                password = self.settings.password
                if password is not None:
                    writer.write(packed(b"AUTH", password.reveal().encode()))
                    await self.reply(reader)
            except (OSError, EOFError) as exc:
                self.drop()
                raise UnavailableError("cannot be reached; nothing was done") from exc
            except asyncio.CancelledError:
                self.drop()
                raise
        return self._streams

    async def reply(self, reader: asyncio.StreamReader) -> Any:
        """Read one reply."""
        line = await reader.readuntil(b"\r\n")
        if line[:1] == b"-":
            raise ConnectionError("refused")
        if line[:1] != b"$":
            return line[1:-2]
        size = int(line[1:])
        return None if size < 0 else (await reader.readexactly(size + 2))[:-2]

    def lost(self, writes: bool) -> LapelError:
        """Return the error for a command that was sent and not answered."""
        return OutcomeUnknownError("no reply came") if writes else UnavailableError("no reply came")

    def abandoned(self) -> None:
        """Do what is needed when a caller goes away while its reply is under way."""
        self.drop()

    def drop(self) -> None:
        """Give the connection up."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].transport.abort()


class SendsWritesAgain(PlainState):
    async def ask(self, *command: bytes, writes: bool = True) -> Any:
        try:
            return await super().ask(*command, writes=writes)
        except OutcomeUnknownError:
            return await super().ask(*command, writes=writes)


class SaysThatNothingWasDone(PlainState):
    def lost(self, writes: bool) -> LapelError:
        return UnavailableError("the connection was lost; nothing was done")


class TakesTheLossForDone(PlainState):
    async def set(self, request: SetRequest) -> str | None:
        try:
            return await super().set(request)
        except OutcomeUnknownError:
            return None


class DoesNotSayWhy(PlainState):
    def lost(self, writes: bool) -> LapelError:
        return OperationFailedError("something went wrong")


class StaysOutOfStep(PlainState):
    """The reply that nobody waits for any more is taken for that of the next call."""

    def abandoned(self) -> None:
        pass


class NeverConnectsAgain(PlainState):
    gone = False

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.gone:
            raise UnavailableError("the connection was lost")
        return await super().connected()

    def drop(self) -> None:
        self.gone = True
        super().drop()


class WaitsTooLong(PlainState):
    """Lets nobody go before the reply has come, or nine seconds have passed."""

    async def set(self, request: SetRequest) -> str | None:
        setting = asyncio.ensure_future(super().set(request))
        ends_at = asyncio.get_running_loop().time() + 9
        while True:
            try:
                return await asyncio.shield(setting)
            except asyncio.CancelledError:
                if setting.cancelled():
                    raise
                if asyncio.get_running_loop().time() > ends_at:
                    setting.cancel()
                    raise
                asyncio.get_running_loop().call_at(ends_at, setting.cancel)


class TakesAPacketForAReply(PlainState):
    async def reply(self, reader: asyncio.StreamReader) -> Any:
        packet = await reader.read(65_536)
        if not packet:
            raise EOFError
        line, _, rest = packet.partition(b"\r\n")
        return None if line == b"$-1" else rest[:-2] if line[:1] == b"$" else line[1:]


def packed(*command: bytes) -> bytes:
    """Return a command as Redis reads it."""
    parts = [b"*%d\r\n" % len(command), *(b"$%d\r\n%b\r\n" % (len(part), part) for part in command)]
    return b"".join(parts)
