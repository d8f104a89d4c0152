"""Logging in to a real Vault in every way, keeping the token, and trusting its certificate."""

from __future__ import annotations

import asyncio
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import hvac  # type: ignore[import-untyped]  # it has no annotations
import pytest
from tests.backends.certificates import make_certificates
from tests.backends.token_review import ACCOUNT, NAMESPACE, TokenReview
from tests.backends.vault import KV2, VaultBackend, VaultOptions, VaultRefusal
from tests.backends.vault_fixtures import OwnVault

from lapel.driver import DriverContext
from lapel.errors import ConfigurationError, LapelError, PermissionDeniedError, UnavailableError
from lapel.secretstores import SecretStore
from lapel.testing.lifecycle import wait_until
from lapel_contrib.vault.secretstore import VaultSecretStore
from lapel_contrib.vault.settings import VaultSecretsSettings

READ = f'path "{KV2}/data/dapr/*" {{ capabilities = ["read"] }}'


def store_on(backend: VaultBackend, **fields: str) -> SecretStore:
    settings = VaultSecretsSettings.parse({**backend.properties, **fields}, component="vault")
    return SecretStore(VaultSecretStore(settings, DriverContext(component="vault")))


@pytest.fixture
def secret(vault_server: VaultBackend) -> str:
    name = f"s-{uuid.uuid4().hex[:12]}"
    put(vault_server, name, "value")
    return name


def put(backend: VaultBackend, name: str, value: str) -> None:
    backend.call("POST", f"{KV2}/data/dapr/{name}", {"data": {"value": value}})


def mount(backend: VaultBackend, path: str, kind: str) -> None:
    with suppress(VaultRefusal):  # It is mounted already.
        backend.call("POST", f"sys/auth/{path}", {"type": kind})


def reads(backend: VaultBackend) -> str:
    """Make a policy that lets a token read secrets, and return its name."""
    name = f"reads-{uuid.uuid4().hex[:8]}"
    backend.call("PUT", f"sys/policies/acl/{name}", {"policy": READ})
    return name


def new_role(backend: VaultBackend, **options: Any) -> dict[str, str]:
    """Make an AppRole that may read, and return the fields of a component that logs in with it."""
    mount(backend, "approle", "approle")
    role = f"auth/approle/role/r-{uuid.uuid4().hex[:8]}"
    backend.call("POST", role, {"token_policies": [reads(backend)], **options})
    role_id = backend.call("GET", f"{role}/role-id")["data"]["role_id"]
    secret_id = backend.call("POST", f"{role}/secret-id", {})["data"]["secret_id"]
    return {"vaultToken": "", "vaultAppRoleID": role_id, "vaultAppRoleSecretID": secret_id}


async def test_approle(vault_server: VaultBackend, secret: str) -> None:
    fields = new_role(vault_server)
    async with store_on(vault_server, **fields) as store:
        assert await store.get(secret) == {"value": "value"}
        token = store.unwrap(hvac.Client).token
    with pytest.raises(VaultRefusal):
        vault_server.call("GET", "auth/token/lookup-self", token=token)
    fields["vaultAppRoleSecretID"] = "another"
    with pytest.raises(PermissionDeniedError, match="vaultAppRoleSecretID"):
        await store_on(vault_server, **fields).open()


async def test_a_login_at_an_auth_method_that_is_not_there_fails(vault_server: VaultBackend) -> None:
    with pytest.raises(LapelError, match="auth/nowhere/login"):
        await store_on(vault_server, **new_role(vault_server), vaultAppRolePath="nowhere").open()


async def test_kubernetes(vault_server: VaultBackend, secret: str, tmp_path: Path) -> None:
    mount(vault_server, "kubernetes", "kubernetes")
    with TokenReview() as review:
        vault_server.call(
            "POST", "auth/kubernetes/config", {"kubernetes_host": review.address, "disable_local_ca_jwt": True}
        )
        role = {
            "bound_service_account_names": [ACCOUNT],
            "bound_service_account_namespaces": [NAMESPACE],
            "token_policies": [reads(vault_server)],
        }
        vault_server.call("POST", "auth/kubernetes/role/app", role)
        file = tmp_path / "jwt"
        first = review.issue()
        file.write_text(first)
        fields = {"vaultToken": "", "vaultKubernetesRole": "app", "vaultKubernetesTokenPath": str(file)}
        async with store_on(vault_server, **fields) as store:
            assert await store.get(secret) == {"value": "value"}
            # The kubelet replaces the file, and the old token of Vault ends: the next log-in takes the new one.
            file.write_text(review.issue())
            review.forget(first)
            vault_server.revoke(store.unwrap(hvac.Client).token)
            assert await store.get(secret) == {"value": "value"}
        file.write_text(first)
        with pytest.raises(PermissionDeniedError, match="vaultKubernetesRole"):
            await store_on(vault_server, **fields).open()


async def test_a_token_outlives_its_first_lease(vault_server: VaultBackend, secret: str) -> None:
    token = vault_server.new_token(policy=READ, period="2s")
    async with store_on(vault_server, vaultToken=token) as store:
        await asyncio.sleep(3)
        assert await store.get(secret) == {"value": "value"}


async def test_a_login_is_repeated_when_a_token_reaches_its_longest_life(
    vault_server: VaultBackend, secret: str
) -> None:
    fields = new_role(vault_server, token_ttl="1s", token_max_ttl="3s")
    async with store_on(vault_server, **fields) as store:
        first = store.unwrap(hvac.Client).token

        async def replaced() -> bool:
            assert await store.get(secret) == {"value": "value"}
            return bool(store.unwrap(hvac.Client).token != first)

        await wait_until(replaced, lambda: "the token was not replaced")


async def test_a_namespace_is_not_ignored_where_the_server_would(vault_server: VaultBackend) -> None:
    if vault_server.call("GET", "sys/health", token="").get("enterprise") is not False:
        pytest.skip("the server has namespaces")
    with pytest.raises(ConfigurationError, match="community edition"):
        await store_on(vault_server, vaultNamespace="team-a").open()


@pytest.mark.parametrize("kind", ["service", "batch"])
async def test_tokens_of_both_kinds(vault_server: VaultBackend, secret: str, kind: str) -> None:
    fields = new_role(vault_server, token_type=kind, token_ttl="1m")
    async with store_on(vault_server, **fields) as store:
        assert await store.get(secret) == {"value": "value"}


async def test_a_token_that_may_not_look_itself_up_works(vault_server: VaultBackend, secret: str) -> None:
    token = vault_server.new_token(policy=READ, no_default_policy=True)
    async with store_on(vault_server, vaultToken=token) as store:
        assert await store.get(secret) == {"value": "value"}
        with pytest.raises(PermissionDeniedError, match="policy"):
            await store.bulk_get()


async def test_a_certificate_is_trusted_as_the_fields_say(own_vault: OwnVault, tmp_path: Path) -> None:
    server = own_vault.server(VaultOptions(tls=True))
    put(server, "db", "value")
    assert server.ca is not None
    folder = tmp_path / "ca"
    folder.mkdir()
    for number, ca in enumerate((make_certificates(tmp_path / "other").client.ca, server.ca)):
        (folder / f"{number}.pem").write_text(ca.read_text())
    nothing = {"caCert": ""}
    for fields in (
        {},
        {**nothing, "caPem": server.ca.read_text()},
        {**nothing, "caPath": str(folder)},
        {**nothing, "skipVerify": "true"},
        {"tlsServerName": "localhost"},
        {"vaultAddr": server.address.replace("127.0.0.1", "localhost")},
    ):
        async with store_on(server, **fields) as store:
            assert await store.get("db") == {"value": "value"}, fields
    for fields, reason in (
        (nothing, "not trusted"),
        ({"caCert": str(tmp_path / "other" / "ca.crt")}, "not trusted"),
        ({"tlsServerName": "elsewhere"}, "elsewhere"),
    ):
        with pytest.raises(UnavailableError, match=re.escape(reason)):
            await store_on(server, **fields).open()
    with pytest.raises(LapelError):
        await store_on(server, **nothing, vaultAddr=server.address.replace("https", "http")).open()
