"""pubsub.aws.snssqs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

from aiobotocore.client import AioBaseClient

from lapel.coalesce import Coalescer
from lapel.delivery import Consumer, Delivery
from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import ClosedError, InvalidArgumentError, LapelError, NotFoundError, OutcomeUnknownError
from lapel.pubsub.driver import PubSubDriver
from lapel.pubsub.types import BulkPublishRequest, PublishRequest, SubscribeRequest

from . import PUBSUB
from .client import ANSWER_SECONDS, CLOSE_SECONDS, AwsClients
from .consumer import QueueConsumer
from .errors import SDK_ERRORS, code_of, is_not_allowed, refusal
from .pubsub_settings import SnsSqsSettings
from .pubsub_topology import Topology
from .pubsub_wire import LARGEST, Notification, encode, read
from .queue import BATCH, Queue, Refused, batches_of
from .reader import Message, QueueReader
from .text import new_id

__all__ = ["SnsSqsPubSub"]

T = TypeVar("T")
BATCHES = 8
"""How many batches to one topic are under way at once; one where the order counts."""
LONGEST_GROUP = 128
_ALIVE = frozenset({"InvalidParameter", "NotFound"})

Outgoing = Coalescer[dict[str, Any], None]


class SnsSqsPubSub(PubSubDriver[SnsSqsSettings]):
    """Publishes to topics of SNS; each consumer group has one queue of SQS, to which its topics send.

    `publish` returns when SNS has stored the message; SNS then takes it to the queues of all groups. Calls that overlap
    share requests, up to ten messages in one. Publish metadata become message attributes, on which subscriptions of SNS
    can filter; data that is no text travels as Base64, which the consumer undoes.

    A message stays invisible to other consumers until it is settled, however long its handler takes: its time-out is
    renewed from receipt on, until SQS ends that after twelve hours. Attempts are those that SQS counts, across
    processes; it also counts messages that are handed back. Retries come in whole seconds. A message is never deleted
    unhandled but when its attempts are used up, or when the handler drops it; with a dead-letter queue it goes there.

    All topics of a group come through its one queue. A topic whose handlers are slow therefore makes the others of its
    group wait, and a paused one does too, as long as it is paused, once some twenty of its messages have come; they are
    kept for it and not handed back, for that would count as attempts. Topics that shall not wait for each other want
    groups of their own.

    A queue or topic that is gone is made again, with the subscriptions that were lost, unless `disableEntityManagement`
    is set. The call that finds a topic gone fails; what is published after that reaches the subscriptions made here.

    With `fifo` a message's key is its group, and groups keep their order; with `fifoMessageGroupID` all messages are
    one group. Every message is stored, also one with the content of another.

    `unwrap(aiobotocore.client.AioBaseClient)` returns the client of SNS.
    """

    descriptor = PUBSUB

    def __init__(self, settings: SnsSqsSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._clients = AwsClients(settings.options(), context.shared)
        self._sns: Any = None
        self._topology: Topology | None = None
        self._outgoing: dict[str, Outgoing] = {}
        self._readers: dict[str, QueueReader] = {}

    @property
    def max_attempts(self) -> int | None:
        settings = self.settings
        return None if settings.keep_failed or settings.dead_letter_queue is not None else settings.retry_limit

    async def open(self) -> None:
        settings = self.settings
        if not settings.fifo:
            self.withdraw(Capability.ORDER_BY_KEY | Capability.ORDER_ALL, "fifo is not set")
        elif settings.fifo_group is None:
            self.withdraw(Capability.ORDER_ALL, "fifoMessageGroupID is not set, so each key has an order of its own")
        if settings.dead_letter_queue is None:
            self.withdraw(Capability.DEAD_LETTER, "sqsDeadLettersQueueName is not set")
        self._sns = await self._clients.client("sns")
        sqs = await self._clients.client("sqs")
        self._topology = Topology(settings, self._clients, self._sns, sqs, self.context.logger)
        await self.ping()

    async def close(self) -> None:
        topology, self._topology = self._topology, None
        try:
            await asyncio.gather(
                *([] if topology is None else [topology.close()]),
                *(outgoing.close(CLOSE_SECONDS) for outgoing in self._outgoing.values()),
                *(reader.close() for reader in list(self._readers.values())),
            )
        finally:
            await self._clients.close()

    async def ping(self) -> None:
        # Any answer is a sign of life, also that there is no such topic, or that it is not ours to see.
        try:
            await self._sns.get_topic_attributes(
                TopicArn=f"arn:aws:sns:{self._sns.meta.region_name}:000000000000:lapel"
            )
        except SDK_ERRORS as exc:
            if code_of(exc) not in _ALIVE and not is_not_allowed(exc):
                raise self._clients.translate(exc, "SNS", writes=False) from None

    def unwrap(self, kind: type[T]) -> T:
        return self._sns if kind is AioBaseClient and self._sns is not None else super().unwrap(kind)

    # publishing

    async def publish(self, request: PublishRequest) -> None:
        entry, size = self._entry(request)
        await (await self._to(request.topic)).submit(entry, size)

    async def bulk_publish(self, request: BulkPublishRequest) -> Sequence[LapelError | None]:
        outgoing = await self._to(request.topic)
        results: list[LapelError | None] = [None] * len(request.entries)

        async def send(number: int, entry: dict[str, Any], size: int) -> None:
            try:
                await outgoing.submit(entry, size)
            except LapelError as exc:
                results[number] = exc

        async with asyncio.TaskGroup() as tasks:
            for number, each in enumerate(request.entries):
                try:
                    entry, size = self._entry(each)
                except LapelError as exc:
                    results[number] = exc
                else:
                    tasks.create_task(send(number, entry, size))
        return results

    def _entry(self, request: PublishRequest) -> tuple[dict[str, Any], int]:
        limit = self.limits.value_bytes
        if limit is not None and len(request.data) > limit:
            raise InvalidArgumentError(f"a message of {len(request.data)} bytes is over the limit of {limit}")
        entry, size = encode(request)
        if self.settings.fifo:
            entry["MessageGroupId"] = self._group_of(request.key)
            entry["MessageDeduplicationId"] = new_id()
        return entry, size

    def _group_of(self, key: str | None) -> str:
        if self.settings.fifo_group is not None:
            return self.settings.fifo_group
        if key is None:
            return (self.settings.consumer_id or self.context.app_id or self.context.component)[:LONGEST_GROUP]
        # Groups are printable ASCII without spaces; what is not, is told apart by its code points.
        group = "".join(char if "!" < char < "\x7f" and char != "%" else f"%{ord(char):X};" for char in key)
        if len(group) > LONGEST_GROUP:
            raise InvalidArgumentError(f"the key is longer than the {LONGEST_GROUP} characters of a message group")
        return group

    async def _to(self, topic: str) -> Outgoing:
        topology = self._opened()
        await topology.topic(topic)
        outgoing = self._outgoing.get(topic)
        if outgoing is None:
            outgoing = self._outgoing[topic] = Coalescer(
                partial(self._send, topic),
                max_items=BATCH,
                max_bytes=LARGEST,
                concurrency=1 if self.settings.fifo else BATCHES,
                name=f"SNS topic {topic}",
            )
        return outgoing

    async def _send(self, topic: str, entries: Sequence[dict[str, Any]]) -> Sequence[LapelError | None]:
        topology = self._opened()
        place = f"SNS topic {topology.name_of(topic)!r}"
        numbered = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
        call = self._sns.publish_batch(TopicArn=await topology.topic(topic), PublishBatchRequestEntries=numbered)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reply = await call
        except SDK_ERRORS as exc:
            error = self._clients.translate(exc, place, writes=True)
            if isinstance(error, NotFoundError):
                topology.forget(topic)
            raise error from None
        results: list[LapelError | None] = [OutcomeUnknownError(f"{place}: the reply does not tell")] * len(entries)
        for done in reply.get("Successful") or ():
            results[int(done["Id"])] = None
        for failed in reply.get("Failed") or ():
            results[int(failed["Id"])] = refusal(
                failed.get("Code", ""),
                failed.get("Message", ""),
                place,
                service_fault=not failed.get("SenderFault", True),
                writes=True,
            )
        return results

    # subscribing

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        topology = self._opened()
        queue = await topology.connect(request.topic, request.group)
        dead = await topology.dead_letters()
        settings = self.settings
        limit = 1 if settings.concurrency_mode == "single" else settings.concurrency_limit or None
        return QueueConsumer(
            self._reader(queue),
            topology.name_of(request.topic),
            partial(_delivery, request.topic),
            logger=self.context.logger,
            limit=limit,
            dead_letter=None if dead is None else partial(_bury, dead),
        )

    def _reader(self, queue: Queue) -> QueueReader:
        reader = self._readers.get(queue.name)
        if reader is None:
            reader = self._readers[queue.name] = QueueReader(
                queue,
                visibility=self.settings.visibility,
                wait=self.settings.wait_seconds,
                most=self.settings.most_messages,
                topic_of=self._topic_of,
                pause_after=self.settings.pause_after,
                logger=self.context.logger,
                unused=self._unused,
            )
        return reader

    def _topic_of(self, message: Message) -> str:
        note = message.note = read(message)
        if note.topic:
            return note.topic
        # With raw delivery a message does not say where it was published; there is one answer if there is one topic.
        topics = [name for reader in self._readers.values() for name in reader.topics]
        return topics[0] if len(set(topics)) == 1 else ""

    def _unused(self, reader: QueueReader) -> None:
        if self._readers.get(reader.queue.name) is reader:
            del self._readers[reader.queue.name]

    def _opened(self) -> Topology:
        if self._topology is None:
            raise ClosedError("the driver is not open")
        return self._topology


def _delivery(topic: str, message: Message) -> Delivery:
    note: Notification = message.note
    return Delivery(
        handle=message,
        topic=topic,
        data=note.data,
        metadata=note.metadata,
        content_type=note.content_type,
        key=note.key,
        attempt=message.attempt,
    )


async def _bury(dead: Queue, messages: Sequence[Message]) -> Refused:
    """Copy messages to the dead-letter queue as they are, and return those that were refused."""
    entries: list[dict[str, Any]] = []
    for message in messages:
        entry: dict[str, Any] = {"MessageBody": message.body, "MessageAttributes": message.attributes}
        if dead.fifo:
            entry |= {"MessageGroupId": message.group or "lapel", "MessageDeduplicationId": new_id()}
        entries.append(entry)
    refused: dict[int, LapelError] = {}
    start = 0
    for batch in batches_of(entries):
        try:
            failed = await dead.send(batch)
        except LapelError as exc:
            # Those of other batches have been copied, and must not come again.
            failed = dict.fromkeys(range(len(batch)), exc)
        refused |= {start + number: error for number, error in failed.items()}
        start += len(batch)
    return refused
