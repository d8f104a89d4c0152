"""Changes secrets in Vault behind the driver's back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.backends.backend import Facts
from tests.backends.vault import VaultBackend

from lapel.testing.secretstores import SecretWriter

__all__ = ["VaultWriter"]


class VaultWriter(SecretWriter):
    """Writes as an operator does, to the engine that the settings name."""

    def put(self, secrets: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
        versions: dict[str, str] = {}
        for name, fields in secrets.items():
            body = {"data": dict(fields)} if self._versioned else dict(fields)
            reply = self._backend.call("POST", self._path("data", name), body)
            if self._versioned:
                versions[name] = str(reply["data"]["version"])
        return versions

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._backend.call("DELETE", self._path("metadata", name))

    @property
    def _versioned(self) -> bool:
        return bool(self.settings.engine_version == "2")

    @property
    def _backend(self) -> VaultBackend:
        return VaultBackend(Facts("real", "", ""), self.settings.address, self.settings.token.reveal())

    def _path(self, kind: str, name: str) -> str:
        parts = (self.settings.engine, kind if self._versioned else "", self.settings.folder, name)
        return "/".join(part for part in parts if part)
