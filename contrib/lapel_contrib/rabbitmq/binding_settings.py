"""Settings of bindings.rabbitmq."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from lapel.bindings.settings import BindingSettings
from lapel.settings import Secret, setting

from .options import RabbitOptions
from .settings import LONGEST_TTL, RabbitTlsSettings, uri_of

__all__ = ["RabbitBindingSettings"]


class RabbitBindingSettings(RabbitTlsSettings, BindingSettings):
    """Settings of bindings.rabbitmq. Bare numbers in durations are seconds."""

    host: Secret = setting(
        "host",
        doc="Address as an AMQP URI. Several hosts of one cluster are separated by commas.",
        example="amqp://user:password@localhost:5672/",
    )
    queue_name: str = setting("queueName", doc="The queue.", example="orders")
    durable: bool = setting("durable", default=False, doc="Whether the queue outlives a restart of the server.")
    delete_when_unused: bool = setting(
        "deleteWhenUnused",
        default=False,
        doc="Whether the server deletes the queue, with its messages, when its last consumer leaves.",
    )
    exclusive: bool = setting(
        "exclusive",
        default=False,
        doc="Whether the queue belongs to one connection and goes with it. Input and output of one assembly share it.",
    )
    passive: bool = setting(
        "passive",
        default=False,
        doc="Whether the queue must be there already. Nothing is declared then, so the fields about the queue have no "
        "effect.",
    )
    ttl: timedelta | None = setting(
        "ttl",
        aliases=("ttlInSeconds",),
        default=None,
        minimum=timedelta(milliseconds=1),
        maximum=timedelta(seconds=LONGEST_TTL),
        doc="Time to live of messages in the queue.",
    )
    prefetch_count: int = setting(
        "prefetchCount",
        default=0,
        minimum=0,
        maximum=65535,
        doc="Most messages that a reading holds; 0: as many as its handlers can take.",
    )
    max_priority: int | None = setting(
        "maxPriority", default=None, minimum=0, doc="Makes a queue with priorities up to this, at most 255."
    )
    reconnect_wait: timedelta = setting(
        "reconnectWaitInSeconds",
        default=timedelta(seconds=5),
        doc="Longest pause between two attempts to connect again. The first attempts follow faster.",
    )
    external: bool = setting(
        "externalSasl",
        aliases=("saslExternal",),
        default=False,
        doc="Log in with the client certificate. Needs `caCert`, `clientCert` and `clientKey`.",
    )
    content_type: str | None = setting(
        "contentType", default=None, doc="Content type of messages that bring none; `text/plain` if not given."
    )

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong with the address, with TLS, or with the queue's name."""
        yield from super().check()
        if not 0 < len(self.queue_name.encode()) <= 255:
            yield "queueName", "must have 1 to 255 bytes"
        uri = uri_of(self.host)
        if isinstance(uri, str):
            yield "host", uri
            return
        yield from self.check_tls(tls=uri.scheme == "amqps", external=self.external, external_field="externalSasl")

    def options(self) -> RabbitOptions:
        """Return what a client is made of. Components with equal options share one."""
        uri = uri_of(self.host)
        assert not isinstance(uri, str), "`check` has refused it"
        return RabbitOptions(
            hosts=uri.hosts,
            username=uri.username,
            password=uri.password,
            vhost=uri.vhost,
            tls=uri.scheme == "amqps",
            ca_cert=self.ca_cert,
            client_cert=self.client_cert,
            client_key=self.client_key,
            external=self.external,
            heartbeat=10 if uri.heartbeat is None else uri.heartbeat,
            reconnect_wait=self.reconnect_wait.total_seconds(),
        )
