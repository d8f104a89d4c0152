"""What a configuration takes away is gone, whatever path leads there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.host.support import component, embedded

from lapel.host.access import AccessRules, ApiRule

TAKE = {"resourceId": "r", "lockOwner": "me", "expiryInSeconds": 60}
GIVE = {"resourceId": "r", "lockOwner": "me"}


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    return component(tmp_path, "locks", "lock.in-memory")


def denied(*names: str) -> AccessRules:
    return AccessRules(denied_apis=tuple(ApiRule(name=name, version="v1alpha1") for name in names))


@pytest.mark.parametrize("version", ["v1.0-alpha1", "v1.0-alpha"])
async def test_a_denied_lock_is_taken_on_no_path(locks: Path, version: str) -> None:
    async with embedded(locks, rules=denied("lock")) as host:
        assert (await host.ask("POST", f"/{version}/lock/locks", json=TAKE)).status_code == 404
        assert (await host.ask("POST", f"/{version}/unlock/locks", json=GIVE)).json() == {"status": 1}


async def test_lock_and_unlock_are_denied_apart(locks: Path) -> None:
    async with embedded(locks, rules=denied("unlock")) as host:
        assert (await host.ask("POST", "/v1.0-alpha1/lock/locks", json=TAKE)).json() == {"success": True}
        assert (await host.ask("POST", "/v1.0-alpha1/unlock/locks", json=GIVE)).status_code == 404


async def test_only_unlock_may_be_allowed(locks: Path) -> None:
    rules = AccessRules(allowed_apis=(ApiRule(name="unlock", version="v1alpha1"),))
    async with embedded(locks, rules=rules) as host:
        assert (await host.ask("POST", "/v1.0-alpha1/lock/locks", json=TAKE)).status_code == 404
        assert (await host.ask("POST", "/v1.0-alpha1/unlock/locks", json=GIVE)).json() == {"status": 1}


@pytest.mark.parametrize("version", ["v1.0-alpha1", "v1.0"])
async def test_denied_cryptography_is_served_on_no_path(tmp_path: Path, version: str) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "key").write_bytes(bytes(32))
    file = component(tmp_path, "vault", "crypto.dapr.localstorage", path=str(tmp_path / "keys"))
    headers = {"dapr-key-name": "key", "dapr-key-wrap-algorithm": "A256KW"}
    for rules, status in ((AccessRules(), 200), (denied("crypto"), 404)):
        async with embedded(file, rules=rules) as host:
            answer = await host.ask("PUT", f"/{version}/crypto/vault/encrypt", headers=headers, content=b"text")
            assert answer.status_code == status
