"""bindings.kafka."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TypeVar

from aiokafka import AIOKafkaProducer

from lapel.bindings import BindingDriver, BindingResponse, InvokeRequest, ReadRequest
from lapel.delivery import Backoff, Consumer, Ordering
from lapel.descriptor import Capability, Limits
from lapel.driver import DriverContext
from lapel.errors import ConfigurationError, InvalidArgumentError

from . import BINDING
from .component_settings import KafkaBindingSettings
from .groups import Groups
from .producer import ProducerLease
from .records import OVERHEAD, check_topic, encode

__all__ = ["KafkaBinding"]

T = TypeVar("T")


class KafkaBinding(BindingDriver[KafkaBindingSettings]):
    """Messages from and to topics of Kafka, without an envelope.

    `create` sends the data to `publishTopic` and returns when all replicas in sync have it. Request metadata become
    headers; `partitionKey` or `__key` is the message's key and `partitionNumber` its partition. No data under a key, or
    the text `null`, is a tombstone. Input gives the messages of `topics` to members of `consumerGroup`, each message
    once; `consumeRetryEnabled` says whether failed ones come again. `unwrap(aiokafka.AIOKafkaProducer)` gives the
    producer.
    """

    descriptor = BINDING

    def __init__(self, settings: KafkaBindingSettings, context: DriverContext) -> None:
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
        if not self.settings.topics:
            self.withdraw(Capability.INPUT, "the component names no topics")
        if self.settings.publish_topic is None:
            self.withdraw(Capability.OUTPUT, "the component names no publishTopic")
        if not self.settings.retry:
            self.withdraw(Capability.REDELIVERY, "consumeRetryEnabled is false")

    async def close(self) -> None:
        await self._groups.close()
        await self._lease.release()

    async def ping(self) -> None:
        await self._lease.producer.ping()

    def unwrap(self, kind: type[T]) -> T:
        if kind is AIOKafkaProducer:
            return self._lease.producer.sdk  # type: ignore[no-any-return]  # aiokafka has no types
        return super().unwrap(kind)

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        topic = self.settings.publish_topic
        if topic is None:
            raise ConfigurationError("field 'publishTopic' is required for output")
        data = request.data or b""
        if isinstance(data, AsyncIterable):
            data = await self._read(data)
        record = encode(topic, data, None, None, request.metadata, exclude=self._exclude, limit=self._limit)
        await self._lease.producer.publish(record)
        return BindingResponse()

    async def _read(self, stream: AsyncIterable[bytes]) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in stream:
            size += len(part)
            if size > self._limit:
                raise InvalidArgumentError(f"the data is over maxMessageBytes, which is {self._limit}")
            parts.append(part)
        return b"".join(parts)

    async def read(self, request: ReadRequest) -> Consumer:
        settings = self.settings
        if not settings.topics or settings.consumer_group is None:
            raise ConfigurationError("fields 'topics' and 'consumerGroup' are required for input")
        for topic in settings.topics:
            check_topic(topic)
        return await self._groups.subscribe(
            self._lease.producer,
            settings.consumer_group,
            frozenset(settings.topics),
            ordering=Ordering.NONE,
            revoked=None,
        )
