"""The HTTP binding over TLS: both sides show certificates, and whom it cannot trust gets no request."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.binding_http_support import Identity, Server, issue, made, running

from lapel.errors import ConfigurationError, OperationFailedError, PermissionDeniedError
from lapel_contrib.http.settings import HttpSettings


@dataclass
class Certificates:
    """A certificate authority, and what it issued to the server and to the client."""

    authority: Identity
    server: ssl.SSLContext
    client: Identity


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority, authority_key, authority_identity = issue("authority", None)
    _, _, server_identity = issue("server", (authority, authority_key))
    _, _, client_identity = issue("client", (authority, authority_key))
    (folder / "server.pem").write_text(server_identity.certificate + server_identity.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority_identity.certificate)
    context.load_cert_chain(folder / "server.pem")
    return Certificates(authority_identity, context, client_identity)


@asynccontextmanager
async def secure(
    certificates: Certificates, *, client: bool, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
) -> AsyncIterator[Server]:
    certificates.server.verify_mode = ssl.CERT_REQUIRED if client else ssl.CERT_NONE
    certificates.server.maximum_version = newest
    async with running(tls=certificates.server) as server:
        yield server


@pytest.mark.parametrize("inline", [True, False])
async def test_both_sides_show_certificates(certificates: Certificates, tmp_path: Path, inline: bool) -> None:
    fields = {
        "MTLSRootCA": certificates.authority.certificate,
        "MTLSClientCert": certificates.client.certificate,
        "MTLSClientKey": certificates.client.key,
    }
    if not inline:
        for name, content in fields.items():
            (tmp_path / name).write_text(content)
            fields[name] = str(tmp_path / name)
    async with secure(certificates, client=True) as server, made(server.url, **fields) as binding:
        assert (await binding.invoke("post", b"x")).data == b"fine"


async def test_a_server_that_is_not_trusted_is_refused(certificates: Certificates) -> None:
    async with secure(certificates, client=False) as server:
        async with made(server.url) as binding:
            with pytest.raises(OperationFailedError, match=r"not trusted .*MTLSRootCA") as caught:
                await binding.invoke("get")
            assert not caught.value.retryable
        assert server.requests == []


async def test_a_client_without_a_certificate_is_told_which_field_to_set(certificates: Certificates) -> None:
    # TLS 1.3 asks after the handshake, and then the reset connection may arrive before the alert.
    async with secure(certificates, client=True, newest=ssl.TLSVersion.TLSv1_2) as server:
        fields = {"MTLSRootCA": certificates.authority.certificate}
        async with made(server.url, **fields) as binding:
            with pytest.raises(PermissionDeniedError, match="MTLSClientCert"):
                await binding.invoke("get")
        assert server.requests == []


@pytest.mark.parametrize(("renegotiation", "never"), [("RenegotiateNever", True), ("RenegotiateFreelyAsClient", False)])
def test_renegotiation_reaches_the_tls_library(renegotiation: str, never: bool) -> None:
    from lapel_contrib.http.tls import make_context

    context = make_context(HttpSettings.parse({"url": "https://h", "MTLSRenegotiation": renegotiation}))
    assert bool(context.options & ssl.OP_NO_RENEGOTIATION) is never


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"MTLSRootCA": "/missing/file"}, "'MTLSRootCA': No such file"),
        ({"MTLSRootCA": "-----BEGIN CERTIFICATE-----\nnonsense"}, "'MTLSRootCA' holds no certificate"),
        ({"MTLSClientCert": "-----BEGIN X", "MTLSClientKey": "-----BEGIN c4n4ry"}, "'MTLSClientKey' are not a PEM"),
    ],
)
async def test_certificates_that_cannot_be_read_do_not_open(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        await made("https://127.0.0.1", **fields).open()
    assert "c4n4ry" not in str(caught.value)
