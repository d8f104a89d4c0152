"""The producer that all components with the same settings share."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Future, Task
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    UnknownProducerId,
)
from aiokafka.structs import TopicPartition

from lapel.coalesce import mark_not_sent
from lapel.driver import SharedClients
from lapel.errors import ClosedError, InvalidArgumentError, LapelError, UnavailableError

from .client import Access
from .errors import not_stored, translate
from .lifecycle import start, stop_producer, to_its_end
from .options import KafkaOptions
from .records import Outgoing, partition_of

__all__ = ["BATCH_BYTES", "KafkaProducer", "ProducerLease"]

BATCH_BYTES = 256 * 1024
"""Most bytes of one partition that share a request. The client's own 16 KiB would hold a single larger message."""
LOOK_SECONDS = 1.0
"""How long the partitions of a topic are taken to be what they were."""
_BROKEN = (InvalidProducerEpoch, OutOfOrderSequenceNumber, ProducerClosed, ProducerFenced, UnknownProducerId)
"""After one of these a producer sends nothing any more."""


class _Known(msgspec.Struct, gc=False):
    """The partitions of a topic, as they were a moment ago."""

    until: float
    every: list[int]
    available: list[int]
    places: dict[int, TopicPartition]


class KafkaProducer:
    """Publishes records; concurrent calls share requests. Calls may overlap and belong to one event loop.

    With `acks` of `all` it is idempotent: the client repeats what was not acknowledged, in order, for as long as it
    takes, and the broker recognizes repetitions. A record whose caller has gone may so be stored later; the caller's
    error says that nobody knows.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self._producer: AIOKafkaProducer | None = None
        self._renewing: Task[None] | None = None
        self._stopping: set[Task[None]] = set()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._partitions: dict[str, _Known] = {}
        self._timeout = access.arguments()["request_timeout_ms"] / 1000

    @classmethod
    async def open(cls, options: KafkaOptions) -> KafkaProducer:
        """Connect. Raises `UnavailableError`, `PermissionDeniedError` or `ConfigurationError`."""
        access = await Access.make(options)
        self = cls(access)
        try:
            self._producer = await self._start()
        except BaseException:
            await access.close()
            raise
        return self

    @property
    def sdk(self) -> AIOKafkaProducer:
        """The client in use."""
        if self._producer is None or self._closed:
            raise ClosedError("the driver is not open")
        return self._producer

    @property
    def place(self) -> str:
        """Names the cluster in error texts."""
        return self.access.options.place

    async def publish(self, record: Outgoing) -> None:
        """Return when the broker has acknowledged the record."""
        producer = self.sdk
        try:
            stored = await self._send(producer, record)
        except CancelledError as exc:
            mark_not_sent(exc)
            raise
        except (KafkaError, AssertionError) as exc:
            raise self._refused(producer, record, exc) from None
        try:
            await stored
        except KafkaError as exc:
            raise self._failed(producer, exc) from None

    async def publish_all(self, records: Sequence[Outgoing | LapelError]) -> list[LapelError | None]:
        """Send records in order and return None or its error for each. What is an error already is passed through.

        A cancellation counts as one before anything was sent only while the client has taken none of the records.
        """
        producer = self.sdk
        pending: list[Future[Any] | LapelError] = []
        futures: list[Future[Any]] = []
        for record in records:
            if isinstance(record, LapelError):
                pending.append(record)
                continue
            try:
                futures.append(await self._send(producer, record))
                pending.append(futures[-1])
            except CancelledError as exc:
                if not futures:
                    mark_not_sent(exc)
                raise
            except (KafkaError, AssertionError, LapelError) as exc:
                pending.append(self._refused(producer, record, exc))
        if futures:
            await asyncio.wait(futures)
        results: list[LapelError | None] = []
        for found in pending:
            if isinstance(found, LapelError):
                results.append(found)
            else:
                error = found.exception()
                results.append(None if error is None else self._failed(producer, error))
        return results

    async def partitions(self, topic: str) -> set[int]:
        """Return the partitions of a topic, which is made if the brokers do that."""
        try:
            return set(await self.sdk.partitions_for(topic))
        except KafkaError as exc:
            raise translate(exc, f"{self.place}, topic {topic!r}") from None

    async def ping(self) -> None:
        """Ask a broker for the topics in use. Raises `UnavailableError`."""
        if not await self.sdk.client.force_metadata_update():
            raise UnavailableError(f"{self.place}: no broker answers")

    async def close(self) -> None:
        """Send what is waiting, for at most some seconds, and end all connections. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))
        if self._producer is not None:
            self._retire(self._producer)
        if self._stopping:
            await asyncio.wait(self._stopping)
        await self.access.close()

    async def _start(self) -> AIOKafkaProducer:
        options = self.access.options
        producer = AIOKafkaProducer(
            **self.access.arguments(),
            acks=options.acks,
            enable_idempotence=options.acks == "all",
            compression_type=options.compression,
            max_batch_size=min(BATCH_BYTES, options.max_message_bytes),
            max_request_size=options.max_message_bytes,
            partitioner=partition_of,
        )
        try:
            await start(producer)
        except BaseException as exc:
            await to_its_end(stop_producer(producer), "give up Kafka producer")
            if isinstance(exc, KafkaError):
                raise await self.access.explain(exc) from None
            raise
        return producer

    def _send(self, producer: AIOKafkaProducer, record: Outgoing) -> Coroutine[Any, Any, Future[Any]]:
        """Hand a record to the client, to be awaited at once."""
        place = self._choose(record) if record.partition is None else None
        if place is None:
            return self._send_carefully(producer, record)
        # What the client's `send` does for a topic that it knows, without looking everything up again for each message.
        sending: Coroutine[Any, Any, Future[Any]] = producer._message_accumulator.add_message(
            place, record.key, record.value, self._timeout, headers=record.headers
        )
        return sending

    async def _send_carefully(self, producer: AIOKafkaProducer, record: Outgoing) -> Future[Any]:
        number = None if record.partition is None else await self._checked(producer, record)
        stored: Future[Any] = await producer.send(
            record.topic, record.value, key=record.key, partition=number, headers=record.headers
        )
        return stored

    def _choose(self, record: Outgoing) -> TopicPartition | None:
        """Choose a partition; None, which leaves it to the client, while the topic is new to us."""
        now = self._loop.time()
        known = self._partitions.get(record.topic)
        if known is None or now > known.until:
            cluster = self.sdk.client.cluster
            every = cluster.partitions_for_topic(record.topic)
            if not every:
                return None
            available = cluster.available_partitions_for_topic(record.topic) or every
            known = self._partitions[record.topic] = _Known(
                now + LOOK_SECONDS,
                sorted(every),
                sorted(available),
                {number: TopicPartition(record.topic, number) for number in every},
            )
        if len(known.every) == 1:
            return known.places[known.every[0]]
        return known.places[partition_of(record.key, known.every, known.available)]

    async def _checked(self, producer: AIOKafkaProducer, record: Outgoing) -> int:
        known = await producer.partitions_for(record.topic)
        if record.partition is None or record.partition not in known:
            raise InvalidArgumentError(
                f"topic {record.topic!r} has no partition {record.partition}; it has {len(known)}"
            )
        return record.partition

    def _refused(self, producer: AIOKafkaProducer, record: Outgoing, exc: Exception) -> LapelError:
        """Return the error of a record that the client did not take."""
        if isinstance(exc, AssertionError):
            # What the client says of a partition that it does not know any more.
            self._partitions.pop(record.topic, None)
            return UnavailableError(f"{self.place}: topic {record.topic!r} was made anew; nothing was sent")
        if isinstance(exc, _BROKEN):
            self._renew(producer)
            return UnavailableError(f"{self.place}: the producer is being replaced; nothing was sent")
        return translate(exc, f"{self.place}, topic {record.topic!r}")

    def _failed(self, producer: AIOKafkaProducer, error: BaseException) -> LapelError:
        # A batch that was refused leaves a gap in the sequence, after which the broker takes no other one.
        self._renew(producer)
        return not_stored(error, self.place)

    def _renew(self, producer: AIOKafkaProducer) -> None:
        """Replace a producer that has failed; what others wait for is still sent by the old one, if it can."""
        if producer is self._producer and self._renewing is None and not self._closed:
            self._renewing = asyncio.create_task(self._replace(producer), name="lapel renew Kafka producer")

    async def _replace(self, producer: AIOKafkaProducer) -> None:
        try:
            self._producer = await self._start()
        except LapelError:
            # The next failure tries again.
            return
        finally:
            self._renewing = None
        self._retire(producer)

    def _retire(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(stop_producer(producer), name="lapel stop Kafka producer")
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)


class ProducerLease:
    """The producer that a driver holds while it is open, shared through `SharedClients`."""

    def __init__(self, options: KafkaOptions, shared: SharedClients) -> None:
        self._key = ("kafka", options)
        self._options = options
        self._shared = shared
        self._producer: KafkaProducer | None = None

    @property
    def producer(self) -> KafkaProducer:
        """The producer while it is held. Raises `ClosedError`."""
        if self._producer is None:
            raise ClosedError("the driver is not open")
        return self._producer

    async def acquire(self) -> KafkaProducer:
        """Return the producer of these options, connected."""
        self._producer = await self._shared.acquire(
            self._key, lambda: KafkaProducer.open(self._options), KafkaProducer.close
        )
        return self._producer

    async def release(self) -> None:
        """Give it back. Does nothing when it is not held."""
        if self._producer is not None:
            self._producer = None
            await self._shared.release(self._key)
