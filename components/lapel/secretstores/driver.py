"""The class that authors of secret store drivers subclass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from ..driver import Driver, SettingsT
from ..errors import UnsupportedError
from .types import BulkSecretsRequest, GetSecretRequest

__all__ = ["SecretStoreDriver"]


class SecretStoreDriver(Driver[SettingsT]):
    """A store of secrets, read-only. No secret goes into an error, a log record or a repr."""

    @abstractmethod
    async def get(self, request: GetSecretRequest) -> Mapping[str, str]:
        """Return the fields of one secret; single-valued stores answer `{name: value}`.

        An empty value is a value. Raises `NotFoundError` when there is no such secret (or version), also for a
        name that is hidden on purpose, and `PermissionDeniedError` when it may not be read.
        """

    async def bulk_get(self, request: BulkSecretsRequest) -> Mapping[str, Mapping[str, str]]:
        """Return all secrets by name, following pages; never silently a part. Only called with `BULK_SECRETS`.

        A store that needs several requests calls `request.step()` after each answer, which starts the deadline anew.
        """
        raise UnsupportedError("is declared but not implemented", driver=self.descriptor.type, operation="bulk_get")
