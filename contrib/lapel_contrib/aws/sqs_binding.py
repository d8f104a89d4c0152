"""bindings.aws.sqs."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from aiobotocore.client import AioBaseClient

from lapel.bindings.driver import BindingDriver
from lapel.bindings.types import BindingResponse, InvokeRequest, ReadRequest
from lapel.coalesce import Coalescer
from lapel.delivery import Consumer, Delivery
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, LapelError

from . import SQS_BINDING
from .client import CLOSE_SECONDS, AwsClients
from .component_settings import SqsBindingSettings
from .consumer import QueueConsumer
from .errors import NotAllowedError
from .queue import BATCH, Queue
from .reader import Message, QueueReader
from .text import as_text, new_id

__all__ = ["SqsBinding"]

T = TypeVar("T")
LONGEST = 1024 * 1024
"""Bytes of a message, and of all messages of a request."""
LONGEST_DELAY = 900
WAIT_SECONDS = 2
"""How long a poll waits. SQS would allow 20, but a component that closes has to wait for it."""
BATCHES = 8
"""How many batches are under way at once; one where the order counts."""
VISIBILITY_SECONDS = 30
"""The time-out of a queue that has none, or does not tell its own."""
FAILED_PAUSES = (0.2, 5.0)
_GROUP = re.compile(r"[!-~]{1,128}")


class SqsBinding(BindingDriver[SqsBindingSettings]):
    """Sends messages to a queue and reads them.

    `create` returns when SQS has stored the message. Calls that overlap share requests, up to ten messages in one.
    The data has to be text in UTF-8. Request metadata: `delaySeconds`; for a FIFO queue `messageGroupId` (default:
    the name of the component) and `messageDeduplicationId` (default: a new one, so that every message is stored).

    A message that is read stays invisible to others until it is settled, however long its handler takes: its time-out
    is renewed from receipt on, until SQS ends that after twelve hours. A failed one comes again after the back-off, in
    whole seconds. What fails too often is the redrive policy's business. In a FIFO queue a message of a group is handed
    over when the one before it is settled; groups run side by side. Event metadata: `messageId`, the attributes of the
    message, and `messageGroupId` where there is one.

    `unwrap(aiobotocore.client.AioBaseClient)` returns the client of SQS.
    """

    descriptor = SQS_BINDING

    def __init__(self, settings: SqsBindingSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._clients = AwsClients(settings.options(), context.shared)
        self._client: Any = None
        self._queue: Queue | None = None
        self._reader: QueueReader | None = None
        fifo = settings.queue.endswith(".fifo")
        self._outgoing: Coalescer[dict[str, Any], None] = Coalescer(
            self._send,
            max_items=BATCH,
            max_bytes=LONGEST,
            concurrency=1 if fifo else BATCHES,
            name=f"SQS queue {settings.queue}",
        )

    async def open(self) -> None:
        self._client = await self._clients.client("sqs")
        self._queue = await Queue.find(self._clients, self._client, self.settings.queue)

    async def close(self) -> None:
        try:
            await asyncio.gather(
                self._outgoing.close(CLOSE_SECONDS), *([] if self._reader is None else [self._reader.close()])
            )
        finally:
            await self._clients.close()

    async def ping(self) -> None:
        # Any answer is a sign of life, also that the attributes are not for this caller to see.
        with suppress(NotAllowedError):
            await self._opened().attributes("ApproximateNumberOfMessages")

    def unwrap(self, kind: type[T]) -> T:
        return self._client if kind is AioBaseClient and self._client is not None else super().unwrap(kind)

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        queue = self._opened()
        text, size = as_text(await _whole(request.data))
        entry: dict[str, Any] = {"MessageBody": text}
        names = {name.lower(): value for name, value in request.metadata.items()}
        if (delay := names.get("delayseconds")) is not None:
            if queue.fifo:
                raise InvalidArgumentError("metadata 'delaySeconds': a FIFO queue delays no single messages")
            if not (delay.isascii() and delay.isdigit() and int(delay) <= LONGEST_DELAY):
                raise InvalidArgumentError(f"metadata 'delaySeconds' must be a whole number up to {LONGEST_DELAY}")
            entry["DelaySeconds"] = int(delay)
        if queue.fifo:
            entry["MessageGroupId"] = _identifier(names, "messageGroupId", self.context.component)
            entry["MessageDeduplicationId"] = _identifier(names, "messageDeduplicationId", new_id())
        await self._outgoing.submit(entry, size)
        return BindingResponse()

    async def read(self, request: ReadRequest) -> Consumer:
        queue = self._opened()
        try:
            # Asked each time: a reading counts as armed only when the queue has answered.
            found = await queue.attributes("VisibilityTimeout")
        except NotAllowedError as exc:
            found = {}
            self.context.logger.info("messages are taken for %d s at a time: %s", VISIBILITY_SECONDS, exc)
        if self._reader is None:
            self._reader = QueueReader(
                queue,
                visibility=int(found.get("VisibilityTimeout") or 0) or VISIBILITY_SECONDS,
                wait=WAIT_SECONDS,
                most=BATCH,
                topic_of=lambda _: queue.name,
                pause_after=_pause_after,
                logger=self.context.logger,
                unused=lambda _: None,
            )
        return _Source(self._reader, queue.name, self._delivery, logger=self.context.logger)

    async def _send(self, entries: Sequence[dict[str, Any]]) -> Sequence[LapelError | None]:
        refused = await self._opened().send(entries)
        return [refused.get(number) for number in range(len(entries))]

    def _delivery(self, message: Message) -> Delivery:
        metadata = {
            name: value["StringValue"] for name, value in message.attributes.items() if value.get("StringValue")
        }
        if message.id:
            metadata["messageId"] = message.id
        if message.group is not None:
            metadata["messageGroupId"] = message.group
        if (sent := message.system.get("SentTimestamp")) is not None:
            metadata["sentTimestamp"] = sent
        return Delivery(
            handle=message,
            topic=self.settings.queue,
            data=message.body.encode(),
            metadata=metadata,
            attempt=message.attempt,
        )

    def _opened(self) -> Queue:
        assert self._queue is not None, "the component makes no call before open or after close"
        return self._queue


class _Source(QueueConsumer):
    """The only topic of its queue, so the queue's length is its own."""

    async def lag(self) -> int | None:
        found = await self.queue.attributes("ApproximateNumberOfMessages")
        return int(found.get("ApproximateNumberOfMessages") or 0)


def _pause_after(failures: int) -> float:
    first, longest = FAILED_PAUSES
    return float(min(longest, first * 2 ** (failures - 1))) * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load only


def _identifier(names: dict[str, str], name: str, default: str) -> str:
    value = names.get(name.lower()) or default
    if not _GROUP.fullmatch(value):
        raise InvalidArgumentError(f"metadata {name!r} must be 1 to 128 letters, digits and punctuation of ASCII")
    return value


async def _whole(data: bytes | AsyncIterable[bytes] | None) -> bytes:
    if data is None or isinstance(data, bytes):
        return data or b""
    collected = bytearray()
    async for chunk in data:
        collected += chunk
        if len(collected) > LONGEST:
            break
    return bytes(collected)
