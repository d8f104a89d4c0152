"""A broker that does what a real one cannot be made to do: to answer late, wrongly, or with the end of the line."""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import pamqp.frame
from pamqp import commands
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from lapel.driver import DriverContext
from lapel.secret import Secret
from lapel_contrib.rabbitmq.link import Link
from lapel_contrib.rabbitmq.options import RabbitOptions
from lapel_contrib.rabbitmq.pubsub import RabbitPubSub
from lapel_contrib.rabbitmq.pubsub_settings import RabbitPubSubSettings

__all__ = ["TUNE", "FakeBroker", "Peer", "Script", "until"]

PATIENCE = 20.0
_CAPABILITIES = {"publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True}
_BEGIN = commands.Connection.Start(
    server_properties={"capabilities": {**_CAPABILITIES, "connection.blocked": True}},
    mechanisms="PLAIN",
    locales="en_US",
)
TUNE = commands.Connection.Tune(channel_max=2047, frame_max=131072, heartbeat=60)


class Peer:
    """One connection, as the broker sees it. `number` counts from 1."""

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.writer = writer

    def send(self, frame: Any, channel: int = 0) -> None:
        self.send_together([frame], channel)

    def send_together(self, frames: Iterable[Any], channel: int) -> None:
        """Send frames in such a way that all are there when the first is read."""
        self.writer.write(b"".join(pamqp.frame.marshal(frame, channel) for frame in frames))

    def deliver(self, channel: int, consumer: str | None, tag: int, body: bytes, **headers: Any) -> None:
        deliver = commands.Basic.Deliver(
            consumer_tag=consumer, delivery_tag=tag, redelivered=False, exchange="t", routing_key=""
        )
        properties = commands.Basic.Properties(headers=headers)
        for frame in (deliver, ContentHeader(body_size=len(body), properties=properties), ContentBody(body)):
            self.send(frame, channel)


Script = Callable[[Peer, int, Any], bool]
"""Sees each frame and its channel; True when it has dealt with it, so that the usual answer is not given."""


class FakeBroker:
    """Listens on a free port, and answers as a broker does whatever `script` leaves to it."""

    def __init__(self, script: Script | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.frames: list[tuple[int, Any]] = []
        self.peers: list[Peer] = []
        self.deaf = False
        self._tls = tls
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> FakeBroker:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for peer in self.peers:
            peer.writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE)

    def options(self, **changes: Any) -> RabbitOptions:
        given = {"hosts": (("127.0.0.1", self.port),), "password": Secret("guest"), "reconnect_wait": 0.1, **changes}
        return RabbitOptions(**given)

    def link(self, context: ssl.SSLContext | None = None) -> Link:
        return Link(self.options(tls=context is not None), context, "test", logging.getLogger("tests.rabbitmq"))

    def driver(self, **fields: str) -> RabbitPubSub:
        place = {"connectionString": f"amqp://127.0.0.1:{self.port}", "deletedWhenUnused": "false"}
        settings = RabbitPubSubSettings.parse({**place, "consumerID": "shop", **fields})
        return RabbitPubSub(settings, DriverContext(component="bus"))

    def seen(self, kind: type[Any]) -> list[Any]:
        """Return the frames of a kind that came."""
        return [frame for _, frame in self.frames if isinstance(frame, kind)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(len(self.peers) + 1, writer)
        self.peers.append(peer)
        try:
            if self.deaf:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await writer.wait_closed()
                return
            await reader.readexactly(8)
            peer.send(_BEGIN)
            while not writer.is_closing():
                head = await reader.readexactly(7)
                rest = await reader.readexactly(struct.unpack(">I", head[3:])[0] + 1)
                _, channel, frame = pamqp.frame.unmarshal(head + rest)
                self.frames.append((channel, frame))
                if self.script is None or not self.script(peer, channel, frame):
                    _answer(peer, channel, frame)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


def _answer(peer: Peer, channel: int, frame: Any) -> None:
    reply: Frame
    match frame:
        case commands.Connection.StartOk():
            reply = TUNE
        case commands.Connection.Open():
            reply = commands.Connection.OpenOk()
        case commands.Connection.Close():
            reply = commands.Connection.CloseOk()
        case commands.Channel.Open():
            reply = commands.Channel.OpenOk()
        case commands.Channel.Close():
            reply = commands.Channel.CloseOk()
        case commands.Confirm.Select():
            reply = commands.Confirm.SelectOk()
        case commands.Basic.Qos():
            reply = commands.Basic.QosOk()
        case commands.Basic.Consume():
            reply = commands.Basic.ConsumeOk(consumer_tag=frame.consumer_tag)
        case commands.Basic.Cancel():
            reply = commands.Basic.CancelOk(consumer_tag=frame.consumer_tag)
        case commands.Exchange.Declare(nowait=False):
            reply = commands.Exchange.DeclareOk()
        case commands.Queue.Declare(nowait=False):
            reply = commands.Queue.DeclareOk(queue=frame.queue, message_count=0, consumer_count=1)
        case commands.Queue.Bind(nowait=False):
            reply = commands.Queue.BindOk()
        case _:
            return
    peer.send(reply, channel)


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what
