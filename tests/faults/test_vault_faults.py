"""secretstores.hashicorp.vault and crypto.hashicorp.vault when Vault fails, is sealed, frozen or away."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import hvac  # type: ignore[import-untyped]  # it has no annotations
import pytest
from tests.backends.vault import KV2, TRANSIT, VaultBackend, VaultServer
from tests.backends.vault_fixtures import OwnVault
from tests.faults.vault_front import VaultFront

from lapel.component import HealthState
from lapel.crypto import CryptoProvider
from lapel.driver import DriverContext
from lapel.errors import (
    DeadlineExceededError,
    LapelError,
    OperationFailedError,
    PermissionDeniedError,
    ThrottledError,
    UnavailableError,
)
from lapel.secretstores import SecretStore
from lapel.testing import FaultProxy
from lapel.testing.lifecycle import wait_until
from lapel_contrib.vault.crypto import VaultCrypto
from lapel_contrib.vault.secretstore import VaultSecretStore
from lapel_contrib.vault.settings import VaultCryptoSettings, VaultSecretsSettings

READ = f'path "{KV2}/data/dapr/*" {{ capabilities = ["read"] }}'
VALUE = "canary-6b1e7c"


def store_on(properties: dict[str, str], **fields: str) -> SecretStore:
    settings = VaultSecretsSettings.parse({**properties, **fields}, component="faults")
    return SecretStore(VaultSecretStore(settings, DriverContext(component="faults")))


def crypto_on(properties: dict[str, str], **fields: str) -> CryptoProvider:
    settings = VaultCryptoSettings.parse({**properties, **fields}, component="faults")
    return CryptoProvider(VaultCrypto(settings, DriverContext(component="faults")))


def put(backend: VaultBackend, name: str, value: str = VALUE) -> None:
    backend.call("POST", f"{KV2}/data/dapr/{name}", {"data": {"value": value}})


@pytest.fixture
def secret(vault_server: VaultBackend) -> str:
    name = f"s-{uuid.uuid4().hex[:12]}"
    put(vault_server, name)
    return name


@pytest.fixture
def front(vault_server: VaultBackend) -> Iterator[VaultFront]:
    with VaultFront(vault_server) as front:
        yield front


@pytest.fixture
async def proxy(vault_server: VaultBackend) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(vault_server.host, vault_server.port) as proxy:
        yield proxy


def through(proxy: FaultProxy, backend: VaultBackend) -> dict[str, str]:
    return {**backend.properties, "vaultAddr": f"http://{proxy.host}:{proxy.port}"}


async def works(store: SecretStore, name: str) -> None:
    async def reads() -> bool:
        try:
            return (await store.get(name)).value == VALUE
        except LapelError:
            return False

    await wait_until(reads, lambda: "the secret is not read again")


# throttling and failures of the service


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 412])
async def test_a_failure_that_passes_is_repeated_within_the_deadline(
    front: VaultFront, secret: str, status: int
) -> None:
    async with store_on(front.properties) as store:
        front.fail(status, times=2, path=secret)
        assert (await store.get(secret)).value == VALUE
        assert front.count(secret) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, ThrottledError), (500, UnavailableError), (502, UnavailableError), (503, UnavailableError)],
)
async def test_a_failure_that_stays_is_told_after_three_tries(
    front: VaultFront, secret: str, status: int, error: type[LapelError]
) -> None:
    async with store_on(front.properties) as store:
        front.fail(status, times=3, path=secret)
        with pytest.raises(error) as caught:
            await store.get(secret)
        assert type(caught.value) is error
        assert front.count(secret) == 3
        assert (await store.get(secret)).value == VALUE


async def test_a_refusal_is_not_repeated(front: VaultFront, secret: str) -> None:
    async with store_on(front.properties) as store:
        for status, error in ((403, PermissionDeniedError), (418, OperationFailedError)):
            front.fail(status, times=1, path=secret)
            before = front.count(secret)
            with pytest.raises(error):
                await store.get(secret)
            assert front.count(secret) == before + 1


async def test_signing_and_encrypting_pass_over_failures_too(front: VaultFront, vault_server: VaultBackend) -> None:
    name = f"k-{uuid.uuid4().hex[:12]}"
    vault_server.call("POST", f"{TRANSIT}/keys/{name}", {"type": "aes256-gcm96"})
    common: dict[str, Any] = {"algorithm": "A256GCM", "key_name": name}
    async with crypto_on(front.properties) as provider:
        front.fail(429, times=1, path=f"keys/{name}")
        front.fail(503, times=1, path=f"encrypt/{name}")
        sealed = await provider.subtle.encrypt(b"text", **common)
        front.fail(500, times=1, path=f"decrypt/{name}")
        opened = await provider.subtle.decrypt(sealed.data, nonce=sealed.nonce, tag=sealed.tag, **common)
        assert opened == b"text"
        front.fail(500, times=3, path=f"decrypt/{name}")
        with pytest.raises(UnavailableError):
            await provider.subtle.decrypt(sealed.data, nonce=sealed.nonce, tag=sealed.tag, **common)


async def test_a_rate_limit_of_the_server_itself_is_throttling(own_vault: OwnVault) -> None:
    server = own_vault.server()
    put(server, "db")
    server.call("POST", "sys/quotas/rate-limit/all", {"path": KV2, "rate": 2, "interval": "1s"})
    async with store_on(server.properties) as store:
        found = await asyncio.gather(*(store.get("db", metadata={"version_id": "1"}) for _ in range(3)))
        assert len(found) == 3, "one request for all"
        done = await asyncio.gather(
            *(store.get("db", metadata={"version_id": f"{number:02}"}) for number in range(1, 30)),
            return_exceptions=True,
        )
        assert any(isinstance(one, ThrottledError) for one in done)
        await works(store, "db")


# tokens


async def test_a_token_that_is_revoked_in_the_middle_is_replaced(vault_server: VaultBackend, secret: str) -> None:
    from tests.conformance.test_vault_logins import new_role

    async with store_on(vault_server.properties, **new_role(vault_server)) as store:
        for _ in range(5):
            vault_server.revoke(store.unwrap(hvac.Client).token)
            found = await asyncio.gather(*(store.get(secret) for _ in range(20)))
            assert {one.value for one in found} == {VALUE}


async def test_a_given_token_that_is_revoked_is_told_and_not_used_in_a_loop(
    front: VaultFront, vault_server: VaultBackend, secret: str
) -> None:
    token = vault_server.new_token(policy=READ)
    async with store_on(front.properties, vaultToken=token) as store:
        assert (await store.get(secret)).value == VALUE
        vault_server.revoke(token)
        before = len(front.asked)
        with pytest.raises(PermissionDeniedError, match="revoked"):
            await store.get(secret)
        assert len(front.asked) == before + 1


# the server


async def test_a_sealed_server_is_unavailable_and_serves_again_when_unsealed(own_vault: OwnVault) -> None:
    server = own_vault.server()
    put(server, "db")
    async with store_on(server.properties) as store:
        assert (await store.get("db")).value == VALUE
        await asyncio.to_thread(server.seal)
        with pytest.raises(UnavailableError, match="sealed"):
            await store.get("db")
        health = await store.health()
        assert health.state is HealthState.RECONNECTING
        assert "sealed" in str(health.reason)
        with pytest.raises(UnavailableError, match="sealed"):
            await store_on(server.properties).open()
        await asyncio.to_thread(server.unseal)
        assert (await store.get("db")).value == VALUE
        assert (await store.health()).ok


async def test_a_server_that_restarts_serves_again(own_vault: OwnVault) -> None:
    server = own_vault.server()
    put(server, "db")
    async with store_on(server.properties) as store:
        assert (await store.get("db")).value == VALUE
        await asyncio.to_thread(server.stop)
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await store.get("db")
        await asyncio.to_thread(server.start)
        await works(store, "db")


async def test_a_frozen_server_holds_nobody_longer_than_the_deadline_and_serves_again(own_vault: OwnVault) -> None:
    server = own_vault.server()
    put(server, "db")
    async with store_on(server.properties, requestTimeout="500ms", poolSize="2") as store:
        assert (await store.get("db")).value == VALUE
        await asyncio.to_thread(server.freeze)
        begun = time.monotonic()
        names = ["db", *(f"other-{number}" for number in range(10))]
        done = await asyncio.gather(*(store.get(name) for name in names), return_exceptions=True)
        assert all(isinstance(one, UnavailableError | DeadlineExceededError) for one in done), done
        assert time.monotonic() - begun < 8
        await asyncio.to_thread(server.thaw)
        await works(store, "db")


async def test_closing_while_the_server_is_frozen_is_bounded(own_vault: OwnVault) -> None:
    from tests.conformance.test_vault_logins import new_role

    server: VaultServer = own_vault.server()
    put(server, "db")
    store = await store_on(server.properties, **new_role(server)).open()
    await asyncio.to_thread(server.freeze)
    readers = [asyncio.create_task(store.get(f"s{number}")) for number in range(5)]
    await asyncio.sleep(0)
    begun = time.monotonic()
    await store.aclose()
    assert time.monotonic() - begun < 11
    assert all(isinstance(one, LapelError) for one in await asyncio.gather(*readers, return_exceptions=True))


# the network


async def test_a_request_that_is_cut_is_repeated(proxy: FaultProxy, vault_server: VaultBackend, secret: str) -> None:
    async with store_on(through(proxy, vault_server)) as store:
        for trap in (proxy.cut_request(secret.encode()), proxy.drop_reply(secret.encode())):
            assert (await store.get(secret)).value == VALUE
            assert trap.hit
        proxy.cut()
        assert (await store.get(secret)).value == VALUE


async def test_nobody_there_is_told_and_healed(proxy: FaultProxy, vault_server: VaultBackend, secret: str) -> None:
    async with store_on(through(proxy, vault_server)) as store:
        assert (await store.get(secret)).value == VALUE
        proxy.refuse()
        proxy.cut()
        with pytest.raises(UnavailableError):
            await store.get(secret)
        assert not (await store.health()).ok
        proxy.heal()
        assert (await store.get(secret)).value == VALUE
        assert (await store.health()).ok


async def test_a_silent_network_ends_every_call(proxy: FaultProxy, vault_server: VaultBackend, secret: str) -> None:
    async with store_on(through(proxy, vault_server), requestTimeout="300ms") as store:
        assert (await store.get(secret)).value == VALUE
        proxy.black_hole()
        with pytest.raises(UnavailableError, match=r"no answer within 0\.3 s"):
            await store.get(secret)
        proxy.heal()
        proxy.cut()
        await works(store, secret)


async def test_an_open_that_fails_leaves_nothing_and_may_be_tried_again(
    proxy: FaultProxy, vault_server: VaultBackend, secret: str
) -> None:
    proxy.refuse()
    with pytest.raises(UnavailableError):
        await store_on(through(proxy, vault_server)).open()
    proxy.heal()
    async with store_on(through(proxy, vault_server)) as store:
        assert (await store.get(secret)).value == VALUE


# secrecy


async def test_no_secret_is_in_what_a_failure_shows(
    front: VaultFront, vault_server: VaultBackend, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = vault_server.new_token(policy=READ)
    echo = f'{{"errors":["{VALUE}"],"data":{{"data":{{"value":"{VALUE}"}}}}}}'.encode()
    shown: list[str] = []
    with caplog.at_level(logging.DEBUG):
        async with store_on(front.properties, vaultToken=token) as store:
            assert (await store.get(secret)).value == VALUE
            for status, tries in ((200, 1), (400, 1), (403, 1), (404, 1), (409, 1), (429, 3), (500, 3), (503, 3)):
                # With 200 it is JSON that breaks off after the secret.
                front.fail(status, times=tries, path=secret, body=echo[:-1] if status == 200 else echo)
                with pytest.raises(LapelError) as caught:
                    await store.get(secret)
                shown += traceback.format_exception(caught.value)
            vault_server.revoke(token)
            with pytest.raises(PermissionDeniedError) as refused:
                await store.get(secret)
            shown += [*traceback.format_exception(refused.value), repr(store), repr(await store.health())]
    shown += [record.getMessage() + str(record.exc_text) for record in caplog.records]
    assert not [text for text in shown if token in text or VALUE in text]
