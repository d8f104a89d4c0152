"""Settings of pubsub.kafka and bindings.kafka."""

from __future__ import annotations

from collections.abc import Iterable

from lapel.bindings.settings import BindingSettings
from lapel.pubsub.settings import PubSubSettings
from lapel.settings import setting

from .settings import KafkaConnectionSettings

__all__ = ["KafkaBindingSettings", "KafkaPubSubSettings"]


class KafkaPubSubSettings(KafkaConnectionSettings, PubSubSettings):
    """Settings of pubsub.kafka."""

    consumer_id: str | None = setting(
        "consumerGroup",
        aliases=("consumerID",),
        default=None,
        doc="Consumer group: subscribers with the same one share the messages, different ones each get all. Defaults "
        "to the app id.",
    )
    retry: bool = setting(
        "consumeRetryEnabled",
        default=True,
        doc="Whether a message whose handler failed is tried again, as the `backOff` fields say; false: one attempt.",
    )


class KafkaBindingSettings(KafkaConnectionSettings, BindingSettings):
    """Settings of bindings.kafka."""

    topics: tuple[str, ...] = setting(
        "topics", default=(), doc="Topics that events come from, separated by commas. Required for input."
    )
    publish_topic: str | None = setting(
        "publishTopic", default=None, doc="Topic that `create` writes to. Required for output."
    )
    consumer_group: str | None = setting(
        "consumerGroup",
        aliases=("consumerID",),
        default=None,
        doc="Consumer group; readers with the same one share the messages. Required for input.",
    )
    retry: bool = setting(
        "consumeRetryEnabled",
        default=False,
        doc="Whether an event whose handler failed is tried again, as the `backOff` fields say; false: one attempt.",
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is missing for the directions that are named."""
        yield from super().check()
        if self.topics and self.consumer_group is None:
            yield "consumerGroup", "is required with topics"
        if "input" in self.direction and not self.topics:
            yield "topics", "is required for input"
        if "output" in self.direction and self.publish_topic is None:
            yield "publishTopic", "is required for output"
