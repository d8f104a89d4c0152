"""TLS contexts of drivers: whom they trust, what they show, and nothing of a key in an error."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from tests.backends.certificates import Certificates, make_certificates

from lapel.errors import ConfigurationError
from lapel.secret import Secret
from lapel.tls import client_context, show_certificate

FIELDS = ("clientCert", "clientKey")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def test_servers_are_verified_unless_it_is_switched_off() -> None:
    context = client_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    lenient = client_context(verify=False)
    assert lenient.verify_mode is ssl.CERT_NONE


def test_given_authorities_are_the_only_ones(files: Certificates) -> None:
    context = client_context(files.client.ca.read_text(), field="caCert")
    assert len(context.get_ca_certs()) == 1


def test_what_is_no_certificate_names_the_field() -> None:
    with pytest.raises(ConfigurationError, match="'caCert' holds no certificate in PEM form"):
        client_context("nonsense", field="caCert")


@pytest.mark.parametrize("text", ["", " \n"])
def test_no_text_does_not_mean_the_system_s_authorities(text: str) -> None:
    with pytest.raises(ConfigurationError, match="'caCert' is empty"):
        client_context(text, field="caCert")


def test_a_certificate_is_shown_and_leaves_no_file(
    files: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert files.client.cert is not None
    assert files.client.key is not None
    certificate, key = files.client.cert.read_text(), files.client.key.read_text()
    show_certificate(client_context(), certificate, Secret(key), fields=FIELDS)
    with pytest.raises(ConfigurationError, match="'clientCert' and 'clientKey' are not") as caught:
        show_certificate(client_context(), certificate, Secret("canary-key"), fields=FIELDS)
    assert "canary" not in repr(caught.value)
    assert not list(tmp_path.iterdir())
