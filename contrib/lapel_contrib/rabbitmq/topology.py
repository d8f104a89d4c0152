"""Exchanges, queues and what lies between them, as Dapr names and declares them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError
from pamqp.commands import Exchange

from lapel.errors import InvalidArgumentError

from .errors import why_closed
from .messages import integer_of, short_text, truthy
from .publisher import Declaration
from .pubsub_settings import RabbitPubSubSettings

__all__ = ["QueuePlan", "check_name", "exchange_declaration", "plan"]

_LONGEST_NAME = 255
_HIGHEST_PRIORITY = 255
_PREFIX = len("dlx-")


@dataclass(frozen=True, kw_only=True)
class QueuePlan:
    """The queue of one subscription and everything that belongs to it."""

    exchange: str
    exchange_kind: str
    queue: str
    routing_keys: tuple[str, ...]
    durable: bool
    auto_delete: bool
    quorum: bool
    single_active: bool
    dead_letters: bool
    lengths: Mapping[str, int] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    async def declare(self, channel: Channel) -> None:
        """Make what is missing, in one round trip. Raises what the client library does; the channel is closed then."""
        try:
            await self._declare(channel)
        except ChannelInvalidStateError:
            # The broker's answer to something before, which was asked for without waiting.
            reason = why_closed(channel)
            if reason is None:
                raise
            raise reason from None

    async def _declare(self, channel: Channel) -> None:
        kind, kept, passing = self.exchange_kind, self.durable, self.auto_delete
        await channel.exchange_declare(
            self.exchange, exchange_type=kind, durable=kept, auto_delete=passing, nowait=True
        )
        if self.dead_letters:
            dlx, dlq = f"dlx-{self.queue}", f"dlq-{self.queue}"
            await channel.exchange_declare(dlx, exchange_type="fanout", durable=True, auto_delete=passing, nowait=True)
            lazy: dict[str, Any] = {"x-queue-mode": "lazy", **self.lengths}
            await channel.queue_declare(dlq, durable=True, auto_delete=passing, arguments=lazy, nowait=True)
            await channel.queue_bind(dlq, dlx, nowait=True)
        arguments = dict(self.arguments)
        await channel.queue_declare(self.queue, durable=kept, auto_delete=passing, arguments=arguments, nowait=True)
        for key in self.routing_keys[:-1]:
            await channel.queue_bind(self.queue, self.exchange, key, nowait=True)
        # The broker works in order, so the answer to the last request is the answer to all.
        await channel.queue_bind(self.queue, self.exchange, self.routing_keys[-1])


def plan(
    settings: RabbitPubSubSettings, topic: str, group: str, metadata: Mapping[str, str], *, ordered: bool
) -> QueuePlan:
    """Return what a subscription needs. Raises `InvalidArgumentError` for metadata and names that cannot be."""
    given = {name.lower(): value for name, value in metadata.items() if value}
    queue = given.get("queuename") or f"{group}-{topic}"
    check_name("topic", topic)
    check_name("queue name", queue, _PREFIX if settings.enable_dead_letter else 0)
    kind = _queue_type(given.get("queuetype", settings.queue_type))
    quorum = kind == "quorum"
    if quorum and settings.deleted_when_unused:
        raise InvalidArgumentError("quorum queues cannot be deleted when unused; set deletedWhenUnused to false")
    if quorum and not settings.durable:
        raise InvalidArgumentError("quorum queues are always durable; set durable to true")
    single = ordered or settings.single_active_consumer
    if "singleactiveconsumer" in given:
        single = truthy(given["singleactiveconsumer"]) or ordered
    lengths: dict[str, int] = {}
    for name, default, argument in (
        ("maxlen", settings.max_len, "x-max-length"),
        ("maxlenbytes", settings.max_len_bytes, "x-max-length-bytes"),
    ):
        value = _number(given, name, default)
        if value is not None:
            lengths[argument] = value
    arguments: dict[str, Any] = {"x-queue-type": kind, **lengths}
    if settings.enable_dead_letter:
        arguments["x-dead-letter-exchange"] = f"dlx-{queue}"
    priority = _number(given, "maxpriority", settings.max_priority)
    if priority is not None:
        if quorum:
            raise InvalidArgumentError("maxPriority has no meaning for a quorum queue")
        arguments["x-max-priority"] = min(priority, _HIGHEST_PRIORITY)
    if single:
        arguments["x-single-active-consumer"] = True
    limit = _number(given, "deliverylimit", settings.delivery_limit if quorum else None)
    if limit is not None:
        if not quorum:
            raise InvalidArgumentError("deliveryLimit needs the queueType quorum")
        arguments["x-delivery-limit"] = limit
    return QueuePlan(
        exchange=topic,
        exchange_kind=settings.exchange_kind,
        queue=queue,
        routing_keys=tuple(short_text("routingKey", key) for key in given.get("routingkey", "").split(",")),
        durable=settings.durable,
        auto_delete=settings.deleted_when_unused,
        quorum=quorum,
        single_active=single,
        dead_letters=settings.enable_dead_letter,
        lengths=lengths,
        arguments=arguments,
    )


def exchange_declaration(settings: RabbitPubSubSettings, topic: str) -> Declaration:
    """Return how to make the exchange of a topic before something is published to it."""

    async def make(channel: Channel) -> None:
        await channel.exchange_declare(
            topic,
            exchange_type=settings.exchange_kind,
            durable=settings.durable,
            auto_delete=settings.deleted_when_unused,
        )

    again = None
    if settings.deleted_when_unused:
        again = Exchange.Declare(
            exchange=topic,
            exchange_type=settings.exchange_kind,
            durable=settings.durable,
            auto_delete=True,
            nowait=True,
        )
    return Declaration(f"exchange {topic!r}", make, again)


def check_name(what: str, name: str, room: int = 0) -> None:
    """Raise `InvalidArgumentError` for a name that the broker has no room for."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError as exc:
        raise InvalidArgumentError(f"the {what} is not valid Unicode") from exc
    if not 0 < size <= _LONGEST_NAME - room:
        raise InvalidArgumentError(f"the {what} has {size} bytes; expected 1 to {_LONGEST_NAME - room}")


def _queue_type(text: str) -> str:
    if text in ("classic", "quorum"):
        return text
    raise InvalidArgumentError(f"metadata queueType must be classic or quorum, got {text[:40]!r}")


def _number(given: Mapping[str, str], name: str, default: int | None) -> int | None:
    if name not in given:
        return default
    value = integer_of(name, given[name])
    if value < 0:
        raise InvalidArgumentError(f"metadata {name} must not be negative, got {value}")
    return value
