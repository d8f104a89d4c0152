"""Drivers that speak to Apache Kafka, and to what speaks its protocol."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind, Limits

__all__ = ["BINDING", "PUBSUB"]

_LIMITS = Limits(bulk_items=10_000)
"""The largest message is `maxMessageBytes`, a matter of settings."""

PUBSUB = Descriptor(
    kind=Kind.PUBSUB,
    name="kafka",
    driver="lapel_contrib.kafka.pubsub:KafkaPubSub",
    settings="lapel_contrib.kafka.component_settings:KafkaPubSubSettings",
    summary="Topics of Apache Kafka with consumer groups, in Dapr's layout.",
    capabilities=Capability.BULK_PUBSUB
    | Capability.CONSUMER_GROUPS
    | Capability.DURABLE
    | Capability.ORDER_BY_KEY
    | Capability.ORDER_ALL
    | Capability.ATTRIBUTES
    | Capability.PAUSE,
    limits=_LIMITS,
    extra="kafka",
)

BINDING = Descriptor(
    kind=Kind.BINDINGS,
    name="kafka",
    driver="lapel_contrib.kafka.binding:KafkaBinding",
    settings="lapel_contrib.kafka.component_settings:KafkaBindingSettings",
    summary="Messages to and from topics of Apache Kafka, without an envelope.",
    capabilities=Capability.INPUT | Capability.OUTPUT | Capability.REDELIVERY | Capability.PAUSE,
    limits=_LIMITS,
    operations=("create",),
    extra="kafka",
)
