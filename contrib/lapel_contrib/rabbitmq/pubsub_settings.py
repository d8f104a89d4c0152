"""Settings of pubsub.rabbitmq."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Literal

from lapel.pubsub.settings import PubSubSettings
from lapel.settings import Secret, setting

from .options import RabbitOptions, default_port, parse_hosts
from .settings import LONGEST_TTL, RabbitTlsSettings, uri_of

__all__ = ["RabbitPubSubSettings"]


class RabbitPubSubSettings(RabbitTlsSettings, PubSubSettings):
    """Settings of pubsub.rabbitmq. Bare numbers in durations are seconds.

    `queueType`, `maxPriority`, `singleActiveConsumer` and `deliveryLimit` are what subscriptions get that do not say
    otherwise in their metadata.
    """

    connection_string: Secret | None = setting(
        "connectionString",
        aliases=("host",),
        default=None,
        doc="Address as an AMQP URI. Several hosts of one cluster are separated by commas.",
        example="amqp://user:password@localhost:5672/",
    )
    protocol: Literal["amqp", "amqps"] | None = setting(
        "protocol", default=None, doc="`amqps` encrypts. Must be that of `connectionString` if both are given."
    )
    hostname: str = setting(
        "hostname",
        default="localhost",
        doc="`host` or `host:port`, several separated by commas, where there is no `connectionString`.",
    )
    username: str | None = setting("username", default=None, doc="User, without `connectionString`.")
    password: Secret | None = setting("password", default=None, doc="Password of the user.")
    durable: bool = setting(
        "durable", default=True, doc="Whether exchanges and queues outlive a restart of the server."
    )
    deleted_when_unused: bool = setting(
        "deletedWhenUnused",
        default=True,
        doc="Whether the server deletes a queue, with its messages, when its last consumer leaves or loses its "
        "connection, and an exchange with its last queue.",
    )
    auto_ack: bool = setting(
        "autoAck",
        default=False,
        doc="Whether a message counts as done when it has been handed to us. It is lost when the process ends, or when "
        "the connection is lost, before its handler has succeeded.",
    )
    requeue_in_failure: bool = setting(
        "requeueInFailure",
        default=False,
        doc="With `enableDeadLetter`: whether a message whose handler failed is tried again. Without, or with "
        "`maxAttempts` of a subscription, messages are tried again in any case.",
    )
    delivery_mode: int | None = setting("deliveryMode", ignored="messages are always persistent (mode 2)")
    publisher_confirm: bool | None = setting("publisherConfirm", ignored="publishing always waits for the confirmation")
    prefetch_count: int = setting(
        "prefetchCount",
        default=0,
        minimum=0,
        maximum=65535,
        doc="Most messages that a subscription holds; 0: as many as its handlers can take.",
    )
    reconnect_wait: timedelta = setting(
        "reconnectWaitSeconds",
        aliases=("reconnectWait",),
        default=timedelta(seconds=3),
        doc="Longest pause between two attempts to connect again. The first attempts follow faster.",
    )
    concurrency_mode: Literal["parallel", "single"] = setting(
        "concurrencyMode",
        aliases=("concurrency",),
        default="parallel",
        doc="`single`: a subscription holds one message at a time.",
    )
    enable_dead_letter: bool = setting(
        "enableDeadLetter",
        default=False,
        doc="Whether messages that are given up go to the queue `dlq-<queue>`.",
    )
    max_len: int | None = setting(
        "maxLen", default=None, minimum=0, doc="Most messages in a queue; the oldest are dropped."
    )
    max_len_bytes: int | None = setting(
        "maxLenBytes", default=None, minimum=0, doc="Most bytes in a queue; the oldest messages are dropped."
    )
    exchange_kind: Literal["fanout", "topic", "direct", "headers"] = setting(
        "exchangeKind", default="fanout", doc="How exchanges choose the queues of a message."
    )
    ttl: timedelta | None = setting(
        "ttlInSeconds",
        aliases=("ttl",),
        default=None,
        minimum=timedelta(milliseconds=1),
        maximum=timedelta(seconds=LONGEST_TTL),
        doc="Time to live of messages that bring none.",
    )
    client_name: str | None = setting("clientName", default=None, doc="Name of the connections at the server.")
    heartbeat: timedelta | None = setting(
        "heartBeat",
        default=None,
        maximum=timedelta(seconds=65534),
        doc="After how long without a sign of life the server may end a connection; 0: never. 10 s if not given. Ours "
        "are found dead earlier than that.",
    )
    sasl_external: bool = setting(
        "saslExternal",
        default=False,
        doc="Log in with the client certificate. Needs `caCert`, `clientCert` and `clientKey`.",
    )
    properties_to_metadata: bool = setting(
        "publishMessagePropertiesToMetadata",
        default=False,
        doc="Whether message properties and headers come as `metadata.messageid`, `metadata.correlationid`, "
        "`metadata.type`, `metadata.contenttype` and `metadata.<header>` as well.",
    )
    queue_type: Literal["classic", "quorum"] = setting(
        "queueType", default="classic", doc="`quorum`: replicated queues that count deliveries."
    )
    delivery_limit: int | None = setting(
        "deliveryLimit",
        default=None,
        minimum=0,
        doc="Quorum queues: how often a message may be handed back before the server gives it up. The server's own if "
        "not given (20 from RabbitMQ 4.0 on).",
    )
    max_priority: int | None = setting(
        "maxPriority", default=None, minimum=1, maximum=255, doc="Makes queues with priorities up to this."
    )
    single_active_consumer: bool = setting(
        "singleActiveConsumer",
        default=False,
        doc="Whether one consumer of a queue gets all messages while the others wait. Subscriptions with an order "
        "always ask for it.",
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the address, with TLS, or with fields that exclude each other."""
        yield from super().check()
        scheme: str = self.protocol or "amqp"
        if self.connection_string is not None:
            uri = uri_of(self.connection_string)
            if isinstance(uri, str):
                yield "connectionString", uri
                return
            if self.protocol is not None and self.protocol != uri.scheme:
                yield "protocol", f"is {self.protocol}, but connectionString begins with {uri.scheme}://"
            scheme = uri.scheme
        else:
            try:
                parse_hosts(self.hostname, default_port(scheme))
            except ValueError as exc:
                yield "hostname", str(exc)
        yield from self.check_tls(tls=scheme == "amqps", external=self.sasl_external, external_field="saslExternal")
        if self.queue_type == "quorum":
            if not self.durable:
                yield "durable", "must be true with queueType quorum; such queues are always durable"
            if self.deleted_when_unused:
                yield "deletedWhenUnused", "must be false with queueType quorum; such queues are never deleted so"
            if self.max_priority is not None:
                yield "maxPriority", "has no meaning with queueType quorum"
        elif self.delivery_limit is not None:
            yield "deliveryLimit", "needs queueType quorum; the server counts the deliveries of no other queues"

    def options(self) -> RabbitOptions:
        """Return what a client is made of. Components with equal options share one."""
        if self.connection_string is not None:
            uri = uri_of(self.connection_string)
            assert not isinstance(uri, str), "`check` has refused it"
            scheme, hosts, vhost, beat = uri.scheme, uri.hosts, uri.vhost, uri.heartbeat
            username, password = uri.username, uri.password
        else:
            scheme, vhost, beat = self.protocol or "amqp", "/", None
            hosts = parse_hosts(self.hostname, default_port(scheme))
            username, password = self.username or "guest", self.password or Secret("guest")
        if self.heartbeat is not None:
            # 0 would mean that there is none.
            beat = max(1, round(self.heartbeat.total_seconds())) if self.heartbeat else 0
        return RabbitOptions(
            hosts=hosts,
            username=username,
            password=password,
            vhost=vhost,
            tls=scheme == "amqps",
            ca_cert=self.ca_cert,
            client_cert=self.client_cert,
            client_key=self.client_key,
            external=self.sasl_external,
            heartbeat=10 if beat is None else beat,
            reconnect_wait=self.reconnect_wait.total_seconds(),
            client_name=self.client_name,
        )
