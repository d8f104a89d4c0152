"""bindings.rabbitmq."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Any, TypeVar

from aiormq.abc import AbstractConnection, DeliveredMessage
from aiormq.channel import Channel
from pamqp.commands import Queue

from lapel.bindings import BindingDriver, BindingResponse, InvokeRequest, ReadRequest
from lapel.delivery import Consumer, Delivery
from lapel.driver import DriverContext
from lapel.errors import ClosedError
from lapel.pubsub.request_metadata import ttl_of

from . import BINDING
from .binding_settings import RabbitBindingSettings
from .client import ClientLease, RabbitClient
from .consumer import QueueTerms, RabbitConsumer
from .errors import translating
from .link import Link
from .messages import event_metadata, properties_of
from .publisher import Declaration

__all__ = ["RabbitBinding"]

_SKIPPED = frozenset({"ttl", "ttlinseconds"})
_HIGHEST_PRIORITY = 255

T = TypeVar("T")


class RabbitBinding(BindingDriver[RabbitBindingSettings]):
    """One queue: `create` puts the data into it, a reading takes messages out of it.

    Messages are persistent, and `create` returns with the broker's confirmation that the queue has it. All request
    metadata travel as headers; `ttl`, `priority`, `contentType`, `messageID`, `correlationID` and `type` have their
    meaning besides. An event whose handler failed is tried again; it is in the queue again when the reading ends.
    An exclusive queue goes with its connection, and is made again, empty, with the next one.

    `unwrap(aiormq.Connection)` gives the connection that publishes, until it is lost.
    """

    descriptor = BINDING

    def __init__(self, settings: RabbitBindingSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = ClientLease(settings.options(), context.shared, context.logger)
        self._client: RabbitClient | None = None
        self._consumers: set[RabbitConsumer] = set()
        again = None
        if settings.delete_when_unused and not settings.passive:
            again = Queue.Declare(**self._queue(), nowait=True)
        self._declaration = Declaration(f"queue {settings.queue_name!r}", self._declare, again)

    async def open(self) -> None:
        self._client = await self._lease.acquire()
        link = self._link(self._client)
        async with translating(self._client.place, f"the declaration of queue {self.settings.queue_name!r}"):
            connection = await link.connection()
            channel = await connection.channel(confirms=False)
            try:
                await self._declare(channel)
            finally:
                connection.discard(channel)

    async def close(self) -> None:
        self._client = None
        await asyncio.gather(*(consumer.close() for consumer in list(self._consumers)))
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().ping()

    def unwrap(self, kind: type[T]) -> T:
        connection = None if self._client is None else self._client.publishing.now()
        if connection is not None and issubclass(kind, AbstractConnection) and isinstance(connection.amqp, kind):
            return connection.amqp
        return super().unwrap(kind)

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        properties, _ = properties_of(
            request.metadata,
            content_type=self.settings.content_type or "text/plain",
            ttl=ttl_of(request.metadata),
            skipped=_SKIPPED,
            all_headers=True,
        )
        await self._opened().publishers.publish(
            "",
            self.settings.queue_name,
            await _whole(request.data),
            properties,
            self._declaration,
            mandatory=True,
        )
        return BindingResponse()

    async def read(self, request: ReadRequest) -> Consumer:
        settings, client = self.settings, self._opened()
        connection = await self._link(client).connection()
        async with translating(client.place, f"the declaration of queue {settings.queue_name!r}"):
            channel = await connection.channel(confirms=False)
            try:
                await self._declare(channel)
            except BaseException:
                connection.discard(channel)
                raise
        prefetch = min(request.prefetch, settings.prefetch_count or request.prefetch)
        terms = QueueTerms(
            queue=settings.queue_name,
            place=client.place,
            prefetch=prefetch,
            make=_event,
            grows=prefetch == request.prefetch,
            # One that is only looked at belongs to others, who may have made it so.
            auto_delete=settings.delete_when_unused or settings.passive,
        )
        consumer = RabbitConsumer(connection, channel, terms, closed=self._consumers.discard)
        self._consumers.add(consumer)
        try:
            await consumer.arm()
        except BaseException:
            await consumer.close()
            raise
        return consumer

    def _link(self, client: RabbitClient) -> Link:
        # A queue that is exclusive to one connection must be read from the connection that fills it.
        return client.publishing if self.settings.exclusive else client.consuming

    async def _declare(self, channel: Channel) -> None:
        await channel.queue_declare(**self._queue())

    def _queue(self) -> dict[str, Any]:
        settings = self.settings
        if settings.passive:
            return {"queue": settings.queue_name, "passive": True}
        arguments: dict[str, Any] = {}
        if settings.ttl is not None:
            arguments["x-message-ttl"] = max(1, round(settings.ttl.total_seconds() * 1000))
        if settings.max_priority is not None:
            arguments["x-max-priority"] = min(settings.max_priority, _HIGHEST_PRIORITY)
        return {
            "queue": settings.queue_name,
            "durable": settings.durable,
            "exclusive": settings.exclusive,
            "auto_delete": settings.delete_when_unused,
            "arguments": arguments,
        }

    def _opened(self) -> RabbitClient:
        if self._client is None:
            raise ClosedError("the driver is not open")
        return self._client


def _event(message: DeliveredMessage) -> Delivery:
    properties = message.header.properties
    return Delivery(message.delivery_tag, "", message.body, event_metadata(properties), properties.content_type or None)


async def _whole(data: bytes | AsyncIterable[bytes] | None) -> bytes:
    if data is None or isinstance(data, bytes):
        return data or b""
    return b"".join([chunk async for chunk in data])
