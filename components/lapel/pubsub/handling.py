"""Between the dispatcher and the functions of an application: messages, expiry, spans, dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from ..delivery import Delivery, Dropped, Held
from ..telemetry import Telemetry
from .message import DEAD_LETTER_REASON, Message
from .tracing import links_to, parent_of
from .types import PublishRequest

__all__ = ["Handling", "dead_letter_request"]

_EXPIRED = Dropped("its time to live has passed")
_LIFETIMES = ("ttl", "ttlinseconds")


class Handling:
    """How the messages of one subscription reach its handler."""

    def __init__(self, telemetry: Telemetry, *, component: str, group: str, raw: bool, topic_prefix: str) -> None:
        self._telemetry = telemetry
        self._component = component
        self._group = group
        self._raw = raw
        self._topic_prefix = topic_prefix

    def of_messages(self, handler: Callable[[Message], Awaitable[Any]]) -> Callable[[Held], Awaitable[Any]]:
        """Return what a `Dispatcher` calls."""
        telemetry, component, raw, prefix = self._telemetry, self._component, self._raw, self._topic_prefix

        def begin(held: Held) -> Awaitable[Any]:
            message = Message(held.delivery, held.attempt, component, raw, prefix)
            if message.expired:
                return _expired()
            if telemetry.active:
                return self._traced(handler, message)
            return handler(message)

        return begin

    def of_batches(
        self, handler: Callable[[list[Message]], Awaitable[Any]]
    ) -> Callable[[Sequence[Held]], Awaitable[Any]]:
        """Return what a `BatchDispatcher` calls."""

        async def handle(batch: Sequence[Held]) -> Any:
            messages = [
                Message(held.delivery, held.attempt, self._component, self._raw, self._topic_prefix) for held in batch
            ]
            # Looked at once: what expires while the handler runs has been handled.
            expired = [message.expired for message in messages]
            fresh = [message for message, late in zip(messages, expired, strict=True) if not late]
            answer = await self._batch(handler, fresh) if fresh else None
            if len(fresh) == len(messages):
                return answer
            if answer is None:
                answer = [None] * len(fresh)
            elif not isinstance(answer, list | tuple) or len(answer) != len(fresh):
                raise TypeError(f"a batch handler returns None or a list of {len(fresh)} outcomes")
            answers = iter(answer)
            return [_EXPIRED if late else next(answers) for late in expired]

        return handle

    async def _traced(self, handler: Callable[[Message], Awaitable[Any]], message: Message) -> Any:
        from opentelemetry.trace import SpanKind

        with self._telemetry.operation(
            "process",
            target=message.topic,
            kind=SpanKind.CONSUMER,
            attributes=self._attributes(message.topic),
            parent=parent_of(message),
        ):
            return await handler(message)

    async def _batch(self, handler: Callable[[list[Message]], Awaitable[Any]], messages: list[Message]) -> Any:
        if not self._telemetry.active:
            return await handler(messages)
        from opentelemetry.trace import SpanKind

        topic = messages[0].topic
        with self._telemetry.operation(
            "process",
            target=topic,
            kind=SpanKind.CONSUMER,
            attributes={**self._attributes(topic), "messaging.batch.message_count": len(messages)},
            links=links_to(messages),
        ):
            return await handler(messages)

    def _attributes(self, topic: str) -> dict[str, Any]:
        return {
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.consumer.group.name": self._group,
        }


def dead_letter_request(held: Held, topic: str, reason: str, prefix: str) -> PublishRequest:
    """Return the dead letter of a delivery: the same bytes and attributes, and why it is one.

    The attributes `dead-letter-reason`, `dead-letter-attempts`, `dead-letter-first-seen` (RFC 3339) and
    `dead-letter-topic` (where it came from) are added. Its lifetime is not: a dead letter stays until it is read.
    `prefix` is what goes before topics on the broker.
    """
    delivery: Delivery = held.delivery
    metadata = {name: value for name, value in delivery.metadata.items() if name.lower() not in _LIFETIMES}
    metadata[DEAD_LETTER_REASON] = reason
    metadata["dead-letter-attempts"] = str(held.attempt)
    metadata["dead-letter-first-seen"] = datetime.fromtimestamp(held.first_seen, UTC).isoformat(timespec="milliseconds")
    metadata["dead-letter-topic"] = delivery.topic.removeprefix(prefix)
    return PublishRequest(
        prefix + topic, delivery.data, delivery.content_type, delivery.key, metadata=metadata, dead_letter=True
    )


async def _expired() -> Dropped:
    return _EXPIRED
