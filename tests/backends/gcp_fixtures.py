"""Fixtures that hand an emulator of Google Cloud Storage, and a stub of its Secret Manager, to tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from .fixtures import Own, shared
from .gcp_secrets import SecretManagerBackend, SecretManagerServer
from .gcs import GcsBackend, GcsServer
from .gcs_front import GcsFront, front_of


@pytest.fixture(scope="session")
def gcs_server(pytestconfig: pytest.Config) -> GcsBackend:
    """An emulator shared by the run: use buckets of your own."""
    backend = shared(pytestconfig, "gcs")
    assert isinstance(backend, GcsBackend)
    return backend


@pytest.fixture
def gcs_bucket(gcs_server: GcsBackend) -> str:
    """A new bucket in the shared emulator."""
    return gcs_server.make_bucket(f"bucket-{uuid.uuid4().hex[:12]}")


class OwnGcs(Own):
    """Makes emulators that belong to one test, which may stop, freeze and kill them."""

    def server(self) -> GcsServer:
        """Start one."""
        return self.add("gcs", GcsServer)


@pytest.fixture
def own_gcs(pytestconfig: pytest.Config) -> Iterator[OwnGcs]:
    """Start emulators that belong to this test; they end with it."""
    made = OwnGcs(pytestconfig)
    yield made
    made.close()


@pytest.fixture(scope="session")
def gcp_secrets(pytestconfig: pytest.Config) -> SecretManagerBackend:
    """A stub of Secret Manager shared by the run: use names of your own."""
    backend = shared(pytestconfig, "gcp-secrets")
    assert isinstance(backend, SecretManagerBackend)
    return backend


class OwnSecretManager(Own):
    """Makes stubs that belong to one test, which may stop, freeze and kill them."""

    def server(self) -> SecretManagerServer:
        """Start one."""
        return self.add("gcp-secrets", SecretManagerServer)


@pytest.fixture
def own_gcp_secrets(pytestconfig: pytest.Config) -> Iterator[OwnSecretManager]:
    """Start stubs that belong to this test; they end with it."""
    made = OwnSecretManager(pytestconfig)
    yield made
    made.close()


@pytest.fixture
def gcs_front(gcs_server: GcsBackend) -> Iterator[GcsFront]:
    """A server before the shared emulator that sees every request, and has preconditions and the move of one step."""
    with front_of(gcs_server, moves=True) as front:
        yield front
