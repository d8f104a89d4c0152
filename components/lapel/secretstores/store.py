"""The secret store that an application holds."""

from __future__ import annotations

from asyncio import current_task
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..component import Component
from ..descriptor import Capability
from ..policy import Effect, Operation
from .driver import SecretStoreDriver
from .types import NO_METADATA, BulkSecretsRequest, GetSecretRequest, SecretValues

__all__ = ["SecretStore"]

GET = Operation("get", Effect.SAFE)
BULK_GET = Operation("bulk_get", Effect.SAFE)


class SecretStore(Component[SecretStoreDriver[Any]]):
    """A store of named secrets, read-only. All calls may overlap."""

    async def get(self, name: str, *, metadata: Mapping[str, str] = NO_METADATA) -> SecretValues:
        """Return the fields of one secret; single-valued stores give one field named like the secret.

        Metadata `version_id` asks for an older version and needs `Capability.SECRET_VERSIONS`. Raises
        `NotFoundError` when there is no such secret, `PermissionDeniedError` when it may not be read.
        """
        if not isinstance(name, str) or not name:
            raise self._invalid("the name of a secret must be text that is not empty", "get")
        if "\0" in name:
            raise self._invalid("the name of a secret holds a NUL character", "get")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise self._invalid("the name of a secret holds a lone surrogate, which is not text", "get") from None
        if "version_id" in metadata:
            self._need(Capability.SECRET_VERSIONS, "get")
        return SecretValues(name, await self._call(GET, self._driver.get, GetSecretRequest(name, metadata)))

    async def bulk_get(self, *, metadata: Mapping[str, str] = NO_METADATA) -> dict[str, SecretValues]:
        """Return every secret that may be read, by name. Needs `Capability.BULK_SECRETS`.

        Where the store answers in pages or batches the deadline holds for each of them.
        """
        self._need(Capability.BULK_SECRETS, "bulk_get")
        found = await self._call(BULK_GET, self._read_all, metadata)
        return {name: SecretValues(name, fields) for name, fields in found.items()}

    async def _read_all(self, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        deadlines, task = self._deadlines, current_task()
        if deadlines is None or task is None:
            # The suite for drivers lets nothing come between, not even a deadline.
            return await self._driver.bulk_get(BulkSecretsRequest(metadata))
        # The driver may step in tasks of its own; the clock is that of this call.
        step = partial(deadlines.restart, deadlines.latest(task))
        return await self._driver.bulk_get(BulkSecretsRequest(metadata, step))
