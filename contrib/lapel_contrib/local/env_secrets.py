"""Secrets from environment variables: `secretstores.local.env`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lapel.errors import NotFoundError, OperationFailedError
from lapel.secretstores import BulkSecretsRequest, GetSecretRequest, SecretStoreDriver

from . import ENV_SECRETS
from .settings import EnvSecretsSettings

__all__ = ["EnvSecretStore"]

_WINDOWS = os.name == "nt"


class EnvSecretStore(SecretStoreDriver[EnvSecretsSettings]):
    """One variable is one secret with one field. The environment is looked at anew in every call.

    `APP_API_TOKEN` and names that start with `DAPR_` are hidden, in any case and tested with the prefix in front.
    Names match as the operating system matches them: without regard to case on Windows.
    """

    descriptor = ENV_SECRETS

    async def open(self) -> None:
        if _hidden(self.settings.prefix):
            self.context.logger.warning(
                "the prefix %r hides every secret: names that start with DAPR_ are never handed out",
                self.settings.prefix,
            )

    async def close(self) -> None:
        pass

    async def ping(self) -> None:
        pass

    async def get(self, request: GetSecretRequest) -> Mapping[str, str]:
        variable = self.settings.prefix + request.name
        if _hidden(variable):
            raise NotFoundError(f"environment variable {variable!r} is hidden: it belongs to the runtime")
        value = os.environ.get(variable)
        if value is None:
            raise NotFoundError(f"environment variable {variable!r} is not set")
        if not _is_text(value):
            raise OperationFailedError(f"the value of environment variable {variable!r} is not UTF-8 text")
        return {request.name: value}

    async def bulk_get(self, request: BulkSecretsRequest) -> Mapping[str, Mapping[str, str]]:
        """Return all variables that begin with the prefix and go on; what is not UTF-8 is left out with a warning."""
        prefix = self.settings.prefix.upper() if _WINDOWS else self.settings.prefix
        found: dict[str, Mapping[str, str]] = {}
        for variable, value in os.environ.items():
            name = variable[len(prefix) :]
            if not name or not variable.startswith(prefix) or _hidden(variable):
                continue
            if _is_text(variable) and _is_text(value):
                found[name] = {name: value}
            else:
                self.context.logger.warning("environment variable %r is left out: it is not UTF-8 text", variable)
        return found


def _hidden(variable: str) -> bool:
    folded = variable.upper()
    return folded == "APP_API_TOKEN" or folded.startswith("DAPR_")


def _is_text(text: str) -> bool:
    # The environment is bytes; Python shows what does not decode as lone surrogates.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
