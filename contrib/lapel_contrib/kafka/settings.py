"""Fields that the Kafka components have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal

from lapel.delivery import Backoff
from lapel.settings import ByteSize, Secret, setting

from .login_settings import KafkaLoginSettings
from .options import ConsumerOptions, KafkaOptions

__all__ = ["KafkaConnectionSettings"]

_NO_REGISTRY = "schema registries and Avro are not supported; publish encoded bytes with rawPayload"
_SMALLEST_WAIT = timedelta(milliseconds=1)
_CONSTANT = timedelta(seconds=5)


def _refused(name: str, reason: str, *aliases: str) -> Any:
    return setting(name, aliases=aliases, refused=reason)


class KafkaConnectionSettings(KafkaLoginSettings):
    """Where the brokers are, how to log in, how to publish, and how to behave in consumer groups.

    Bare numbers in durations are seconds, but in `consumeRetryInterval` and the `backOff` fields milliseconds.
    """

    brokers: tuple[str, ...] = setting(
        "brokers", doc="`host:port` of one or more brokers, separated by commas.", example="localhost:9092"
    )
    client_id: str = setting("clientID", default="lapel", doc="How this program is called in the broker's logs.")
    max_message_bytes: ByteSize = setting(
        "maxMessageBytes",
        default=ByteSize(1024 * 1024),
        minimum=1024,
        doc="Largest message with key and headers; larger ones are refused. Must not be more than the brokers take "
        "(message.max.bytes).",
    )
    compression: str = setting(
        "compression",
        default="none",
        choices=("none", "gzip", "snappy", "lz4", "zstd"),
        doc="How batches of messages are compressed.",
    )
    required_acks: str = setting(
        "producerRequiredAcks",
        default="all",
        choices=("all", "local", "none"),
        doc="What publishing waits for: all replicas in sync, the leader alone, or nothing. With `all` a message is "
        "stored once, however often the connection breaks; with the others it can be stored twice, or be lost.",
    )
    retry_max: int | None = setting(
        "producerRetryMax",
        ignored="the producer repeats what was not acknowledged until the call's deadline; the broker recognizes "
        "repetitions",
    )
    version: str | None = setting("version", ignored="the version of the protocol is negotiated with the brokers")
    dial_timeout: timedelta | None = setting("dialTimeout", ignored="readTimeout holds for connecting too")
    read_timeout: timedelta | None = setting(
        "readTimeout",
        default=None,
        minimum=timedelta.min,
        doc="After how long without an answer a connection is given up and made anew. 8s if not given, or not above 0.",
    )
    write_timeout: timedelta | None = setting(
        "writeTimeout", ignored="readTimeout runs from the moment a request is handed to the system"
    )
    metadata_timeout: timedelta | None = setting(
        "metadataTimeout", ignored="readTimeout and the call's deadline hold for requests of metadata too"
    )
    metadata_refresh: timedelta = setting(
        "clientConnectionTopicMetadataRefreshInterval",
        default=timedelta(minutes=8),
        minimum=_SMALLEST_WAIT,
        doc="How often topics and partitions are looked up again without a reason.",
    )
    connection_idle: timedelta = setting(
        "clientConnectionKeepAliveInterval",
        default=timedelta(0),
        doc="After how long without use a connection is closed; 0: never.",
    )

    initial_offset: Literal["newest", "oldest"] = setting(
        "initialOffset",
        default="newest",
        choices=("newest", "oldest"),
        doc="Where a new group begins: with what is published from now on, or with the oldest message there is.",
    )
    retry_interval: timedelta = setting(
        "consumeRetryInterval",
        default=timedelta(milliseconds=100),
        unit="ms",
        minimum=_SMALLEST_WAIT,
        doc="Pause before a failed request to a broker is repeated.",
    )
    heartbeat_interval: timedelta = setting(
        "heartbeatInterval",
        default=timedelta(seconds=3),
        minimum=_SMALLEST_WAIT,
        doc="How often a member of a group gives a sign of life; also how long it may take to notice that others join.",
    )
    session_timeout: timedelta = setting(
        "sessionTimeout",
        default=timedelta(seconds=10),
        minimum=_SMALLEST_WAIT,
        doc="After how long without a sign of life the group goes on without a member; also how long a rebalance "
        "waits for members.",
    )
    strategy: Literal["range", "sticky", "roundrobin"] = setting(
        "consumerGroupRebalanceStrategy",
        default="range",
        choices=("range", "sticky", "roundrobin"),
        doc="How partitions are shared out. The same for all members of a group.",
    )
    instance_id: str | None = setting(
        "groupInstanceID",
        default=None,
        doc="Static membership: a name that stays over restarts and that no other member of the group has, such as "
        "that of the pod. A restart within sessionTimeout then causes no rebalance.",
    )
    buffer: int = setting(
        "channelBufferSize",
        default=256,
        minimum=1,
        doc="How many messages of a partition are kept ready beyond those that handlers have.",
    )
    fetch_min: int = setting(
        "consumerFetchMin",
        default=1,
        minimum=1,
        doc="How many bytes a broker gathers, for up to half a second, before it answers.",
    )
    fetch_default: int = setting(
        "consumerFetchDefault",
        default=1024 * 1024,
        minimum=1,
        doc="How many bytes of one partition are fetched at once. A larger message is fetched alone.",
    )
    escape_headers: bool = setting(
        "escapeHeaders",
        default=False,
        doc="Percent-encode the key and the values of headers in the metadata of received messages.",
    )
    exclude_headers: str | None = setting(
        "excludeHeaderMetaRegex",
        default=None,
        doc="Metadata whose names this regular expression matches, in any place, do not become headers, nor headers "
        "metadata.",
    )
    registry_url: str | None = _refused("schemaRegistryURL", _NO_REGISTRY)
    registry_key: str | None = _refused("schemaRegistryAPIKey", _NO_REGISTRY)
    registry_secret: Secret | None = _refused("schemaRegistryAPISecret", _NO_REGISTRY)
    registry_caching: bool | None = setting("schemaCachingEnabled", ignored=_NO_REGISTRY)
    registry_ttl: timedelta | None = setting("schemaLatestVersionCacheTTL", ignored=_NO_REGISTRY)
    avro_json: bool | None = _refused("useAvroJSON", _NO_REGISTRY)

    backoff_policy: str = setting(
        "backOffPolicy",
        default="constant",
        choices=("constant", "exponential"),
        doc="Whether the pauses between attempts at a message grow.",
    )
    backoff_duration: timedelta = setting(
        "backOffDuration", default=_CONSTANT, unit="ms", doc="The pause, with `constant`."
    )
    backoff_initial: timedelta = setting(
        "backOffInitialInterval",
        default=timedelta(milliseconds=500),
        unit="ms",
        doc="The first pause, with `exponential`.",
    )
    backoff_randomization: float = setting(
        "backOffRandomizationFactor",
        default=0.5,
        minimum=0.0,
        maximum=1.0,
        doc="The share of a pause that is drawn at random, with `exponential`.",
    )
    backoff_multiplier: float = setting(
        "backOffMultiplier", default=1.5, minimum=1.0, doc="What each pause is multiplied by, with `exponential`."
    )
    backoff_maximum: timedelta = setting(
        "backOffMaxInterval",
        default=timedelta(seconds=60),
        unit="ms",
        doc="The longest pause, with `exponential`.",
    )
    backoff_elapsed: timedelta | None = setting(
        "backOffMaxElapsedTime",
        default=None,
        unit="ms",
        doc="With `exponential`: no further attempt once the pauses add up to this; without end if not given, or 0.",
    )
    backoff_retries: int = setting(
        "backOffMaxRetries",
        default=-1,
        minimum=-1,
        doc="How often a message is tried again after the first attempt; -1: without end.",
    )

    @property
    def backoff(self) -> Backoff:
        """The pauses between attempts that the `backOff` fields ask for."""
        if self.backoff_policy == "constant":
            pause = self.backoff_duration.total_seconds()
            return Backoff(initial=pause, maximum=pause, multiplier=1.0, jitter=0.0)
        first = self.backoff_initial.total_seconds()
        return Backoff(
            initial=first,
            maximum=max(first, self.backoff_maximum.total_seconds()),
            multiplier=self.backoff_multiplier,
            jitter=self.backoff_randomization,
        )

    @property
    def attempts(self) -> int | None:
        """How often a message is tried, as the `backOff` fields have it; None without end."""
        most = None if self.backoff_retries < 0 else 1 + self.backoff_retries
        if self.backoff_policy == "constant" or not self.backoff_elapsed:
            return most
        left, pause = self.backoff_elapsed.total_seconds(), self.backoff_initial.total_seconds()
        longest, count = self.backoff_maximum.total_seconds(), 1
        while left >= pause and (most is None or count < most):
            if pause <= 0:
                return most
            left -= pause
            count += 1
            pause = min(longest, pause * self.backoff_multiplier)
        return count

    def options(self) -> KafkaOptions:
        """Return what clients are made of."""
        login = self.login
        acks: dict[str, Literal["all", 1, 0]] = {"all": "all", "local": 1, "none": 0}
        password = login == "password"
        idle, wait = self.connection_idle.total_seconds(), self.read_timeout
        return KafkaOptions(
            brokers=self.brokers,
            client_id=self.client_id,
            tls=login != "none" and not self.disable_tls,
            skip_verify=self.skip_verify,
            ca_cert=self.ca_cert,
            client_cert=self.client_cert,
            client_key=self.client_key,
            mechanism=self.mechanism,
            username=self.sasl_username if password else None,
            password=self.sasl_password if password else None,
            oidc=self.oidc(),
            max_message_bytes=int(self.max_message_bytes),
            compression=None if self.compression == "none" else self.compression,
            acks=acks[self.required_acks],
            request_timeout=None if wait is None or wait <= timedelta(0) else wait.total_seconds(),
            metadata_refresh=self.metadata_refresh.total_seconds(),
            connection_idle=idle or None,
        )

    def consumer_options(self) -> ConsumerOptions:
        """Return how members of groups behave."""
        return ConsumerOptions(
            initial_offset=self.initial_offset,
            strategy=self.strategy,
            instance_id=self.instance_id,
            session_timeout=self.session_timeout.total_seconds(),
            heartbeat_interval=self.heartbeat_interval.total_seconds(),
            retry_pause=self.retry_interval.total_seconds(),
            fetch_min=self.fetch_min,
            fetch_partition=self.fetch_default,
            buffer=self.buffer,
            escape_headers=self.escape_headers,
            exclude_headers=None if self.exclude_headers is None else re.compile(self.exclude_headers),
        )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the fields taken together."""
        yield from super().check()
        if not self.brokers:
            yield "brokers", "names no broker"
        for broker in self.brokers:
            host, colon, port = broker.rpartition(":")
            if colon and not (host and port.isdigit() and 0 < int(port) < 65536):
                yield "brokers", f"{broker!r} is not written as host:port"
        if self.exclude_headers is not None:
            try:
                re.compile(self.exclude_headers)
            except re.error as exc:
                yield "excludeHeaderMetaRegex", f"is not a regular expression: {exc}"
        if self.session_timeout <= self.heartbeat_interval:
            yield "heartbeatInterval", "must be shorter than sessionTimeout; a third of it is usual"
