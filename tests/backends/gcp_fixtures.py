"""Fixtures that hand an emulator of Google Cloud Storage to tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from .fixtures import Own, shared
from .gcs import GcsBackend, GcsServer


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
