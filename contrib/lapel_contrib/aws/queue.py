"""One queue of SQS: calls on it, those about messages in batches of ten."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lapel.errors import LapelError, ThrottledError, UnavailableError

from .client import ANSWER_SECONDS, AwsClients
from .errors import SDK_ERRORS, refusal

__all__ = ["BATCH", "Queue", "Refused", "batches_of", "is_passing"]

BATCH = 10
"""Most entries in one request, and most messages in one reply."""

LARGEST_BATCH = 1024 * 1024
"""Bytes of all messages in one request, attributes included."""

Refused = Mapping[int, LapelError]
"""The entries of a batch that were refused, by their position."""

_SENT_ATTRIBUTES = ["All"]


class Queue:
    """Calls on the queue behind `url`. All raise only errors of lapel, end in bounded time, and may overlap."""

    def __init__(self, clients: AwsClients, client: Any, name: str, url: str) -> None:
        self._clients = clients
        self._sqs = client
        self.name = name
        self.url = url
        self.place = f"SQS queue {name!r}"

    @property
    def fifo(self) -> bool:
        """Whether it keeps the order of message groups."""
        return self.name.endswith(".fifo")

    @classmethod
    async def find(cls, clients: AwsClients, client: Any, name: str, account: str | None = None) -> Queue:
        """Return the queue of that name. Raises `NotFoundError` when there is none."""
        owner = {} if account is None else {"QueueOwnerAWSAccountId": account}
        reply = await clients.call(client.get_queue_url(QueueName=name, **owner), f"SQS queue {name!r}", writes=False)
        return cls(clients, client, name, reply["QueueUrl"])

    async def attributes(self, *names: str) -> dict[str, str]:
        """Return attributes of the queue."""
        call = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(names))
        found: dict[str, str] = (await self._call(call, writes=False)).get("Attributes", {})
        return found

    async def receive(self, count: int, *, wait: int, visibility: int) -> list[dict[str, Any]]:
        """Return up to `count` messages, at most ten, as soon as there is one; nothing after `wait` seconds.

        They are invisible to others for `visibility` seconds.
        """
        call = self._sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=min(count, BATCH),
            WaitTimeSeconds=wait,
            VisibilityTimeout=visibility,
            AttributeNames=_SENT_ATTRIBUTES,
            MessageAttributeNames=_SENT_ATTRIBUTES,
        )
        found: list[dict[str, Any]] = (await self._call(call, writes=False, wait=wait)).get("Messages") or []
        return found

    async def send(self, entries: Sequence[dict[str, Any]]) -> Refused:
        """Send up to ten messages and return those that were refused.

        Raises `OutcomeUnknownError` when the reply was lost.
        """
        numbered = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
        call = self._sqs.send_message_batch(QueueUrl=self.url, Entries=numbered)
        return self._refused(await self._call(call, writes=True), writes=True)

    async def delete(self, handles: Sequence[str]) -> Refused:
        """Delete messages by their receipt handles and return those that were refused."""
        return await self._batches(self._sqs.delete_message_batch, [{"ReceiptHandle": each} for each in handles])

    async def set_visibility(self, handles: Sequence[tuple[str, int]]) -> Refused:
        """Make messages visible to others again after so many seconds each; return those that were refused."""
        entries = [{"ReceiptHandle": handle, "VisibilityTimeout": seconds} for handle, seconds in handles]
        return await self._batches(self._sqs.change_message_visibility_batch, entries)

    async def _batches(self, method: Any, entries: Sequence[dict[str, Any]]) -> Refused:
        """Send entries ten at a time, all batches at once. Raises when no batch got through."""

        async def one(start: int) -> Refused:
            batch = [{"Id": str(number), **entry} for number, entry in enumerate(entries[start : start + BATCH])]
            # Both calls may be repeated without harm, so a lost reply is no unknown outcome.
            reply = await self._call(method(QueueUrl=self.url, Entries=batch), writes=False)
            return {start + number: error for number, error in self._refused(reply, writes=False).items()}

        starts = range(0, len(entries), BATCH)
        results = await asyncio.gather(*(one(start) for start in starts), return_exceptions=True)
        refused: dict[int, LapelError] = {}
        for start, result in zip(starts, results, strict=True):
            if isinstance(result, LapelError):
                if len(results) == 1 or all(isinstance(each, BaseException) for each in results):
                    raise result
                refused |= dict.fromkeys(range(start, min(start + BATCH, len(entries))), result)
            elif isinstance(result, BaseException):
                raise result
            else:
                refused |= result
        return refused

    def _refused(self, reply: Mapping[str, Any], *, writes: bool) -> Refused:
        return {
            int(entry["Id"]): refusal(
                entry.get("Code", ""),
                entry.get("Message", ""),
                self.place,
                service_fault=not entry.get("SenderFault", True),
                writes=writes,
            )
            for entry in reply.get("Failed") or ()
        }

    async def _call(self, reply: Any, *, writes: bool, wait: int = 0) -> Any:
        try:
            async with asyncio.timeout(wait + ANSWER_SECONDS):
                return await reply
        except SDK_ERRORS as exc:
            raise self._clients.translate(exc, self.place, writes=writes) from None


def batches_of(entries: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut messages into such batches as `Queue.send` takes, in order."""
    batch: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        own = _size_of(entry)
        if batch and (len(batch) == BATCH or size + own > LARGEST_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += own
    if batch:
        yield batch


def _size_of(entry: Mapping[str, Any]) -> int:
    size = len(entry["MessageBody"].encode())
    for name, value in (entry.get("MessageAttributes") or {}).items():
        content = value.get("StringValue") or value.get("BinaryValue") or ""
        size += len(name.encode()) + len(value.get("DataType") or "")
        size += len(content.encode() if isinstance(content, str) else content)
    return size


def is_passing(error: LapelError) -> bool:
    """Tell whether an entry was refused for a reason that goes away by itself, so that it may be sent again."""
    return isinstance(error, ThrottledError | UnavailableError)
