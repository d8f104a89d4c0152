"""Fixtures that hand Vault to tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fixtures import Own, shared
from .vault import VaultBackend, VaultOptions, VaultServer


@pytest.fixture(scope="session")
def vault_server(pytestconfig: pytest.Config) -> VaultBackend:
    """A Vault with engines of both versions and transit, shared by the run: use names of your own."""
    backend = shared(pytestconfig, "vault")
    assert isinstance(backend, VaultBackend)
    return backend


class OwnVault(Own):
    """Makes servers that belong to one test, which may seal, stop, freeze and kill them."""

    def server(self, options: VaultOptions | None = None) -> VaultServer:
        """Start one."""
        return self.add("vault", lambda folder: VaultServer(folder, options))


@pytest.fixture
def own_vault(pytestconfig: pytest.Config) -> Iterator[OwnVault]:
    """Start servers that belong to this test; they end with it."""
    made = OwnVault(pytestconfig)
    yield made
    made.close()
