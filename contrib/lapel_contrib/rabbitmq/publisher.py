"""Publishing with confirmations, many of them outstanding at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from pamqp.base import Frame
from pamqp.commands import Basic

from lapel.coalesce import mark_not_sent
from lapel.errors import (
    InvalidArgumentError,
    LapelError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StorageError,
    ThrottledError,
    UnavailableError,
)

from .connection import Connection
from .errors import Cancellation, broker_text, translating, why_closed
from .link import Link

__all__ = ["Declaration", "Publishers"]

LARGE = 4 * 1024 * 1024
"""Bytes. The broker closes the channel of a message that is too large for it; such ones go on channels of their own."""
MOST_CHANNELS = 100
BLOCKED_SECONDS = 3.0


class Declaration:
    """How to make what messages are published to. Whoever publishes keeps it, for it stands for a channel.

    `make` does it on a fresh channel and raises what the client library raises. `again` is a frame that makes it once
    more, without an answer, before each message: for what the broker deletes by itself as soon as nobody uses it.
    """

    __slots__ = ("again", "make", "what")

    def __init__(self, what: str, make: Callable[[Channel], Awaitable[None]], again: Frame | None = None) -> None:
        self.what = what
        self.make = make
        self.again = again


class Publishers:
    """A channel for each thing that is published to, so that what the broker refuses there disturbs no other.

    Channels are made when they are needed; of those that are idle the oldest go when there are too many.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lanes: dict[Declaration, _Lane] = {}

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Basic.Properties,
        declaration: Declaration,
        *,
        mandatory: bool = False,
    ) -> None:
        """Return when the broker has confirmed that it has the message, on disk where the queue is durable.

        `mandatory`: it is an error when no queue takes it. Raises `UnavailableError`, `NotFoundError` (no queue),
        `PermissionDeniedError`, `InvalidArgumentError` or `StorageError` when it was certainly not stored, and
        `OutcomeUnknownError` when nobody knows.
        """
        lane = self._lanes.get(declaration)
        if lane is None:
            lane = self._lane(exchange, declaration)
        if len(body) < LARGE:
            await lane.publish(routing_key, body, properties, mandatory)
            return
        lane = _Lane(self._link, exchange, declaration)
        try:
            await lane.publish(routing_key, body, properties, mandatory)
        finally:
            lane.discard()

    def _lane(self, exchange: str, declaration: Declaration) -> _Lane:
        if len(self._lanes) >= MOST_CHANNELS:
            for other, lane in list(self._lanes.items()):
                if not lane.outstanding:
                    del self._lanes[other]
                    lane.discard()
                    break
        lane = self._lanes[declaration] = _Lane(self._link, exchange, declaration)
        return lane


class _Lane:
    """One exchange, and the channel that messages to it take."""

    def __init__(self, link: Link, exchange: str, declaration: Declaration) -> None:
        self.outstanding = 0
        self._link = link
        self._exchange = exchange
        self._declaration = declaration
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._again: ChannelFrame | None = None
        self._making = asyncio.Lock()
        self._turn = asyncio.Lock()

    async def publish(self, routing_key: str, body: bytes, properties: Basic.Properties, mandatory: bool) -> None:
        self.outstanding += 1
        try:
            try:
                channel = await self._ready()
            except asyncio.CancelledError as exc:
                mark_not_sent(exc)
                raise
            if mandatory and properties.message_id:
                # The library finds the message that came back by its id, which the caller may have given to several.
                async with self._turn:
                    await self._send(channel, routing_key, body, properties, mandatory)
            else:
                await self._send(channel, routing_key, body, properties, mandatory)
        finally:
            self.outstanding -= 1

    def discard(self) -> None:
        """Close the channel in the background."""
        channel, self._channel = self._channel, None
        if channel is not None and self._connection is not None and self._connection.usable:
            self._connection.discard(channel)

    async def _send(
        self, channel: Channel, routing_key: str, body: bytes, properties: Basic.Properties, mandatory: bool
    ) -> None:
        if not _is_open(channel):
            raise self._not_sent()
        # From here to the first frame nothing waits, so the channel stays open until then.
        if self._again is not None:
            channel.write_queue.put_nowait(self._again)
        cancellation = Cancellation()
        try:
            await channel.basic_publish(
                body,
                exchange=self._exchange,
                routing_key=routing_key,
                properties=properties,
                mandatory=mandatory,
                wait=False,
            )
        except asyncio.CancelledError:
            if cancellation.is_ours():
                raise
            raise self._unknown("the connection was lost") from None
        except PublishError:
            raise NotFoundError(
                f"{self._link.place}: no queue takes what is published to {self._declaration.what} with this routing "
                f"key, and the message was mandatory; it was not stored"
            ) from None
        except DeliveryError:
            raise StorageError(
                f"{self._link.place}: it refused the message (a negative confirmation): a queue of "
                f"{self._declaration.what} is full or cannot store; look at its limits and the broker's log"
            ) from None
        except ChannelInvalidStateError:
            raise self._not_sent() from None
        except Exception as exc:
            raise self._failed(channel, exc) from None

    def _failed(self, channel: Channel, exc: BaseException) -> LapelError:
        """Return what the end of the channel means for a message that was not confirmed by then."""
        place, what, text = self._link.place, self._declaration.what, broker_text(exc)
        # All that were not confirmed are still in there. If there is one, it is this one that the broker did not like.
        if len(channel.confirmations) == 1:
            if isinstance(exc, ChannelAccessRefused):
                return PermissionDeniedError(f"{place}: it does not allow to publish to {what} ({text})")
            if isinstance(exc, ChannelNotFoundEntity):
                return UnavailableError(f"{place}: {what} is gone; the message was not stored ({text})")
            if isinstance(exc, ChannelPreconditionFailed):
                return InvalidArgumentError(f"{place}: it cannot take the message ({text})")
        return self._unknown(text or "the connection was lost")

    def _not_sent(self) -> UnavailableError:
        return UnavailableError(f"{self._link.place}: the channel was closed; nothing was sent")

    def _unknown(self, reason: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"{self._link.place}: {reason} before the message to {self._declaration.what} was confirmed; "
            "the broker may or may not have it"
        )

    async def _ready(self) -> Channel:
        channel, connection = self._channel, self._connection
        if channel is None or connection is None or not _is_open(channel) or not connection.usable:
            channel, connection = await self._make()
        if connection.blocked:
            await self._unblocked(connection)
        return channel

    async def _make(self) -> tuple[Channel, Connection]:
        connection = await self._link.connection()
        if connection.blocked:
            # It does not read what would be declared on it either.
            await self._unblocked(connection)
        async with self._making:
            channel, made_on = self._channel, self._connection
            if channel is not None and made_on is not None and _is_open(channel) and made_on.usable:
                return channel, made_on
            connection = await self._link.connection()
            what = self._declaration.what
            async with translating(self._link.place, f"the declaration of {what}"):
                channel = await connection.channel(confirms=True)
                try:
                    await self._declaration.make(channel)
                except BaseException:
                    connection.discard(channel)
                    raise
            again = self._declaration.again
            self._again = None if again is None else ChannelFrame.marshall(channel.number, [again])
            self._channel, self._connection = channel, connection
            return channel, connection

    async def _unblocked(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(BLOCKED_SECONDS):
                await connection.amqp.ready()
        except TimeoutError:
            raise ThrottledError(
                f"{self._link.place}: it takes no messages, because its memory or disk is nearly full; nothing was sent"
            ) from None


def _is_open(channel: Channel) -> bool:
    return not channel.is_closed and why_closed(channel) is None
