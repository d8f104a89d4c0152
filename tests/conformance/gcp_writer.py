"""Changes secrets in Secret Manager from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from google.api_core.exceptions import NotFound
from tests.backends.gcp_secrets import PROJECT, SecretManagerBackend, write

from lapel.testing.secretstores.writers import SecretWriter

__all__ = ["SecretManagerWriter"]


class SecretManagerWriter(SecretWriter):
    """Adds versions, and deletes secrets."""

    def put(self, secrets: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
        return {name: write(self.settings.endpoint, name, fields[name].encode()) for name, fields in secrets.items()}

    def remove(self, names: Iterable[str]) -> None:
        client = SecretManagerBackend.at(self.settings.endpoint).client()
        for name in names:
            with contextlib.suppress(NotFound):
                client.delete_secret(name=f"projects/{PROJECT}/secrets/{name}")
        client.transport.close()
