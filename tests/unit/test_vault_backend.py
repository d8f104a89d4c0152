"""The Vault of the tests is what it says it is, and can be found where an endpoint is named."""

from __future__ import annotations

import pytest
from tests.backends.ports import free_port
from tests.backends.provision import Unavailable
from tests.backends.vault import KV1, KV2, TRANSIT, VaultBackend, VaultOptions, VaultRefusal, attach
from tests.backends.vault_fixtures import OwnVault


def test_it_has_engines_of_all_kinds_and_tokens_with_few_rights(vault_server: VaultBackend) -> None:
    engines = vault_server.call("GET", "sys/mounts")["data"]
    found = {path: engines[f"{path}/"] for path in (KV1, KV2, TRANSIT)}
    assert {path: engine["type"] for path, engine in found.items()} == {KV1: "kv", KV2: "kv", TRANSIT: "transit"}
    assert [found[path]["options"]["version"] for path in (KV1, KV2)] == ["1", "2"]
    token = vault_server.new_token(policy=f'path "{KV1}/*" {{ capabilities = ["read"] }}')
    with pytest.raises(VaultRefusal) as caught:
        vault_server.call("POST", f"{KV1}/x", {"a": "b"}, token=token)
    assert caught.value.status == 403


def test_one_of_its_own_keeps_its_data_over_a_restart_and_counts_its_requests(own_vault: OwnVault) -> None:
    server = own_vault.server(VaultOptions(tls=True))
    server.call("POST", f"{KV1}/x", {"a": "b"})
    server.seal()
    with pytest.raises(VaultRefusal) as caught:
        server.call("GET", f"{KV1}/x")
    assert caught.value.status == 503
    server.restart()
    assert server.call("GET", f"{KV1}/x")["data"] == {"a": "b"}
    assert server.requests(KV1) == {f"create {KV1}/x": 1, f"read {KV1}/x": 1}
    named = attach(server.url, origin="LAPEL_TEST_VAULT")
    assert named.properties == server.properties
    assert named.facts.version == server.facts.version
    assert not named.ours


def test_an_endpoint_where_nobody_serves_is_missing() -> None:
    with pytest.raises(Unavailable, match="LAPEL_TEST_VAULT"):
        attach(f"http://:token@127.0.0.1:{free_port()}", origin="LAPEL_TEST_VAULT")
