"""What the fields of the RabbitMQ components lead to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lapel.errors import ConfigurationError, SettingsError
from lapel.secret import Secret
from lapel_contrib.rabbitmq.binding_settings import RabbitBindingSettings
from lapel_contrib.rabbitmq.options import RabbitOptions, parse_hosts, parse_uri
from lapel_contrib.rabbitmq.pubsub_settings import RabbitPubSubSettings
from lapel_contrib.rabbitmq.tls import make_context

PEM = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"
TLS = {"caCert": PEM, "clientCert": PEM, "clientKey": PEM}


def pubsub(**fields: str) -> RabbitPubSubSettings:
    return RabbitPubSubSettings.parse(fields)


def refused(fields: dict[str, str], model: type[Any] = RabbitPubSubSettings) -> str:
    with pytest.raises(SettingsError) as caught:
        model.parse(fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "hosts", "login", "vhost"),
    [
        ("amqp://", [("localhost", 5672)], ("guest", "guest"), "/"),
        ("amqps://rabbit", [("rabbit", 5671)], ("guest", "guest"), "/"),
        ("amqp://user:p%40ss%2F@rabbit:1234/", [("rabbit", 1234)], ("user", "p@ss/"), "/"),
        ("amqp://user:pw@rabbit/%2F", [("rabbit", 5672)], ("user", "pw"), "/"),
        ("amqp://user:pw@rabbit/a%2Fb", [("rabbit", 5672)], ("user", "pw"), "a/b"),
        ("AMQP://user:pw@a:1,b,[::1]:2/v", [("a", 1), ("b", 5672), ("::1", 2)], ("user", "pw"), "v"),
    ],
)
def test_an_address_is_read_as_amqp_uris_are(
    uri: str, hosts: list[tuple[str, int]], login: tuple[str, str], vhost: str
) -> None:
    found = parse_uri(uri)
    assert (list(found.hosts), found.vhost) == (hosts, vhost)
    assert (found.username, found.password.reveal()) == login


@pytest.mark.parametrize("uri", ["", "rabbit", "http://rabbit", "amqp://rabbit:port", "amqp://:1", "amqp://a?verify=1"])
def test_an_address_that_is_none_is_refused_without_being_shown(uri: str) -> None:
    text = refused({"connectionString": uri or "amqp", "queueType": "classic"})
    assert "connectionString" in text
    assert "rabbit:port" not in text
    with pytest.raises(ValueError, match="host"):
        parse_hosts("a,,b", 1)


def test_connection_fields_reach_the_client() -> None:
    found = pubsub(
        connectionString="amqps://user:pw@rabbit:1/shop?heartbeat=7",
        protocol="amqps",
        clientName="orders",
        reconnectWaitSeconds="9",
        saslExternal="true",
        **TLS,
    ).options()
    assert found == RabbitOptions(
        hosts=(("rabbit", 1),),
        username="user",
        password=Secret("pw"),
        vhost="shop",
        tls=True,
        ca_cert=PEM,
        client_cert=PEM,
        client_key=Secret(PEM),
        external=True,
        heartbeat=7,
        reconnect_wait=9.0,
        client_name="orders",
    )
    assert pubsub(connectionString="amqp://a?heartbeat=7", heartBeat="20").options().heartbeat == 20
    assert pubsub(connectionString="amqp://a").options().heartbeat == 10
    # A short one must not become 0, which is none.
    assert pubsub(connectionString="amqp://a", heartBeat="300ms").options().heartbeat == 1
    assert pubsub(connectionString="amqp://a", heartBeat="0").options().heartbeat == 0
    assert pubsub(host="amqp://legacy").options().hosts == (("legacy", 5672),)


def test_an_address_can_be_given_in_parts() -> None:
    found = pubsub(protocol="amqps", hostname="a:1,b", username="user", password="pw").options()
    assert (found.hosts, found.tls) == ((("a", 1), ("b", 5671)), True)
    assert (found.username, found.password.reveal(), found.vhost) == ("user", "pw", "/")
    assert pubsub().options().hosts == (("localhost", 5672),)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"connectionString": "amqp://a", "protocol": "amqps"}, "protocol"),
        ({"hostname": "a:b:c"}, "hostname"),
        ({"caCert": PEM}, "caCert"),
        ({"connectionString": "amqps://a", "caCert": "no pem"}, "caCert"),
        ({"connectionString": "amqps://a", "clientCert": PEM}, "clientKey"),
        ({"connectionString": "amqps://a", "saslExternal": "true"}, "saslExternal"),
        ({"exchangeKind": "other"}, "exchangeKind"),
        ({"concurrencyMode": "some"}, "concurrencyMode"),
        ({"prefetchCount": "-1"}, "prefetchCount"),
        ({"ttlInSeconds": "0"}, "ttlInSeconds"),
        ({"ttlInSeconds": "5000000"}, "ttlInSeconds"),
        ({"queueType": "stream"}, "queueType"),
        ({"queueType": "quorum", "durable": "false", "deletedWhenUnused": "false"}, "durable"),
        ({"queueType": "quorum"}, "deletedWhenUnused"),
        ({"queueType": "quorum", "deletedWhenUnused": "false", "maxPriority": "3"}, "maxPriority"),
        ({"deliveryLimit": "3"}, "deliveryLimit"),
        ({"publisherConfirms": "true"}, "publisherConfirm"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, str], named: str) -> None:
    assert named in refused(fields)


def test_every_field_of_the_reference_is_known() -> None:
    known = {
        "connectionString": "amqps://a",
        "consumerID": "me",
        "durable": "false",
        "deletedWhenUnused": "false",
        "autoAck": "true",
        "requeueInFailure": "true",
        "deliveryMode": "1",
        "prefetchCount": "300",
        "reconnectWaitSeconds": "5s",
        "concurrencyMode": "single",
        "publisherConfirm": "false",
        "enableDeadLetter": "true",
        "maxLen": "5",
        "maxLenBytes": "500",
        "exchangeKind": "topic",
        "ttlInSeconds": "60",
        "clientName": "me",
        "heartBeat": "5s",
        "saslExternal": "false",
        "publishMessagePropertiesToMetadata": "true",
        **TLS,
    }
    warnings: list[Any] = []
    found = RabbitPubSubSettings.parse(known, warnings=warnings)
    assert {warning.field for warning in warnings} == {"deliveryMode", "publisherConfirm"}
    assert (found.prefetch_count, found.ttl, found.concurrency_mode) == (300, timedelta(minutes=1), "single")
    assert found.reconnect_wait == timedelta(seconds=5)
    assert RabbitPubSubSettings.parse({"ttl": "5s"}).ttl == timedelta(seconds=5)


def test_every_field_of_the_binding_is_known() -> None:
    known = {
        "host": "amqps://user:pw@a/v",
        "queueName": "work",
        "durable": "true",
        "deleteWhenUnused": "true",
        "exclusive": "true",
        "ttl": "60",
        "prefetchCount": "7",
        "maxPriority": "1000",
        "reconnectWaitInSeconds": "2",
        "externalSasl": "true",
        "contentType": "application/json",
        "direction": "input, output",
        "route": "/jobs",
        **TLS,
    }
    warnings: list[Any] = []
    found = RabbitBindingSettings.parse(known, warnings=warnings)
    assert warnings == []
    options = found.options()
    assert (options.vhost, options.external, options.reconnect_wait, options.tls) == ("v", True, 2.0, True)
    assert RabbitBindingSettings.parse({"host": "amqp://a", "queueName": "q", "ttlInSeconds": "5"}).ttl is not None
    for fields in (
        {"host": "amqp://a"},
        {"queueName": "q"},
        {"host": "amqp://a", "queueName": "q" * 256},
        {"host": "amqp://a", "queueName": "q", "saslExternal": "true"},
        {"host": "nothing", "queueName": "q"},
    ):
        refused(fields, RabbitBindingSettings)


def test_passwords_are_shown_nowhere() -> None:
    found = pubsub(connectionString="amqp://user:hidden-pw@rabbit")
    options = found.options()
    assert "hidden-pw" not in f"{found!r} {options!r} {options.place}"
    assert options.place == "RabbitMQ rabbit:5672"
    assert "hidden-pw" not in refused({"connectionString": "amqp://user:hidden-pw@rabbit:99999"})


def test_certificates_that_are_none_are_named() -> None:
    base = RabbitOptions(hosts=(("a", 1),), password=Secret(""), tls=True)
    assert make_context(RabbitOptions(hosts=(("a", 1),), password=Secret(""))) is None
    assert make_context(base) is not None
    with pytest.raises(ConfigurationError, match="caCert"):
        make_context(RabbitOptions(hosts=(("a", 1),), password=Secret(""), tls=True, ca_cert=PEM))
    with pytest.raises(ConfigurationError, match="clientCert"):
        make_context(
            RabbitOptions(hosts=(("a", 1),), password=Secret(""), tls=True, client_cert=PEM, client_key=Secret(PEM))
        )
