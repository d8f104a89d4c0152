"""secretstores.aws.parameterstore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from aiobotocore.client import AioBaseClient

from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, NotFoundError
from lapel.secretstores.driver import SecretStoreDriver
from lapel.secretstores.types import BulkSecretsRequest, GetSecretRequest

from . import PARAMETERS
from .client import AwsClients
from .component_settings import ParameterStoreSettings
from .errors import SDK_ERRORS, is_not_allowed
from .together import together

__all__ = ["ParameterStore"]

T = TypeVar("T")
AT_ONCE = 10
"""Most parameters that one request reads."""
PARALLEL = 4
"""How many such requests of one `bulk_get` are under way at once."""
LISTED = 50
LONGEST_NAME = 2048
PLACE = "AWS Parameter Store"


class ParameterStore(SecretStoreDriver[ParameterStoreSettings]):
    """Reads parameters, decrypted, each as a secret with one field of its name.

    Request metadata of `get`: `version_id`, the number or the label of a version. `bulk_get` reads those whose names
    begin with `prefix`, ten in a request, and leaves out what is deleted while it reads.

    `unwrap(aiobotocore.client.AioBaseClient)` returns the client of Systems Manager.
    """

    descriptor = PARAMETERS

    def __init__(self, settings: ParameterStoreSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._clients = AwsClients(settings.options(), context.shared)
        self._client: Any = None

    async def open(self) -> None:
        self._client = await self._clients.client("ssm")
        await self.ping()

    async def close(self) -> None:
        await self._clients.close()

    async def ping(self) -> None:
        # Needs no right to list; neither a missing parameter nor a refused one is a failure here.
        try:
            await self._client.get_parameters(Names=[f"{self.settings.prefix}lapel"])
        except SDK_ERRORS as exc:
            if not is_not_allowed(exc):
                raise self._clients.translate(exc, PLACE, writes=False) from None

    def unwrap(self, kind: type[T]) -> T:
        return self._client if kind is AioBaseClient and self._client is not None else super().unwrap(kind)

    async def get(self, request: GetSecretRequest) -> Mapping[str, str]:
        name = self.settings.prefix + request.name
        if not 1 <= len(name) <= LONGEST_NAME:
            raise InvalidArgumentError(f"the name of a parameter has 1 to {LONGEST_NAME} characters")
        if ":" in name and not name.startswith("arn:"):
            raise NotFoundError("a name with a colon is none of a parameter; ask for a version with version_id")
        version = next((value for key, value in request.metadata.items() if key.lower() == "version_id"), "")
        wanted = f"{name}:{version}" if version else name
        reply = await self._call(self._client.get_parameter(Name=wanted, WithDecryption=True))
        return {request.name: reply["Parameter"]["Value"]}

    async def bulk_get(self, request: BulkSecretsRequest) -> Mapping[str, Mapping[str, str]]:
        names: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = await self._call(self._client.describe_parameters(MaxResults=LISTED, **self._filter(), **more))
            names += [entry["Name"] for entry in page.get("Parameters") or ()]
            request.step()
            if not (token := page.get("NextToken")):
                break
            more = {"NextToken": token}
        found: dict[str, str] = {}
        batches = iter([names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)])

        async def work() -> None:
            for batch in batches:
                reply = await self._call(self._client.get_parameters(Names=batch, WithDecryption=True))
                found.update({entry["Name"]: entry["Value"] for entry in reply.get("Parameters") or ()})
                request.step()

        await together(work, min(PARALLEL, -(-len(names) // AT_ONCE)))
        prefix = self.settings.prefix
        return {(short := name.removeprefix(prefix)): {short: found[name]} for name in names if name in found}

    def _filter(self) -> dict[str, Any]:
        prefix = self.settings.prefix
        if not prefix:
            return {}
        return {"ParameterFilters": [{"Key": "Name", "Option": "BeginsWith", "Values": [prefix]}]}

    async def _call(self, reply: Any) -> Any:
        try:
            return await reply
        except SDK_ERRORS as exc:
            raise self._clients.translate(exc, PLACE, writes=False) from None
