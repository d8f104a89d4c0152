"""Every field of a Google Cloud component reaches the client, or is refused with the reason."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.credentials import AnonymousCredentials
from google.oauth2 import service_account

from lapel.errors import ConfigurationError, SettingsError
from lapel.secret import Secret
from lapel_contrib.gcp.component_settings import BucketSettings, SecretManagerSettings
from lapel_contrib.gcp.credentials import load_identity
from lapel_contrib.gcp.settings import GcpSettings

PROJECT = {"projectID": "shop"}


def private_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


KEY = private_key()
ACCOUNT = {
    "projectID": "shop",
    "type": "service_account",
    "privateKeyID": "k1",
    "privateKey": KEY,
    "clientEmail": "me@shop.iam.gserviceaccount.com",
}
ALL = {
    **ACCOUNT,
    "clientID": "42",
    "authURI": "https://a.example/auth",
    "tokenURI": "https://a.example/token",
    "authProviderX509CertURL": "https://a.example/certs",
    "clientX509CertURL": "https://a.example/me",
}
KEY_FILE = {
    "type": "service_account",
    "project_id": "shop",
    "private_key_id": "k1",
    "private_key": KEY,
    "client_email": "me@shop.iam.gserviceaccount.com",
    "client_id": "42",
    "auth_uri": "https://a.example/auth",
    "token_uri": "https://a.example/token",
    "auth_provider_x509_cert_url": "https://a.example/certs",
    "client_x509_cert_url": "https://a.example/me",
}


def test_the_fields_are_a_key_file_under_either_spelling() -> None:
    assert GcpSettings.parse(ALL).access().key_file() == KEY_FILE
    assert GcpSettings.parse(KEY_FILE).access().key_file() == KEY_FILE


def test_the_key_file_is_the_identity() -> None:
    identity = load_identity(GcpSettings.parse(ALL).access(), ["scope"])
    found = identity.requests
    assert isinstance(found, service_account.Credentials)
    assert found.service_account_email == ALL["clientEmail"]
    assert found._token_uri == ALL["tokenURI"]
    assert found.signer.key_id == "k1"
    assert found.scopes == ["scope"]
    assert identity.signer is found


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        KEY.replace("\n", "\\n"),
        KEY.strip(),
        '"' + KEY.replace("\n", "\\n") + '"',
        KEY.replace("\n", "\r\n"),
        KEY.replace("\n", "\\r\\n"),
    ],
)
def test_a_private_key_is_read_as_it_stands_in_files_and_environments(written: str) -> None:
    access = GcpSettings.parse({**ACCOUNT, "privateKey": written}).access()
    key_file = access.key_file()
    assert key_file is not None
    assert key_file["private_key"].split() == KEY.split()
    load_identity(access, [])


def test_a_key_that_is_none_is_refused_and_not_shown() -> None:
    wrong = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0Y2FuYXJ5\n-----END PRIVATE KEY-----\n"
    access = GcpSettings.parse({**ACCOUNT, "privateKey": wrong}).access()
    with pytest.raises(ConfigurationError, match="privateKey") as caught:
        load_identity(access, [])
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "c2VjcmV0" not in str(caught.value)
    assert "c2VjcmV0" not in repr(access)


WRONG: list[tuple[dict[str, str], str]] = [
    ({}, "projectID"),
    ({**PROJECT, "privateKey": KEY}, "privateKeyID"),
    ({**PROJECT, "clientEmail": "me"}, "privateKeyID"),
    ({**ACCOUNT, "type": ""}, "type"),
    ({**ACCOUNT, "type": "authorized_user"}, "type"),
    ({**ACCOUNT, "privateKey": ""}, "privateKey"),
    ({**ACCOUNT, "clientEmail": ""}, "clientEmail"),
    ({**ACCOUNT, "privateKey": "no key"}, "privateKey"),
    ({**PROJECT, "endpoint": "localhost:1"}, "endpoint"),
    ({**PROJECT, "endpoint": "http://"}, "endpoint"),
    ({**PROJECT, "endpoint": "http://a:1/x"}, "endpoint"),
    ({**PROJECT, "endpoint": "http://u:p@a:1"}, "endpoint"),
    ({**PROJECT, "endpoint": "http://a:b"}, "endpoint"),
]


@pytest.mark.parametrize(("fields", "named"), WRONG)
@pytest.mark.parametrize("settings", [BucketSettings, SecretManagerSettings])
def test_what_is_missing_or_wrong_is_named(settings: type[GcpSettings], fields: dict[str, str], named: str) -> None:
    given = {**fields, **({"bucket": "b"} if settings is BucketSettings else {})}
    with pytest.raises(SettingsError) as caught:
        settings.parse(given)
    assert named in {problem.field for problem in caught.value.problems}
    assert KEY.splitlines()[1] not in str(caught.value)


def test_no_token_goes_to_an_emulator_but_urls_are_signed_for_it() -> None:
    identity = load_identity(GcpSettings.parse({**ACCOUNT, "endpoint": "http://localhost:1/"}).access(), [])
    assert isinstance(identity.requests, AnonymousCredentials)
    assert isinstance(identity.signer, service_account.Credentials)
    private = GcpSettings.parse({**ACCOUNT, "endpoint": "https://storage.internal"}).access()
    assert isinstance(load_identity(private, []).requests, service_account.Credentials)


def test_default_credentials_are_used_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    access = GcpSettings.parse({**PROJECT, "type": "service_account"}).access()
    with pytest.raises(ConfigurationError, match="Application Default Credentials"):
        load_identity(access, [])
    file.write_text(json.dumps(KEY_FILE))
    found = load_identity(access, []).requests
    assert isinstance(found, service_account.Credentials)
    assert found.service_account_email == KEY_FILE["client_email"]


FIELDS: list[tuple[dict[str, str], str, Any]] = [
    ({}, "decode_base64", False),
    ({"decodeBase64": "true"}, "decode_base64", True),
    ({"encodeBase64": "yes"}, "encode_base64", True),
    ({"contentType": "text/css"}, "content_type", "text/css"),
    ({"signTTL": "15m"}, "sign_ttl", timedelta(minutes=15)),
    ({"signTTL": "168h"}, "sign_ttl", timedelta(days=7)),
    ({"direction": "output"}, "direction", ("output",)),
]


@pytest.mark.parametrize(("fields", "attribute", "value"), FIELDS)
def test_fields_of_the_bucket(fields: dict[str, str], attribute: str, value: Any) -> None:
    assert getattr(BucketSettings.parse({**PROJECT, "bucket": "b", **fields}), attribute) == value


@pytest.mark.parametrize(
    "fields", [{"signTTL": "0"}, {"signTTL": "169h"}, {"direction": "input"}, {"encodeBase64": "?"}]
)
def test_wrong_fields_of_the_bucket_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(fields))):
        BucketSettings.parse({**PROJECT, "bucket": "b", **fields})


def test_clients_are_shared_by_components_with_equal_access_only() -> None:
    one, same = BucketSettings.parse({**ALL, "bucket": "a"}), BucketSettings.parse({**ALL, "bucket": "b"})
    assert one.access() == same.access()
    assert hash(one.access()) == hash(same.access())
    for name, value in (("privateKeyID", "k2"), ("endpoint", "https://x"), ("projectID", "other")):
        assert BucketSettings.parse({**ALL, "bucket": "a", name: value}).access() != one.access()
    assert one.private_key == Secret(KEY)
