"""secretstores.gcp.secretmanager."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, TypeVar, cast

import google_crc32c
from google.api_core.exceptions import Forbidden
from google.cloud import secretmanager_v1 as service
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceRestTransport

from lapel.driver import DriverContext
from lapel.errors import LapelError, NotFoundError, OperationFailedError, PermissionDeniedError, UnavailableError
from lapel.secretstores import BulkSecretsRequest, GetSecretRequest, SecretStoreDriver

from . import SECRET_MANAGER
from .component_settings import SecretManagerSettings
from .credentials import load_identity
from .settings import Access
from .threads import TIMEOUT, Threads

__all__ = ["SecretManagerStore"]

THREADS: Final = 16
"""Most blocking calls at once, and secrets read at once by a `bulk_get`; further ones wait their turn."""

_PUBLIC: Final = "https://secretmanager.googleapis.com"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_PAGE: Final = 1000
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,18}|[A-Za-z][A-Za-z0-9_-]{0,62}")
_T = TypeVar("_T")


class SecretManagerStore(SecretStoreDriver[SecretManagerSettings]):
    """`secretstores.gcp.secretmanager`: the secrets of one project, one field each, named like the secret.

    Metadata `version_id` is the number of a version or its alias; the latest one if not given. A version that is
    disabled or destroyed is not found. What was read is checked against its checksum. `bulk_get` answers the names that
    `get` takes, not Dapr's full resource names; secrets that have no readable version, or that the identity may not
    read, are left out, as they are in `get`. Values must be text in UTF-8.

    The client speaks HTTP on a bounded number of threads and repeats nothing; a call that is cancelled has its
    connection cut. (The library's asynchronous client leaves sockets of its event loop open for ever.)
    `unwrap(google.cloud.secretmanager_v1.SecretManagerServiceClient)` gives it, for use on threads of your own.
    """

    descriptor = SECRET_MANAGER

    def __init__(self, settings: SecretManagerSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._access = settings.access()
        self._client: _Client | None = None
        self._project = f"projects/{settings.project_id}"

    async def open(self) -> None:
        access = self._access
        self._client = await self.context.shared.acquire(_key(access), lambda: _Client.open(access), _Client.close)
        await self.ping()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await self.context.shared.release(_key(self._access))

    async def ping(self) -> None:
        await self._opened().run(self._look, place=self._project, writes=False)

    def _look(self) -> None:
        # An identity that may not list is fine; one that is not accepted gets another answer.
        with suppress(Forbidden):
            self._page("", 1)

    def unwrap(self, kind: type[_T]) -> _T:
        if kind is service.SecretManagerServiceClient and self._client is not None:
            return cast("_T", self._client.sdk)
        return super().unwrap(kind)

    async def get(self, request: GetSecretRequest) -> Mapping[str, str]:
        version = request.metadata.get("version_id", "latest")
        if _NAME.fullmatch(request.name) is None:
            raise NotFoundError(
                f"there is no secret {request.name!r}: names in Secret Manager have 1 to 255 letters, digits, - and _"
            )
        if _VERSION.fullmatch(version) is None:
            raise NotFoundError(
                f"secret {request.name!r} has no version {version!r}: versions are numbers, aliases or 'latest'"
            )
        return {request.name: await self._read(request.name, version)}

    async def bulk_get(self, request: BulkSecretsRequest) -> Mapping[str, Mapping[str, str]]:
        names = await self._names(request.step)
        found: dict[str, Mapping[str, str]] = {}
        waiting = iter(names)

        async def read() -> None:
            for name in waiting:
                # What is left out is what `get` does not answer either.
                with suppress(NotFoundError, PermissionDeniedError):
                    found[name] = {name: await self._read(name, "latest")}
                request.step()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(THREADS, len(names))):
                    group.create_task(read(), name="lapel secret manager bulk_get")
        except* LapelError as failed:
            raise failed.exceptions[0] from None
        return {name: found[name] for name in names if name in found}

    async def _names(self, step: Callable[[], None]) -> list[str]:
        """Return the names of all secrets of the project, following pages, and call `step` for each page."""
        names: list[str] = []
        token: str | None = ""
        while token is not None:
            answer = await self._opened().run(self._page, token, _PAGE, place=self._project, writes=False)
            names += [secret.name.rpartition("/")[2] for secret in answer.secrets]
            token = answer.next_page_token or None
            step()
        return names

    def _page(self, token: str, size: int) -> service.ListSecretsResponse:
        request = service.ListSecretsRequest(parent=self._project, page_size=size, page_token=token)
        pages = self._opened().sdk.list_secrets(request, retry=None, timeout=TIMEOUT[1])
        return next(iter(pages.pages))

    async def _read(self, name: str, version: str) -> str:
        place = f"secret {name!r}, version {version!r}"
        payload = await self._opened().run(self._payload, name, version, place=place, writes=False)
        data = payload.data
        if "data_crc32c" in payload:
            checksum = int.from_bytes(google_crc32c.Checksum(data).digest(), "big")
            if checksum != payload.data_crc32c:
                raise UnavailableError(f"{place}: what arrived is not what is stored (checksum); read it again")
        try:
            return data.decode()
        except UnicodeDecodeError:
            # The error of the codec holds the value.
            raise OperationFailedError(f"{place}: its value is not text in UTF-8") from None

    def _payload(self, name: str, version: str) -> service.SecretPayload:
        request = service.AccessSecretVersionRequest(name=f"{self._project}/secrets/{name}/versions/{version}")
        answer = self._opened().sdk.access_secret_version(request, retry=None, timeout=TIMEOUT[1])
        return answer.payload

    def _opened(self) -> _Client:
        assert self._client is not None, "the component makes no call before open or after close"
        return self._client


class _Client(Threads):
    """google-cloud-secret-manager off the event loop."""

    sdk: service.SecretManagerServiceClient

    def __init__(self) -> None:
        super().__init__("lapel-secret-manager", THREADS)

    @classmethod
    async def open(cls, access: Access) -> _Client:
        client = cls()
        try:
            await client.run(client._make, access, place="credentials", writes=False)
        except BaseException:
            await client.close()
            raise
        return client

    def _make(self, access: Access) -> None:
        endpoint = access.endpoint or _PUBLIC
        identity = load_identity(access, _SCOPES)
        transport = SecretManagerServiceRestTransport(host=endpoint, credentials=identity.requests)
        # The library takes no session, and its own, with the one it gets tokens with, have neither enough connections
        # nor a way to break them off.
        self.adopt(transport._session, endpoint)
        self.adopt(transport._session._auth_request_session)
        self.sdk = service.SecretManagerServiceClient(transport=transport)


def _key(access: Access) -> tuple[str, Access]:
    return "gcp.secretmanager", access
