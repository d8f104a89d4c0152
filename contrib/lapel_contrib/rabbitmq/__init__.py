"""Drivers that exchange messages through RabbitMQ."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind, Limits

__all__ = ["BINDING", "PUBSUB"]

PUBSUB = Descriptor(
    kind=Kind.PUBSUB,
    name="rabbitmq",
    driver="lapel_contrib.rabbitmq.pubsub:RabbitPubSub",
    settings="lapel_contrib.rabbitmq.pubsub_settings:RabbitPubSubSettings",
    summary="Exchanges and queues of RabbitMQ, in Dapr's topology; every message persistent and confirmed.",
    capabilities=Capability.MESSAGE_TTL
    | Capability.CONSUMER_GROUPS
    | Capability.DURABLE
    | Capability.ORDER_BY_KEY
    | Capability.ORDER_ALL
    | Capability.DEAD_LETTER
    | Capability.DELIVERY_COUNT
    | Capability.ATTRIBUTES
    | Capability.PAUSE
    | Capability.PRIORITY,
    # The server's own limit of a message, of which its setting may leave less; and of an expiration, 32 bits of
    # milliseconds.
    limits=Limits(value_bytes=512 * 1024 * 1024, ttl_seconds=4_294_967),
    extra="rabbitmq",
)

BINDING = Descriptor(
    kind=Kind.BINDINGS,
    name="rabbitmq",
    driver="lapel_contrib.rabbitmq.binding:RabbitBinding",
    settings="lapel_contrib.rabbitmq.binding_settings:RabbitBindingSettings",
    summary="One queue of RabbitMQ: put messages into it, handle those that are in it.",
    capabilities=Capability.INPUT
    | Capability.OUTPUT
    | Capability.REDELIVERY
    | Capability.PAUSE
    | Capability.MESSAGE_TTL
    | Capability.PRIORITY,
    operations=("create",),
    limits=Limits(value_bytes=512 * 1024 * 1024, ttl_seconds=4_294_967),
    extra="rabbitmq",
)
