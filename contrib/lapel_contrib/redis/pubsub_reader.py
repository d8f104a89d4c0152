"""The reads of a consumer that block on the server."""

from __future__ import annotations

import asyncio
from typing import Any

from lapel.errors import ClosedError, LapelError, UnavailableError

from .channel import Channel
from .client import RedisClient

__all__ = ["StreamReader"]

BLOCK_SECONDS = 5.0
"""How long one read waits on the server."""
STOP_SECONDS = 2.0
CUT_SECONDS = 1.0


class StreamReader:
    """Reads new entries of a stream for a consumer of a group, on a connection of its own; one read at a time."""

    def __init__(self, client: RedisClient, topic: str, group: str, name: str) -> None:
        self._client = client
        self._topic = topic
        self._group = group
        self._name = name
        self._margin = client.options.patience
        self._channel: Channel | None = None
        self._id: int | None = None
        self._stopping = False
        self.group_gone = False

    async def read(self, count: int) -> list[Any]:
        """Return up to `count` entries, as soon as there is one, or none after a while.

        Raises `UnavailableError` when the connection is lost or the group is gone. Not to be cancelled: what the
        server has given then is known to nobody; use `stop`.
        """
        channel = self._channel
        if channel is None or not channel.open:
            channel = await self._connect()
        if self._stopping:
            return []
        try:
            reply = await channel.call(
                "XREADGROUP",
                "GROUP",
                self._group,
                self._name,
                "COUNT",
                count,
                "BLOCK",
                int(BLOCK_SECONDS * 1000),
                "STREAMS",
                self._topic,
                ">",
                timeout=BLOCK_SECONDS + self._margin,
            )
        except LapelError as exc:
            # Also one that is whole may lead to a node that does not serve the stream any more.
            channel.close()
            if "NOGROUP" in str(exc):
                self.group_gone = True
                raise UnavailableError(
                    f"{self._client.place}: the stream or its consumer group was deleted; it is created again"
                ) from exc
            raise
        return [] if reply is None else list(reply[0][1])

    async def stop(self, reading: asyncio.Task[Any] | None) -> None:
        """Make a read under way return what it has, if need be by ending the connection. `allow` permits reads."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + STOP_SECONDS, 0.002
        while reading is not None and not reading.done() and loop.time() < end:
            # It may not have reached the server yet, so once is not always enough.
            if self._id is not None and not await self._unblock(self._id, end - loop.time()):
                break
            await asyncio.wait((reading,), timeout=pause)
            pause = min(2 * pause, 0.2)
        if reading is not None and not reading.done():
            self.close()
            await asyncio.wait((reading,), timeout=CUT_SECONDS)
            reading.cancel()

    def allow(self) -> None:
        """Let reads begin again after `stop`."""
        self._stopping = False

    def close(self) -> None:
        """End the connection. Idempotent."""
        self._stopping = True
        channel, self._channel, self._id = self._channel, None, None
        if channel is not None:
            channel.close()

    async def _connect(self) -> Channel:
        channel = await self._client.channel(self._topic)
        if self._stopping:
            channel.close()
            raise ClosedError("the subscription is closed")
        self._channel = channel
        try:
            self._id = await channel.call("CLIENT", "ID", timeout=self._margin)
        except LapelError:
            # Not allowed to know; then a read is stopped by ending the connection.
            if not channel.open:
                raise
            self._id = None
        return channel

    async def _unblock(self, id_: int, seconds: float) -> bool:
        try:
            async with asyncio.timeout(max(seconds, 0.1)):
                await self._client.call("CLIENT", "UNBLOCK", id_, key=self._topic, writes=False)
        except (LapelError, TimeoutError):
            return False
        return True
