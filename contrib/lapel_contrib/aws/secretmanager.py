"""secretstores.aws.secretmanager."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from aiobotocore.client import AioBaseClient

from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, NotFoundError
from lapel.secretstores.driver import SecretStoreDriver
from lapel.secretstores.types import BulkSecretsRequest, GetSecretRequest

from . import SECRETS
from .client import AwsClients
from .component_settings import SecretManagerSettings
from .errors import SDK_ERRORS, code_of, is_not_allowed, refusal
from .together import together

__all__ = ["SecretManager"]

T = TypeVar("T")
AT_ONCE = 20
"""Most secrets that one request reads."""
PARALLEL = 4
"""How many such requests of one `bulk_get` are under way at once."""
MISSING = "ResourceNotFoundException"
LONGEST_NAME = 2048
PLACE = "AWS Secrets Manager"


class SecretManager(SecretStoreDriver[SecretManagerSettings]):
    """Reads secrets by name or ARN.

    A secret has one field, called as the secret is, or with `multipleKeyValuesPerSecret` one for each member of its
    JSON object. Binary ones come as Base64. Request metadata of `get`: `version_id` and `version_stage`. `bulk_get`
    leaves out what is deleted while it reads, and fails when one of the others cannot be read.

    `unwrap(aiobotocore.client.AioBaseClient)` returns the client of the service.
    """

    descriptor = SECRETS

    def __init__(self, settings: SecretManagerSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._clients = AwsClients(settings.options(), context.shared)
        self._client: Any = None

    async def open(self) -> None:
        if not self.settings.multiple:
            self.withdraw(Capability.MULTIPLE_KEY_VALUES_PER_SECRET, "multipleKeyValuesPerSecret is not set")
        self._client = await self._clients.client("secretsmanager")
        await self.ping()

    async def close(self) -> None:
        await self._clients.close()

    async def ping(self) -> None:
        # Needs no right to list; neither a missing secret nor a refused one is a failure here.
        try:
            await self._client.describe_secret(SecretId="lapel")
        except SDK_ERRORS as exc:
            if code_of(exc) != MISSING and not is_not_allowed(exc):
                raise self._clients.translate(exc, PLACE, writes=False) from None

    def unwrap(self, kind: type[T]) -> T:
        return self._client if kind is AioBaseClient and self._client is not None else super().unwrap(kind)

    async def get(self, request: GetSecretRequest) -> Mapping[str, str]:
        if not 1 <= len(request.name) <= LONGEST_NAME:
            raise InvalidArgumentError(f"the name of a secret has 1 to {LONGEST_NAME} characters")
        names = {name.lower(): value for name, value in request.metadata.items() if value}
        return await self._read(request.name, names.get("version_id"), names.get("version_stage"))

    async def bulk_get(self, request: BulkSecretsRequest) -> Mapping[str, Mapping[str, str]]:
        names: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = await self._call(self._client.list_secrets(MaxResults=100, **more))
            names += [entry["Name"] for entry in page.get("SecretList") or ()]
            request.step()
            if not (token := page.get("NextToken")):
                break
            more = {"NextToken": token}
        found: dict[str, Mapping[str, str]] = {}
        batches = iter([names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)])

        async def work() -> None:
            for batch in batches:
                found.update(await self._read_batch(batch))
                request.step()

        await together(work, min(PARALLEL, -(-len(names) // AT_ONCE)))
        return {name: found[name] for name in names if name in found}

    async def _read_batch(self, names: list[str]) -> Mapping[str, Mapping[str, str]]:
        """Return up to twenty secrets by name, without those that are gone."""
        try:
            reply = await self._client.batch_get_secret_value(SecretIdList=names)
        except SDK_ERRORS as exc:
            if not is_not_allowed(exc):
                raise self._clients.translate(exc, PLACE, writes=False) from None
            # The right to read several at once is one of its own.
            found: dict[str, Mapping[str, str]] = {}
            for name in names:
                with suppress(NotFoundError):
                    found[name] = await self._read(name)
            return found
        for error in reply.get("Errors") or ():
            if error.get("ErrorCode") != MISSING:
                place = f"{PLACE}, secret {error.get('SecretId')!r}"
                raise refusal(
                    error.get("ErrorCode", ""), error.get("Message", ""), place, service_fault=False, writes=False
                )
        return {entry["Name"]: self._fields(entry) for entry in reply.get("SecretValues") or ()}

    async def _read(self, name: str, version: str | None = None, stage: str | None = None) -> Mapping[str, str]:
        wanted = {"VersionId": version, "VersionStage": stage}
        call = self._client.get_secret_value(SecretId=name, **{key: text for key, text in wanted.items() if text})
        return self._fields(await self._call(call))

    def _fields(self, reply: Mapping[str, Any]) -> Mapping[str, str]:
        text = reply.get("SecretString")
        if text is None:
            text = base64.b64encode(reply.get("SecretBinary") or b"").decode()
        return (_members(text) if self.settings.multiple else None) or {reply["Name"]: text}

    async def _call(self, reply: Any) -> Any:
        try:
            return await reply
        except SDK_ERRORS as exc:
            raise self._clients.translate(exc, PLACE, writes=False) from None


def _members(text: str) -> dict[str, str] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
