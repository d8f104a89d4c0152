"""Every field of a Vault component reaches the client, or is an error by name."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.backends.certificates import make_certificates

from lapel.errors import ConfigurationError, SettingsError
from lapel.secret import Secret
from lapel_contrib.vault.options import AppRole, GivenToken, Kubernetes, TokenFile
from lapel_contrib.vault.session import make_client
from lapel_contrib.vault.settings import VaultConnectionSettings, VaultCryptoSettings, VaultSecretsSettings
from lapel_contrib.vault.tls import make_context

TOKEN = {"vaultToken": "t"}
NO_TOKEN = {"vaultToken": ""}
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

REACHES: list[tuple[dict[str, str], str, object]] = [
    ({}, "address", "https://127.0.0.1:8200"),
    ({"vaultAddr": "http://vault:8200/"}, "address", "http://vault:8200"),
    ({}, "login", GivenToken(Secret("t"))),
    ({**NO_TOKEN, "vaultTokenMountPath": "/run/token"}, "login", TokenFile(Path("/run/token"))),
    ({**NO_TOKEN, "vaultAppRoleID": "r"}, "login", AppRole("approle", Secret("r"), None)),
    (
        {**NO_TOKEN, "vaultAppRoleID": "r", "vaultAppRoleSecretID": "s", "vaultAppRolePath": "/team/approle/"},
        "login",
        AppRole("team/approle", Secret("r"), Secret("s")),
    ),
    ({**NO_TOKEN, "vaultKubernetesRole": "r"}, "login", Kubernetes("kubernetes", "r", SERVICE_ACCOUNT)),
    (
        {
            **NO_TOKEN,
            "vaultKubernetesRole": "r",
            "vaultKubernetesTokenPath": "/run/jwt",
            "vaultKubernetesPath": "k8s-west",
        },
        "login",
        Kubernetes("k8s-west", "r", Path("/run/jwt")),
    ),
    ({}, "namespace", None),
    ({"vaultNamespace": "team-a/app/"}, "namespace", "team-a/app"),
    ({"caPem": "PEM"}, "ca_pem", "PEM"),
    ({"caPath": "/ca"}, "ca_folder", Path("/ca")),
    ({"caCert": "/ca.pem"}, "ca_file", Path("/ca.pem")),
    ({"caPem": "PEM", "caPath": "/ca", "caCert": "/ca.pem"}, "ca_folder", None),
    ({"caPath": "/ca", "caCert": "/ca.pem"}, "ca_file", None),
    ({}, "skip_verify", False),
    ({"skipVerify": "true"}, "skip_verify", True),
    ({"tlsServerName": "vault.internal"}, "server_name", "vault.internal"),
    ({"tlsServerName": "vault.internal", "skipVerify": "true"}, "server_name", None),
    ({}, "timeout", 3.0),
    ({"requestTimeout": "750ms"}, "timeout", 0.75),
    ({}, "pool_size", 4),
    ({"poolSize": "3"}, "pool_size", 3),
]

WRONG: list[tuple[dict[str, str], str, str]] = [
    (NO_TOKEN, "vaultToken", "vaultKubernetesRole"),
    ({"vaultTokenMountPath": "/run/token"}, "vaultTokenMountPath", "together with vaultToken"),
    ({"vaultAppRoleID": "r"}, "vaultAppRoleID", "together with vaultToken"),
    ({"vaultKubernetesRole": "r"}, "vaultKubernetesRole", "together with vaultToken"),
    ({"vaultAppRoleSecretID": "s"}, "vaultAppRoleID", "required"),
    ({"vaultAddr": "vault:8200"}, "vaultAddr", "https://host:8200"),
    ({"vaultAddr": "https://"}, "vaultAddr", "https://host:8200"),
    ({"vaultAddr": "https://vault:x"}, "vaultAddr", "https://host:8200"),
    ({"vaultAddr": "https://me:pw@vault"}, "vaultAddr", "without user"),
    ({"vaultAddr": "http://vault", "caPem": "PEM"}, "caPem", "no effect"),
    ({"vaultAddr": "http://vault", "caPath": "/ca"}, "caPath", "no effect"),
    ({"vaultAddr": "http://vault", "caCert": "/ca.pem"}, "caCert", "no effect"),
    ({"vaultAddr": "http://vault", "tlsServerName": "v"}, "tlsServerName", "no effect"),
    ({"skipVerify": "perhaps"}, "skipVerify", "true"),
    ({"requestTimeout": "0"}, "requestTimeout", "1ms"),
    ({"poolSize": "0"}, "poolSize", "1"),
    ({"enginePath": "a//b"}, "enginePath", "slashes"),
    ({"vaultKVPrefix": "a/../b"}, "vaultKVPrefix", "names"),
    ({"vaultKVVersion": "3"}, "vaultKVVersion", "2"),
    ({"vaultKVUsePrefix": "ture"}, "vaultKVUsePrefix", "true"),
    ({"vaultValueType": "json"}, "vaultValueType", "text"),
]


def parse(**fields: str) -> VaultSecretsSettings:
    return VaultSecretsSettings.parse({**TOKEN, **fields}, component="vault", driver="secretstores.hashicorp.vault")


@pytest.mark.parametrize(("fields", "option", "expected"), REACHES)
def test_a_field_reaches_the_client(fields: dict[str, str], option: str, expected: object) -> None:
    assert getattr(parse(**fields).options(), option) == expected


@pytest.mark.parametrize(("fields", "named", "reason"), WRONG)
def test_what_is_wrong_is_named(fields: dict[str, str], named: str, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(**fields)
    assert named in str(caught.value)
    assert reason in str(caught.value)


def test_no_field_is_left_untested() -> None:
    untested = {info.name for info in VaultConnectionSettings.fields()}
    for given, *_ in REACHES:
        untested -= set(given)
    assert not untested


def test_fields_of_the_stores_have_the_defaults_of_dapr() -> None:
    settings = parse()
    assert (settings.engine, settings.folder, settings.value_type, settings.engine_version) == (
        "secret",
        "dapr",
        "map",
        "2",
    )
    assert parse(vaultKVPrefix="/team/app/").folder == "team/app"
    assert parse(vaultKVPrefix="team", vaultKVUsePrefix="false").folder == ""
    crypto = VaultCryptoSettings.parse({**TOKEN, "vaultTransitPath": "team/transit"})
    assert crypto.engine == "team/transit"
    assert VaultCryptoSettings.parse(TOKEN).engine == "transit"


def test_a_long_request_timeout_lengthens_the_deadline_of_calls() -> None:
    assert parse().call_timeout is None
    assert parse(requestTimeout="20s").call_timeout == 21


def test_what_hvac_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    # None of this may reach a client whose settings say otherwise.
    monkeypatch.setenv("VAULT_TOKEN", "from the environment")
    monkeypatch.setenv("VAULT_ADDR", "http://elsewhere")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    settings = parse(vaultAddr="https://vault:8200", vaultNamespace="team", requestTimeout="1s", poolSize="7")
    client = make_client(settings.options())
    assert client.url == "https://vault:8200"
    assert not client.token
    assert client.adapter.namespace == "team"
    assert client.adapter._kwargs["timeout"] == 1.0
    assert not client.session.trust_env
    for scheme in ("http://", "https://"):
        adapter: Any = client.session.get_adapter(f"{scheme}vault:8200/v1/x")
        assert adapter.max_retries.total == 0, "requests must repeat nothing"
        assert adapter._pool_maxsize == 7
    client.adapter.close()


def test_a_proxy_of_the_environment_is_used_unless_it_is_not_for_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", "inside")
    outside = make_client(parse(vaultAddr="http://outside:8200").options())
    assert outside.session.proxies["http"] == "http://127.0.0.1:3128"
    assert "http" not in make_client(parse(vaultAddr="http://inside:8200").options()).session.proxies


def test_authorities_come_from_text_folder_or_file_and_from_nowhere_else(tmp_path: Path) -> None:
    first, second = (make_certificates(tmp_path / name).client.ca for name in ("one", "two"))
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, ca in enumerate((first, second)):
        (folder / f"{number}.pem").write_text(ca.read_text())

    def trusted(**fields: str) -> int:
        context = make_context(parse(**fields).options())
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        return context.cert_store_stats()["x509_ca"]

    assert trusted(caPem=first.read_text()) == 1
    assert trusted(caCert=str(first)) == 1
    assert trusted(caPath=str(folder)) == 2
    assert trusted() > 2, "those of the system"


@pytest.mark.parametrize(
    ("field", "value"), [("caPem", "not PEM"), ("caCert", "missing.pem"), ("caPath", "missing"), ("caPath", "")]
)
def test_authorities_that_are_none_are_named(tmp_path: Path, field: str, value: str) -> None:
    given = value if field == "caPem" else str(tmp_path / value)
    if not value:
        (tmp_path / "file").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=field) as caught:
        make_context(parse(**{field: given}).options())
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("field", ["caCert", "caPath", "caPem"])
@pytest.mark.parametrize("content", [None, "", " \n"])
def test_authorities_that_are_missing_do_not_let_those_of_the_system_in(
    tmp_path: Path, field: str, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
        (tmp_path / "more.pem").write_text(content)
    options = parse(caPem="PEM").options()
    if field == "caPem":
        options = dataclasses.replace(options, ca_pem=content or "")
    else:
        options = parse(**{field: str(tmp_path if field == "caPath" else tmp_path / "ca.pem")}).options()
    with pytest.raises(ConfigurationError, match=field):
        make_context(options)


def test_skip_verify_accepts_anything() -> None:
    context = make_context(parse(skipVerify="true").options())
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


def test_components_with_the_same_connection_share_whatever_else_differs() -> None:
    assert parse(vaultKVPrefix="a").options() == VaultCryptoSettings.parse(TOKEN).options()
    assert hash(parse().options()) == hash(parse().options())
    assert parse().options() != parse(vaultToken="other").options()
    assert parse().options() != parse(vaultNamespace="other").options()


def test_no_secret_is_shown() -> None:
    given = parse(vaultToken="hunter2")
    logged_in = parse(vaultToken="", vaultAppRoleID="hunter3", vaultAppRoleSecretID="hunter4")
    assert "hunter" not in f"{given!r} {given.options()!r} {logged_in!r} {logged_in.options()!r}"
