"""secretstores.gcp.secretmanager: versions, states, pages and failures of the service."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from google.cloud import secretmanager_v1 as service
from tests.backends.gcp_secrets import PROJECT, SecretManagerBackend

from lapel.component import ComponentOptions
from lapel.driver import DriverContext
from lapel.errors import (
    LapelError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    ThrottledError,
    UnavailableError,
)
from lapel.policy import RetryPolicy
from lapel.secretstores import BulkSecretsRequest, SecretStore
from lapel_contrib.gcp.component_settings import SecretManagerSettings
from lapel_contrib.gcp.secrets import SecretManagerStore


def store_at(backend: SecretManagerBackend, *, tries: int = 1) -> SecretStore:
    settings = SecretManagerSettings.parse(backend.properties)
    options = ComponentOptions(retries=RetryPolicy(max_tries=tries, initial_delay=0.001))
    return SecretStore(SecretManagerStore(settings, DriverContext(component="secrets")), options=options)


@pytest.fixture
async def store(gcp_secrets: SecretManagerBackend) -> AsyncIterator[SecretStore]:
    async with store_at(gcp_secrets) as store:
        yield store


@pytest.fixture
def name() -> str:
    return f"secret-{uuid.uuid4().hex}"


async def test_versions_are_numbers_or_aliases(
    gcp_secrets: SecretManagerBackend, store: SecretStore, name: str
) -> None:
    for value in ("one", "two", "three"):
        gcp_secrets.put(name, value.encode())
    assert dict(await store.get(name)) == {name: "three"}
    for version, value in (("1", "one"), ("2", "two"), ("3", "three"), ("latest", "three")):
        assert dict(await store.get(name, metadata={"version_id": version})) == {name: value}
    for version in ("4", "0", "-1", "1/../2", "", "no-such-alias", "1:access", "latest?x"):
        with pytest.raises(NotFoundError, match="version"):
            await store.get(name, metadata={"version_id": version})


@pytest.mark.parametrize("wrong", ["a/versions/1", "../x", "a b", "a.b", "ü", "x" * 256, "projects/1/secrets/a"])
async def test_a_name_that_cannot_be_is_not_found(store: SecretStore, wrong: str) -> None:
    with pytest.raises(NotFoundError, match="letters, digits"):
        await store.get(wrong)


async def test_a_version_that_is_disabled_or_destroyed_is_not_found_and_left_out(
    gcp_secrets: SecretManagerBackend, store: SecretStore, name: str
) -> None:
    gcp_secrets.put(name, b"old")
    gcp_secrets.put(name, b"new")
    assert name in await store.bulk_get()
    client = gcp_secrets.client()
    version = f"projects/{PROJECT}/secrets/{name}/versions/2"
    client.disable_secret_version(name=version)
    with pytest.raises(NotFoundError, match="disabled or destroyed"):
        await store.get(name)
    assert dict(await store.get(name, metadata={"version_id": "1"})) == {name: "old"}
    client.destroy_secret_version(name=version)
    with pytest.raises(NotFoundError, match="disabled or destroyed"):
        await store.get(name)
    assert name not in await store.bulk_get()
    client.transport.close()


async def test_a_secret_without_a_version_is_left_out(
    gcp_secrets: SecretManagerBackend, store: SecretStore, name: str
) -> None:
    client = gcp_secrets.client()
    client.create_secret(parent=f"projects/{PROJECT}", secret_id=name, secret=service.Secret())
    client.transport.close()
    assert name not in await store.bulk_get()
    with pytest.raises(NotFoundError):
        await store.get(name)


async def test_a_value_that_is_no_text_is_an_error_that_does_not_show_it(
    gcp_secrets: SecretManagerBackend, store: SecretStore, name: str
) -> None:
    gcp_secrets.put(name, b"canary\xff\xfe")
    with pytest.raises(OperationFailedError, match="UTF-8") as caught:
        await store.get(name)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    client = gcp_secrets.client()
    client.delete_secret(name=f"projects/{PROJECT}/secrets/{name}")
    client.transport.close()


FAILURES: list[tuple[str, type[LapelError]]] = [
    ("401", PermissionDeniedError),
    ("403", PermissionDeniedError),
    ("429", ThrottledError),
    ("500", UnavailableError),
    ("503", UnavailableError),
    ("504", UnavailableError),
]


@pytest.mark.parametrize(("status", "error"), FAILURES)
async def test_a_failure_has_its_class_and_is_repeated_above_the_driver_only(
    gcp_secrets: SecretManagerBackend, store: SecretStore, name: str, status: str, error: type[LapelError]
) -> None:
    gcp_secrets.put(name, b"value", {"fail": status, "times": "1"})
    with pytest.raises(error, match=name):
        await store.get(name)
    assert (await store.get(name)).value == "value"


@pytest.mark.parametrize("status", ["429", "503"])
async def test_reading_is_tried_again(gcp_secrets: SecretManagerBackend, name: str, status: str) -> None:
    gcp_secrets.put(name, b"value", {"fail": status, "times": "2"})
    async with store_at(gcp_secrets, tries=3) as store:
        assert (await store.get(name)).value == "value"


async def test_a_bulk_fails_when_a_secret_fails_and_is_never_a_part(
    gcp_secrets: SecretManagerBackend, store: SecretStore, name: str
) -> None:
    gcp_secrets.put(name, b"value", {"fail": "500", "times": "1"})
    with pytest.raises(UnavailableError, match=name):
        await store.bulk_get()
    assert (await store.bulk_get())[name].value == "value"


async def test_a_bulk_steps_for_the_page_and_each_secret(
    gcp_secrets: SecretManagerBackend, store: SecretStore, name: str
) -> None:
    gcp_secrets.put(name, b"value")
    steps: list[None] = []
    found = await store.driver.bulk_get(BulkSecretsRequest(step=lambda: steps.append(None)))
    assert name in found
    # Those that are left out were asked for too.
    assert len(steps) >= 1 + len(found)


async def test_a_value_that_was_changed_on_the_way_is_an_error(
    gcp_secrets: SecretManagerBackend, store: SecretStore, name: str
) -> None:
    gcp_secrets.put(name, b"canary", {"corrupt": "true"})
    with pytest.raises(UnavailableError, match="checksum") as caught:
        await store.get(name)
    assert "canary" not in str(caught.value)
    client = gcp_secrets.client()
    client.delete_secret(name=f"projects/{PROJECT}/secrets/{name}")
    client.transport.close()


async def test_many_reads_at_once_are_answered(
    gcp_secrets: SecretManagerBackend, store: SecretStore, name: str
) -> None:
    gcp_secrets.put(name, b"value")
    found = await asyncio.gather(*(store.get(name) for _ in range(100)))
    assert all(each.value == "value" for each in found)


async def test_unwrap_gives_the_client(store: SecretStore) -> None:
    assert isinstance(store.unwrap(service.SecretManagerServiceClient), service.SecretManagerServiceClient)
    with pytest.raises(LookupError):
        store.unwrap(int)
