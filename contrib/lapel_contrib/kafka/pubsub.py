"""pubsub.kafka."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer

from lapel.delivery import Backoff, Consumer, Ordering
from lapel.descriptor import Limits
from lapel.driver import DriverContext
from lapel.errors import LapelError, UnsupportedError
from lapel.pubsub.driver import PubSubDriver
from lapel.pubsub.types import BulkPublishRequest, PublishRequest, SubscribeRequest

from . import PUBSUB
from .component_settings import KafkaPubSubSettings
from .groups import Groups
from .producer import ProducerLease
from .records import OVERHEAD, Outgoing, check_schema, check_topic, encode

__all__ = ["KafkaPubSub"]

T = TypeVar("T")


class KafkaPubSub(PubSubDriver[KafkaPubSubSettings]):
    """Keeps messages in topics of Kafka, with keys, headers and partitions as Dapr has them.

    `publish` returns when all replicas in sync have the message; a lost connection stores nothing twice. Where a group
    is new it begins as `initialOffset` says. All subscriptions of a component in one group are one member of it, which
    polls and gives signs of life whatever handlers do. Finished messages are committed as far as none before them is
    unfinished; in a rebalance, handlers have some seconds (`sessionTimeout` without `heartbeatInterval` and 2 s) to
    end, and are then cancelled. Attempts are counted in this process. `ordering="key"` holds by partition across the
    group; `"all"` needs a topic with one partition. Partitions are shared out anew by stopping all members: the client
    has no cooperative protocol. Where a log ends before the offset at which the group was, as after its topic was made
    anew, reading begins at its first message, with a warning. Aborted transactions are not delivered.
    `unwrap(aiokafka.AIOKafkaProducer)` gives the producer.
    """

    descriptor = PUBSUB

    def __init__(self, settings: KafkaPubSubSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = ProducerLease(settings.options(), context.shared)
        self._groups = Groups(settings.consumer_options(), context.logger)
        self._exclude = settings.consumer_options().exclude_headers
        self._limit = int(settings.max_message_bytes)

    @property
    def limits(self) -> Limits:
        return Limits(value_bytes=self._limit - OVERHEAD, bulk_items=self.descriptor.limits.bulk_items)

    @property
    def max_attempts(self) -> int | None:
        return self.settings.attempts if self.settings.retry else 1

    @property
    def backoff(self) -> Backoff:
        return self.settings.backoff

    async def open(self) -> None:
        await self._lease.acquire()
        if self.settings.required_acks != "all":
            self.context.logger.warning(
                "component %r publishes with producerRequiredAcks %s: messages can be lost or stored twice",
                self.context.component,
                self.settings.required_acks,
            )

    async def close(self) -> None:
        await self._groups.close()
        await self._lease.release()

    async def ping(self) -> None:
        await self._lease.producer.ping()

    def unwrap(self, kind: type[T]) -> T:
        if kind is AIOKafkaProducer:
            return self._lease.producer.sdk  # type: ignore[no-any-return]  # aiokafka has no types
        return super().unwrap(kind)

    def publish(self, request: PublishRequest) -> Coroutine[Any, Any, None]:
        # Not a coroutine function: one frame less on the way of every message.
        return self._lease.producer.publish(self._encode(request))

    async def bulk_publish(self, request: BulkPublishRequest) -> Sequence[LapelError | None]:
        records: list[Outgoing | LapelError] = []
        for entry in request.entries:
            try:
                records.append(self._encode(entry))
            except LapelError as exc:
                records.append(exc)
        return await self._lease.producer.publish_all(records)

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        producer, topic = self._lease.producer, request.topic
        check_topic(topic)
        check_schema(request.metadata.get("valueSchemaType"))
        if request.ordering is Ordering.ALL:
            count = len(await producer.partitions(topic))
            if count != 1:
                raise UnsupportedError(
                    f'ordering "all" needs a topic with one partition, {topic!r} has {count}; use ordering "key"'
                )
        return await self._groups.subscribe(
            producer, request.group, frozenset((topic,)), ordering=request.ordering, revoked=request.revoked
        )

    def _encode(self, request: PublishRequest) -> Outgoing:
        return encode(
            request.topic,
            request.data,
            request.key,
            request.content_type,
            request.metadata,
            exclude=self._exclude,
            limit=self._limit,
        )
