"""pubsub.rabbitmq."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aiormq.abc import AbstractConnection, DeliveredMessage

from lapel.delivery import Consumer, Delivery, Ordering
from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import ClosedError, InvalidArgumentError, NotFoundError, UnavailableError
from lapel.pubsub.driver import PubSubDriver
from lapel.pubsub.types import PublishRequest, SubscribeRequest

from . import PUBSUB
from .client import ClientLease, RabbitClient
from .consumer import GROWTH, QueueTerms, RabbitConsumer
from .errors import translating
from .messages import attributes_of, properties_of, short_text, truthy
from .publisher import Declaration
from .pubsub_settings import RabbitPubSubSettings
from .topology import QueuePlan, check_name, exchange_declaration, plan

__all__ = ["RabbitPubSub"]

_SKIPPED = frozenset({"routingkey", "ttl", "ttlinseconds", "mandatory"})
_KNOWN_TOPICS = 1000
_LARGEST_PREFETCH = 65_535
_SINGLE_ACTIVE = "x-single-active-consumer"

T = TypeVar("T")


class RabbitPubSub(PubSubDriver[RabbitPubSubSettings]):
    """An exchange for each topic, a queue for each group and topic, named and declared as Dapr does.

    Messages are always persistent, and `publish` returns with the broker's confirmation; many may be outstanding. An
    exchange drops what no queue takes: request metadata `mandatory` of `true` makes that an error. `routingKey`,
    `priority`, `contentType`, `messageID`, `correlationID` and `type` mean what they mean in Dapr; all other metadata
    travel as headers, and so does the ordering key.

    Subscriptions have a channel each. Their metadata may name `queueName`, `routingKey`, `queueType`, `maxPriority`,
    `singleActiveConsumer`, `maxLen`, `maxLenBytes` and `deliveryLimit`. An order is kept by a single active consumer:
    one member of the group works, the others stand by. Quorum queues count deliveries, in `x-delivery-count`, also
    those that were handed back unstarted; others do not, and lapel counts. The broker takes a message back when it was
    not settled for 30 minutes, unless it is set otherwise.

    `unwrap(aiormq.Connection)` gives the connection that publishes, until it is lost.
    """

    descriptor = PUBSUB

    order_is_free = False
    """It makes the queue one with a single active consumer. Such a queue is another one to the broker: members of the
    group that declare it without, as sidecars do, are refused, and all members but one stand by."""

    def __init__(self, settings: RabbitPubSubSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = ClientLease(settings.options(), context.shared, context.logger)
        self._client: RabbitClient | None = None
        self._consumers: set[RabbitConsumer] = set()
        self._exchanges: dict[str, Declaration] = {}
        self._ttl = None if settings.ttl is None else settings.ttl.total_seconds()

    @property
    def max_attempts(self) -> int | None:
        """One where the settings send a failed message to the dead-letter queue instead of trying it again."""
        return 1 if self.settings.enable_dead_letter and not self.settings.requeue_in_failure else None

    async def open(self) -> None:
        settings = self.settings
        if not settings.durable or settings.deleted_when_unused:
            self.withdraw(Capability.DURABLE, "queues are kept with durable true and deletedWhenUnused false only")
        if not settings.enable_dead_letter:
            self.withdraw(Capability.DEAD_LETTER, "enableDeadLetter is not set")
        if settings.queue_type != "quorum":
            self.withdraw(Capability.DELIVERY_COUNT, "queueType is not quorum, and other queues do not count")
        if settings.max_priority is None:
            self.withdraw(Capability.PRIORITY, "maxPriority is not set")
        self._client = await self._lease.acquire()
        if settings.deleted_when_unused:
            self.context.logger.warning(
                "component %r has deletedWhenUnused on: when the last consumer of a queue leaves or loses its "
                "connection, the broker deletes the queue with its messages; set it to false to keep them",
                self.context.component,
            )

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

    async def publish(self, request: PublishRequest) -> None:
        properties, special = properties_of(
            request.metadata,
            content_type=request.content_type,
            ttl=self._ttl if request.ttl is None and not request.dead_letter else request.ttl,
            key=request.key,
            skipped=_SKIPPED,
        )
        try:
            await self._opened().publishers.publish(
                request.topic,
                short_text("routingKey", special.get("routingkey", "")),
                request.data,
                properties,
                self._exchange(request.topic),
                mandatory=_flag("mandatory", special.get("mandatory", "")),
            )
        except NotFoundError as exc:
            raise UnavailableError(exc.message) from None

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        ordered = request.ordering is not Ordering.NONE
        wanted = plan(self.settings, request.topic, request.group, request.metadata, ordered=ordered)
        try:
            return await self._arm(wanted, request)
        except InvalidArgumentError as exc:
            if wanted.single_active or _SINGLE_ACTIVE not in exc.message:
                raise
        # The group has a member that keeps an order; without an order one can be a member as well.
        return await self._arm(
            plan(self.settings, request.topic, request.group, request.metadata, ordered=True), request
        )

    async def _arm(self, wanted: QueuePlan, request: SubscribeRequest) -> Consumer:
        settings, client = self.settings, self._opened()
        connection = await client.consuming.connection()
        async with translating(client.place, f"the declaration of queue {wanted.queue!r}"):
            channel = await connection.channel(confirms=False)
            try:
                await wanted.declare(channel)
            except BaseException:
                connection.discard(channel)
                raise
        prefetch = min(request.prefetch, settings.prefetch_count or request.prefetch)
        if settings.concurrency_mode == "single":
            prefetch = 1
        grows = prefetch == request.prefetch
        if wanted.single_active:
            # A second consumer, which is how others get more, would stand by. One key that fails must not use up all.
            if not settings.prefetch_count and grows and request.ordering is not Ordering.ALL:
                prefetch = min(prefetch * GROWTH, _LARGEST_PREFETCH)
            grows = False
        terms = QueueTerms(
            queue=wanted.queue,
            place=client.place,
            prefetch=prefetch,
            make=self._reader(request.topic, wanted.quorum),
            grows=grows,
            counted=wanted.quorum,
            auto_delete=wanted.auto_delete,
            single_active=wanted.single_active,
            auto_ack=settings.auto_ack,
        )
        consumer = RabbitConsumer(connection, channel, terms, closed=self._consumers.discard)
        self._consumers.add(consumer)
        try:
            await consumer.arm()
        except BaseException:
            await consumer.close()
            raise
        return consumer

    def _reader(self, topic: str, quorum: bool) -> Callable[[DeliveredMessage], Delivery]:
        expose = self.settings.properties_to_metadata

        def make(message: DeliveredMessage) -> Delivery:
            properties = message.header.properties
            metadata, key = attributes_of(properties, expose_properties=expose)
            attempt = None
            if quorum:
                count = (properties.headers or {}).get("x-delivery-count", 0)
                attempt = count + 1 if isinstance(count, int) else 1
            return Delivery(
                message.delivery_tag, topic, message.body, metadata, properties.content_type or None, key, attempt
            )

        return make

    def _exchange(self, topic: str) -> Declaration:
        found = self._exchanges.get(topic)
        if found is None:
            check_name("topic", topic)
            if len(self._exchanges) >= _KNOWN_TOPICS:
                self._exchanges.clear()
            found = self._exchanges[topic] = exchange_declaration(self.settings, topic)
        return found

    def _opened(self) -> RabbitClient:
        if self._client is None:
            raise ClosedError("the driver is not open")
        return self._client


def _flag(name: str, text: str) -> bool:
    if text and text.strip().lower() not in _BOOLEANS:
        raise InvalidArgumentError(f"metadata {name} must be true or false, got {text[:40]!r}")
    return truthy(text)


_BOOLEANS = frozenset({"y", "yes", "t", "true", "on", "1", "n", "no", "f", "false", "off", "0"})
