"""Settings of pubsub.redis."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from lapel.pubsub.settings import PubSubSettings
from lapel.settings import setting

from .settings import RedisConnectionSettings

__all__ = ["RedisPubSubSettings"]

_SHORTEST_LEASE = timedelta(milliseconds=100)


class RedisPubSubSettings(RedisConnectionSettings, PubSubSettings):
    """Settings of pubsub.redis."""

    processing_timeout: timedelta = setting(
        "processingTimeout",
        default=timedelta(seconds=60),
        unit="ms",
        doc="After how long without a sign of life of its consumer a message is given to another one; 0: never. "
        "Consumers that live send one every third of it, so handlers may take longer. If not 0, at least 100ms.",
    )
    redeliver_interval: timedelta = setting(
        "redeliverInterval",
        default=timedelta(seconds=15),
        unit="ms",
        doc="How often each consumer looks for messages of consumers that died; 0: never.",
    )
    max_len: int = setting(
        "maxLenApprox",
        default=0,
        minimum=0,
        doc="About how many of the latest messages a stream keeps, consumed or not; 0: all. Older ones are removed "
        "when something is published.",
    )
    stream_ttl: timedelta = setting(
        "streamTTL",
        default=timedelta(0),
        unit="ms",
        doc="About how long a stream keeps messages, consumed or not; 0: for ever. Without effect with maxLenApprox.",
    )
    queue_depth: int | None = setting(
        "queueDepth", ignored="no more messages are read than the subscription has room for"
    )
    concurrency: int | None = setting(
        "concurrency",
        default=None,
        minimum=1,
        doc="Most messages at work at once over all subscriptions of the component, each of which has a `concurrency` "
        "of its own as well. If not given, only those count.",
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the connection and the times."""
        yield from super().check()
        if timedelta(0) < self.processing_timeout < _SHORTEST_LEASE:
            yield "processingTimeout", "must be 0 or at least 100ms; consumers send signs of life every third of it"
