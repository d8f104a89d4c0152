"""Each way to log in, at the listeners of a real broker, and what is said when it is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import RSAKey
from tests.backends.kafka import KafkaCluster

from lapel.driver import DriverContext
from lapel.errors import PermissionDeniedError, UnavailableError
from lapel.pubsub import Message, PubSub
from lapel_contrib.kafka.component_settings import KafkaPubSubSettings
from lapel_contrib.kafka.pubsub import KafkaPubSub

pytestmark = pytest.mark.timeout(60)


def bus(fields: dict[str, str]) -> PubSub:
    settings = KafkaPubSubSettings.parse({"heartbeatInterval": "300ms", **fields})
    return PubSub(KafkaPubSub(settings, DriverContext(component="login")))


async def exchange(fields: dict[str, str], topic: str, text: str = "hello") -> None:
    """Publish a message and receive it."""
    got = asyncio.get_running_loop().create_future()

    async def handle(message: Message) -> None:
        got.set_result(message.text())

    async with bus(fields) as component, await component.subscribe(topic, handle):
        await component.publish(topic, text.encode(), content_type="text/plain")
        async with asyncio.timeout(20):
            assert await got == text


def password(kafka: KafkaCluster) -> dict[str, str]:
    return {"authType": "password", "saslUsername": kafka.login.username, "saslPassword": kafka.login.password}


def pem(kafka: KafkaCluster) -> dict[str, str]:
    return {"caCert": kafka.tls.ca.read_text()}


def client_pem(kafka: KafkaCluster) -> dict[str, str]:
    assert kafka.tls.cert is not None
    assert kafka.tls.key is not None
    return {**pem(kafka), "clientCert": kafka.tls.cert.read_text(), "clientKey": kafka.tls.key.read_text()}


@pytest.mark.parametrize("mechanism", ["PLAINTEXT", "SHA-256", "SHA-512"])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_password(kafka_secure: KafkaCluster, mechanism: str, encrypted: bool) -> None:
    fields = {**password(kafka_secure), "saslMechanism": mechanism}
    if encrypted:
        fields |= {"brokers": kafka_secure.at("SASLTLS")[0], **pem(kafka_secure)}
    else:
        fields |= {"brokers": kafka_secure.at("SASL")[0], "disableTls": "true"}
    await exchange(fields, f"password-{mechanism}-{encrypted}")


async def test_a_certificate_of_the_broker_alone(kafka_secure: KafkaCluster) -> None:
    fields = {"brokers": kafka_secure.at("TLS")[0], "authType": "certificate"}
    await exchange({**fields, **pem(kafka_secure)}, "tls")
    await exchange({**fields, "skipVerify": "true"}, "tls-unverified")


async def test_a_certificate_of_the_client(kafka_secure: KafkaCluster) -> None:
    fields = {"brokers": kafka_secure.at("MTLS")[0], "authType": "mtls"}
    await exchange({**fields, **client_pem(kafka_secure)}, "mtls")


@pytest.mark.parametrize("mechanism", ["PLAINTEXT", "SHA-256", "SHA-512"])
async def test_a_wrong_password_is_refused_and_shown_to_nobody(
    kafka_secure: KafkaCluster, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fields = {**password(kafka_secure), "saslPassword": "wrong-secret", "saslMechanism": mechanism}
    component = bus({**fields, "brokers": kafka_secure.at("SASL")[0], "disableTls": "true"})
    with pytest.raises(PermissionDeniedError, match="saslPassword") as caught:
        await component.open()
    assert "wrong-secret" not in str(caught.value)
    assert "wrong-secret" not in caplog.text


async def test_neither_a_password_nor_messages_are_logged(
    kafka_secure: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fields = {**password(kafka_secure), "brokers": kafka_secure.at("SASL")[0], "disableTls": "true"}
    await exchange(fields, "unlogged", "canary")
    assert "aiokafka" in {record.name.partition(".")[0] for record in caplog.records}, "nothing was logged at all"
    assert kafka_secure.login.password not in caplog.text
    assert "canary" not in caplog.text


async def test_other_logins_that_cannot_work_say_why(kafka_secure: KafkaCluster) -> None:
    cases: list[tuple[dict[str, str], str]] = [
        ({"brokers": kafka_secure.at("TLS")[0], "authType": "certificate", **_stranger()}, "not trusted.*caCert"),
        ({"brokers": kafka_secure.at("MTLS")[0], "authType": "certificate", **pem(kafka_secure)}, "reached|TLS"),
        ({"brokers": kafka_secure.at("PLAINTEXT")[0], "authType": "certificate", **pem(kafka_secure)}, "reached|TLS"),
        ({"brokers": kafka_secure.at("SASL")[0], "authType": "none"}, "reached"),
    ]
    for fields, text in cases:
        component = bus({**fields, "readTimeout": "2s"})
        with pytest.raises(UnavailableError, match=text):
            await component.open()


def _stranger() -> dict[str, str]:
    """Return an authority that signed nothing."""
    import ssl

    roots = ssl.create_default_context().get_ca_certs(binary_form=True)
    return {"caCert": ssl.DER_cert_to_PEM_cert(roots[0])}


class Tokens:
    """An endpoint that hands out tokens as the test's broker takes them, to those it knows."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.headers: list[str] = []
        self.status = 200
        self.lifetime = 3600
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = (await reader.readexactly(int(lines["content-length"]))).decode()
        self.headers.append(head)
        self.forms.append({name: values[0] for name, values in parse_qs(body).items()})
        now = int(time.time())
        claims = {"sub": "lapel", "iat": now, "exp": now + self.lifetime, "scope": "kafka"}
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims)]
        token = b".".join(parts).decode() + "."
        reply = json.dumps({"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"}).encode()
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
            % (self.status, len(reply), reply)
        )
        await writer.drain()
        writer.close()


@asynccontextmanager
async def token_endpoint() -> AsyncIterator[Tokens]:
    tokens = Tokens()
    server = await asyncio.start_server(tokens.answer, "127.0.0.1", 0)
    tokens.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
    async with server:
        yield tokens


async def test_tokens_for_a_client_secret(kafka_secure: KafkaCluster) -> None:
    async with token_endpoint() as tokens:
        fields = {
            "brokers": kafka_secure.at("OAUTH")[0],
            "authType": "oidc",
            "oidcTokenEndpoint": tokens.url,
            "oidcClientID": "shop",
            "oidcClientSecret": "client-secret",
            "oidcScopes": "kafka,openid",
            "oidcExtensions": '{"cluster": "one"}',
            **pem(kafka_secure),
        }
        await exchange(fields, "oidc")
        assert tokens.forms == [{"grant_type": "client_credentials", "scope": "kafka openid"}], "one token is enough"
        basic = base64.b64encode(b"shop:client-secret").decode()
        assert f"Basic {basic}" in tokens.headers[0]
        tokens.status = 401
        with pytest.raises(PermissionDeniedError, match="oidcClientID") as caught:
            await bus(fields).open()
        assert "client-secret" not in str(caught.value)
        tokens.status = 503
        with pytest.raises(UnavailableError, match="token endpoint"):
            await bus(fields).open()


async def test_a_token_is_renewed_before_it_expires(kafka_secure: KafkaCluster) -> None:
    async with token_endpoint() as tokens:
        tokens.lifetime = 1
        fields = {
            "brokers": kafka_secure.at("OAUTH")[0],
            "authType": "oidc",
            "oidcTokenEndpoint": tokens.url,
            "oidcClientID": "shop",
            "oidcClientSecret": "client-secret",
            **pem(kafka_secure),
        }
        async with bus(fields) as component:
            before = len(tokens.forms)
            await asyncio.sleep(1.1)
            async with await component.subscribe("oidc-renewed", _ignore):
                assert len(tokens.forms) > before


async def _ignore(message: Message) -> None:
    pass


async def test_tokens_for_a_signed_assertion(kafka_secure: KafkaCluster) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert kafka_secure.tls.cert is not None
    async with token_endpoint() as tokens:
        fields = {
            "brokers": kafka_secure.at("OAUTH")[0],
            "authType": "oidc_private_key_jwt",
            "oidcTokenEndpoint": tokens.url,
            "oidcClientID": "shop",
            "oidcClientAssertionKey": private,
            "oidcClientAssertionCert": kafka_secure.tls.cert.read_text(),
            "oidcAudience": "https://issuer",
            "oidcResource": "urn:kafka",
            "oidcKid": "key-1",
            **pem(kafka_secure),
        }
        await exchange(fields, "oidc-jwt")
    (form,) = tokens.forms
    assert urlsplit(tokens.url).hostname == "127.0.0.1"
    assert (form["client_id"], form["resource"], form["scope"]) == ("shop", "urn:kafka", "openid")
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    token = jwt.decode(form["client_assertion"], RSAKey.import_key(private), algorithms=["RS256"])
    assert token.header["kid"] == "key-1"
    assert (token.claims["iss"], token.claims["sub"], token.claims["aud"]) == ("shop", "shop", "https://issuer")
    assert token.claims["exp"] > time.time()
