"""What each field of a Kafka component does: what of it reaches the client, or why it is refused."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from tests.backends.certificates import Certificates, make_certificates

from lapel.errors import ConfigurationError, SettingsError
from lapel_contrib.kafka import clients, producer
from lapel_contrib.kafka.client import Access
from lapel_contrib.kafka.component_settings import KafkaBindingSettings, KafkaPubSubSettings

BASE = {"brokers": "one:1, two:2", "authType": "none"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def parse(**fields: str) -> KafkaPubSubSettings:
    return KafkaPubSubSettings.parse({**BASE, **fields})


def problems(**fields: str) -> dict[str | None, str]:
    found = KafkaPubSubSettings.examine({name: text for name, text in {**BASE, **fields}.items() if text != "-"})
    return {problem.field: problem.message for problem in found}


class Seen(Exception):  # noqa: N818 - carries what was seen
    """Raised in place of a start."""

    def __init__(self, client: Any) -> None:
        self.client = client


@pytest.fixture
def no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(client: Any) -> None:
        raise Seen(client)

    monkeypatch.setattr(clients, "start", start)
    monkeypatch.setattr(producer, "start", start)


async def made_producer(settings: KafkaPubSubSettings) -> AIOKafkaProducer:
    with pytest.raises(Seen) as caught:
        await producer.KafkaProducer.open(settings.options())
    return caught.value.client


async def made_consumer(settings: KafkaPubSubSettings) -> AIOKafkaConsumer:
    access = await Access.make(settings.options())
    with pytest.raises(Seen) as caught:
        await clients.start_clients(access, settings.consumer_options(), "group")
    return caught.value.client


@pytest.mark.parametrize(
    ("fields", "attribute", "expected"),
    [
        ({}, "client._bootstrap_servers", ["one:1", "two:2"]),
        ({"clientID": "me"}, "client._client_id", "me"),
        ({}, "client._request_timeout_ms", 8000),
        ({"readTimeout": "3"}, "client._request_timeout_ms", 3000),
        ({"readTimeout": "0"}, "client._request_timeout_ms", 8000),
        ({"readTimeout": "-1s"}, "client._request_timeout_ms", 8000),
        ({}, "client._metadata_max_age_ms", 8 * 60 * 1000),
        ({"clientConnectionTopicMetadataRefreshInterval": "1m"}, "client._metadata_max_age_ms", 60_000),
        ({}, "client._connections_max_idle_ms", None),
        ({"clientConnectionKeepAliveInterval": "4m"}, "client._connections_max_idle_ms", 240_000),
        ({}, "_max_request_size", 1024 * 1024),
        ({"maxMessageBytes": "2Mi"}, "_max_request_size", 2 * 1024 * 1024),
        ({}, "_message_accumulator._batch_size", 256 * 1024),
        ({}, "_compression_type", None),
        ({"compression": "ZSTD"}, "_compression_type", "zstd"),
        ({"compression": "gzip"}, "_compression_type", "gzip"),
        ({"compression": "lz4"}, "_compression_type", "lz4"),
        ({"compression": "snappy"}, "_compression_type", "snappy"),
        ({}, "_sender._acks", -1),
        ({"producerRequiredAcks": "local"}, "_sender._acks", 1),
        ({"producerRequiredAcks": "none"}, "_sender._acks", 0),
    ],
)
async def test_what_reaches_the_producer(
    no_start: None, fields: dict[str, str], attribute: str, expected: object
) -> None:
    found: Any = await made_producer(parse(**fields))
    for name in attribute.split("."):
        found = getattr(found, name)
    assert found == expected


async def test_the_producer_is_idempotent_unless_less_is_waited_for(no_start: None) -> None:
    assert (await made_producer(parse()))._txn_manager is not None
    assert (await made_producer(parse(producerRequiredAcks="local")))._txn_manager is None


@pytest.mark.parametrize(
    ("fields", "attribute", "expected"),
    [
        ({}, "_group_id", "group"),
        ({}, "_enable_auto_commit", False),
        ({}, "_isolation_level", "read_committed"),
        ({}, "_session_timeout_ms", 10_000),
        ({"sessionTimeout": "20s"}, "_session_timeout_ms", 20_000),
        ({"sessionTimeout": "20s"}, "_rebalance_timeout_ms", 20_000),
        ({}, "_heartbeat_interval_ms", 3000),
        ({"heartbeatInterval": "1"}, "_heartbeat_interval_ms", 1000),
        ({}, "_retry_backoff_ms", 100),
        ({"consumeRetryInterval": "250"}, "_retry_backoff_ms", 250),
        ({}, "_fetch_min_bytes", 1),
        ({"consumerFetchMin": "100"}, "_fetch_min_bytes", 100),
        ({}, "_max_partition_fetch_bytes", 1024 * 1024),
        ({"consumerFetchDefault": "5000000"}, "_max_partition_fetch_bytes", 5_000_000),
        ({"consumerFetchDefault": "4096"}, "_max_partition_fetch_bytes", 4096),
        ({}, "_group_instance_id", None),
        ({"groupInstanceID": "pod-0"}, "_group_instance_id", "pod-0"),
    ],
)
async def test_what_reaches_the_consumer(
    no_start: None, fields: dict[str, str], attribute: str, expected: object
) -> None:
    client = await made_consumer(parse(**fields))
    assert getattr(client, attribute) == expected


@pytest.mark.parametrize("name", ["range", "sticky", "RoundRobin"])
async def test_the_strategy_reaches_the_consumer(no_start: None, name: str) -> None:
    client = await made_consumer(parse(consumerGroupRebalanceStrategy=name))
    assert [one.name for one in client._partition_assignment_strategy] == [name.lower()]


async def _arguments(**fields: str) -> dict[str, Any]:
    access = await Access.make(KafkaPubSubSettings.parse({**BASE, **fields}).options())
    try:
        return access.arguments()
    finally:
        await access.close()


@pytest.mark.parametrize(
    ("mechanism", "expected"),
    [
        ({}, "PLAIN"),
        ({"saslMechanism": "PLAIN"}, "PLAIN"),
        ({"saslMechanism": "plaintext"}, "PLAIN"),
        ({"saslMechanism": "SHA-256"}, "SCRAM-SHA-256"),
        ({"saslMechanism": "sha-512"}, "SCRAM-SHA-512"),
    ],
)
async def test_a_password_is_sent_encrypted_unless_told_otherwise(mechanism: dict[str, str], expected: str) -> None:
    login = {"authType": "Password", "saslUsername": "me", "saslPassword": "secret", **mechanism}
    found = await _arguments(**login)
    assert (found["security_protocol"], found["sasl_mechanism"]) == ("SASL_SSL", expected)
    assert (found["sasl_plain_username"], found["sasl_plain_password"]) == ("me", "secret")
    assert found["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    found = await _arguments(**login, disableTls="true")
    assert (found["security_protocol"], found["ssl_context"]) == ("SASL_PLAINTEXT", None)


async def test_certificates_reach_the_client(certificates: Certificates) -> None:
    files = certificates.client
    assert files.cert is not None
    assert files.key is not None
    pem = {
        "caCert": files.ca.read_text(),
        "clientCert": files.cert.read_text(),
        "clientKey": files.key.read_text(),
    }
    found = await _arguments(authType="mtls", **pem)
    assert found["security_protocol"] == "SSL"
    assert len(found["ssl_context"].get_ca_certs()) == 1
    found = await _arguments(authType="certificate", caCert=pem["caCert"])
    assert found["ssl_context"].check_hostname
    found = await _arguments(authType="certificate", skipVerify="true")
    assert found["ssl_context"].verify_mode is ssl.CERT_NONE
    for wrong, message in (
        ({**pem, "caCert": "no certificate"}, "caCert"),
        ({**pem, "clientKey": "no key"}, "clientKey"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            await _arguments(authType="mtls", **wrong)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"authType": "-"}, "authType"),
        ({"authType": "kerberos"}, "authType"),
        ({"authType": "awsiam"}, "authType"),
        ({"authType": "password"}, "saslUsername"),
        ({"authType": "password", "saslUsername": "u"}, "saslPassword"),
        ({"authType": "mtls"}, "clientCert"),
        ({"authType": "mtls", "clientCert": "c", "clientKey": "k"}, "caCert"),
        ({"authType": "certificate"}, "caCert"),
        ({"authType": "certificate", "caCert": "c", "disableTls": "true"}, "disableTls"),
        ({"authType": "oidc", "oidcTokenEndpoint": "http://t", "oidcClientID": "c"}, "oidcClientSecret"),
        ({"authType": "oidc_private_key_jwt"}, "oidcClientAssertionKey"),
        ({"authType": "oidc", "oidcExtensions": "no json"}, "oidcExtensions"),
        ({"authType": "password", "saslMechanism": "GSSAPI"}, "saslMechanism"),
        ({"caCert": "c"}, "caCert"),
        ({"saslPassword": "p"}, "saslPassword"),
        ({"brokers": "host:port"}, "brokers"),
        ({"brokers": ","}, "brokers"),
        ({"heartbeatInterval": "10s"}, "heartbeatInterval"),
        ({"excludeHeaderMetaRegex": "("}, "excludeHeaderMetaRegex"),
        ({"initialOffset": "middle"}, "initialOffset"),
        ({"compression": "rar"}, "compression"),
        ({"consumerGroupRebalanceStrategy": "fair"}, "consumerGroupRebalanceStrategy"),
        ({"region": "eu"}, "region"),
        ({"accessKey": "a"}, "accessKey"),
        ({"awsSecretKey": "a"}, "awsSecretKey"),
        ({"sessionToken": "a"}, "sessionToken"),
        ({"assumeRoleArn": "a"}, "assumeRoleArn"),
        ({"sessionName": "a"}, "sessionName"),
        ({"trustAnchorArn": "a"}, "trustAnchorArn"),
        ({"trustProfileArn": "a"}, "trustProfileArn"),
        ({"schemaRegistryURL": "http://r"}, "schemaRegistryURL"),
        ({"schemaRegistryAPIKey": "k"}, "schemaRegistryAPIKey"),
        ({"schemaRegistryAPISecret": "s"}, "schemaRegistryAPISecret"),
        ({"useAvroJSON": "true"}, "useAvroJSON"),
    ],
)
def test_what_cannot_work_is_an_error_of_its_field(fields: dict[str, str], field: str) -> None:
    with pytest.raises(SettingsError):
        KafkaPubSubSettings.parse({name: text for name, text in {**BASE, **fields}.items() if text != "-"})
    assert field in problems(**fields)


@pytest.mark.parametrize(
    "name",
    [
        "version",
        "producerRetryMax",
        "dialTimeout",
        "writeTimeout",
        "metadataTimeout",
        "schemaCachingEnabled",
        "schemaLatestVersionCacheTTL",
    ],
)
def test_knobs_without_a_meaning_are_warnings(name: str) -> None:
    found = KafkaPubSubSettings.examine({**BASE, name: "1"})
    assert [(problem.field, problem.warning) for problem in found] == [(name, True)]


@pytest.mark.parametrize(
    ("fields", "login"),
    [
        ({"authRequired": "false"}, "none"),
        ({"authRequired": "true", "saslUsername": "u", "saslPassword": "p"}, "password"),
        ({"authRequired": "true", "clientCert": "c", "clientKey": "k", "caCert": "a"}, "mtls"),
    ],
)
def test_the_older_field_chooses_a_login(fields: dict[str, str], login: str) -> None:
    assert KafkaPubSubSettings.parse({"brokers": "b", **fields}).login == login


def test_a_broker_without_a_port_has_the_usual_one() -> None:
    access = asyncio.run(Access.make(parse(brokers="host").options()))
    assert access.arguments()["bootstrap_servers"] == ["host:9092"]


def test_the_group_of_a_component() -> None:
    assert parse(consumerID="id").consumer_id == "id"
    assert parse(consumerID="id", consumerGroup="group").consumer_id == "group"
    assert parse().consumer_id is None


def test_a_binding_names_what_it_lacks() -> None:
    def fields_of(**fields: str) -> set[str | None]:
        return {problem.field for problem in KafkaBindingSettings.examine({**BASE, **fields})}

    assert fields_of(topics="a,b", consumerGroup="g", publishTopic="c") == set()
    assert fields_of(topics="a") == {"consumerGroup"}
    assert fields_of(direction="input, output") == {"topics", "publishTopic"}
    assert fields_of(topics="a", consumerID="g") == set()
    assert KafkaBindingSettings.parse({**BASE, "topics": "a, b", "consumerGroup": "g"}).topics == ("a", "b")
    assert KafkaBindingSettings.parse({**BASE, "consumerID": "g"}).consumer_group == "g"
    assert KafkaBindingSettings.parse(BASE).retry is False


def test_every_field_of_the_reference_is_known() -> None:
    names = [
        "brokers",
        "consumerGroup",
        "consumerID",
        "clientID",
        "initialOffset",
        "maxMessageBytes",
        "version",
        "consumeRetryEnabled",
        "consumeRetryInterval",
        "heartbeatInterval",
        "sessionTimeout",
        "consumerGroupRebalanceStrategy",
        "channelBufferSize",
        "consumerFetchMin",
        "consumerFetchDefault",
        "compression",
        "producerRequiredAcks",
        "producerRetryMax",
        "dialTimeout",
        "readTimeout",
        "writeTimeout",
        "metadataTimeout",
        "clientConnectionTopicMetadataRefreshInterval",
        "clientConnectionKeepAliveInterval",
        "escapeHeaders",
        "excludeHeaderMetaRegex",
        "schemaRegistryURL",
        "schemaRegistryAPIKey",
        "schemaRegistryAPISecret",
        "schemaCachingEnabled",
        "schemaLatestVersionCacheTTL",
        "useAvroJSON",
        "authType",
        "authRequired",
        "saslUsername",
        "saslPassword",
        "saslMechanism",
        "clientCert",
        "clientKey",
        "caCert",
        "skipVerify",
        "disableTls",
        "oidcTokenEndpoint",
        "oidcClientID",
        "oidcClientSecret",
        "oidcScopes",
        "oidcExtensions",
        "oidcClientAssertionCert",
        "oidcClientAssertionKey",
        "oidcResource",
        "oidcAudience",
        "oidcKid",
        "region",
        "accessKey",
        "secretKey",
        "sessionToken",
        "awsRegion",
        "awsAccessKey",
        "awsSecretKey",
        "awsSessionToken",
        "awsIamRoleArn",
        "awsStsSessionName",
        "assumeRoleArn",
        "sessionName",
        "trustAnchorArn",
        "trustProfileArn",
        "backOffPolicy",
        "backOffDuration",
        "backOffInitialInterval",
        "backOffRandomizationFactor",
        "backOffMultiplier",
        "backOffMaxInterval",
        "backOffMaxElapsedTime",
        "backOffMaxRetries",
    ]
    known = {name for field in KafkaPubSubSettings.fields() for name in (field.name, *field.aliases)}
    assert set(names) <= known
