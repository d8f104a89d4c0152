"""Secrets from Vault's key/value engine: `secretstores.hashicorp.vault`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import hvac  # type: ignore[import-untyped]  # it has no annotations
import msgspec

from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, LapelError, NotFoundError, OperationFailedError
from lapel.secretstores import BulkSecretsRequest, GetSecretRequest, SecretStoreDriver

from . import SECRETS
from .client import ClientLease, VaultClient, path_of
from .errors import failed
from .settings import VaultSecretsSettings

__all__ = ["VaultSecretStore"]

_LATEST = "0"
_VERSION = re.compile(r"[0-9]{1,9}")
_NULL = b"null"
Fields = Mapping[str, str]
T = TypeVar("T")


class _Versioned(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(_NULL)


class _VersionTwo(msgspec.Struct):
    data: _Versioned


class _VersionOne(msgspec.Struct):
    data: msgspec.Raw


class _Names(msgspec.Struct):
    keys: list[str]


class _Listing(msgspec.Struct):
    data: _Names


class VaultSecretStore(SecretStoreDriver[VaultSecretsSettings]):
    """Reads secrets at `<enginePath>/<vaultKVPrefix>/<name>`.

    With `vaultValueType: map` the fields come out as they are; one that is no text as JSON, with numbers as they were
    written. With `text` a secret has one field, named like it, with all fields as JSON. Request metadata `version_id`
    asks for an older version, `0` for the latest one. Bulk get reads all names below the prefix, folders included;
    what has no such version, or was deleted meanwhile, is left out, and whatever may not be read fails the whole.

    Callers who want one secret at the same time share one request. `unwrap(hvac.Client)` gives the client, which is
    synchronous: call it in threads.
    """

    descriptor = SECRETS

    def __init__(self, settings: VaultSecretsSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = ClientLease(settings.options(), context.shared, context.logger)
        self._client: VaultClient | None = None
        self._engine = settings.engine.strip("/")
        self._versioned = settings.engine_version == "2"

    @property
    def call_timeout(self) -> float | None:
        return self.settings.call_timeout

    async def open(self) -> None:
        self._client = await self._lease.acquire()
        if self.settings.value_type == "text":
            self.withdraw(
                Capability.MULTIPLE_KEY_VALUES_PER_SECRET, "each secret has one field because vaultValueType is text"
            )
        if not self._versioned:
            self.withdraw(Capability.SECRET_VERSIONS, "an engine of version 1 (vaultKVVersion) keeps no versions")

    async def close(self) -> None:
        self._client = None
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().check()

    def unwrap(self, kind: type[T]) -> T:
        if kind is hvac.Client and self._client is not None:
            found: T = self._client.hvac
            return found
        return super().unwrap(kind)

    async def get(self, request: GetSecretRequest) -> Fields:
        return await self._read(request.name, self._version(request.metadata, request.name))

    async def bulk_get(self, request: BulkSecretsRequest) -> Mapping[str, Fields]:
        version = self._version(request.metadata, None)
        names = await self._names("", request.step)

        async def read(name: str) -> Fields | None:
            try:
                fields = await self._read(name, version)
            except NotFoundError:
                fields = None
            request.step()
            return fields

        found = await asyncio.gather(*(read(name) for name in names), return_exceptions=True)
        secrets: dict[str, Fields] = {}
        for name, fields in zip(names, found, strict=True):
            if isinstance(fields, BaseException):
                raise fields
            if fields is not None:
                secrets[name] = fields
        return secrets

    def _version(self, metadata: Mapping[str, str], name: str | None) -> str:
        version = metadata.get("version_id", _LATEST) or _LATEST
        if not self._versioned and version != _LATEST:
            raise InvalidArgumentError("version_id needs an engine of version 2; this one keeps no versions")
        if not _VERSION.fullmatch(version):
            if name is None:
                raise InvalidArgumentError("version_id must be the number of a version")
            raise NotFoundError(f"secret {name!r} has no version of that id; versions are numbers")
        return version

    async def _read(self, name: str, version: str) -> Fields:
        client = self._opened()
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise InvalidArgumentError(f"the secret {name!r} cannot be: its name has an empty part, or one of dots")
        parts = (self._engine, "data" if self._versioned else "", self.settings.folder, name)
        params = {"version": version} if self._versioned and version != _LATEST else None
        reply = await client.read("GET", path_of(*parts), params)
        if not reply.ok:
            raise self._refused(failed(reply, client.place, f"secret {name!r}"), version)
        if self._versioned:
            raw = self._decoded(reply.content, _VersionTwo, name).data.data
        else:
            raw = self._decoded(reply.content, _VersionOne, name).data
        if bytes(raw) == _NULL:
            raise NotFoundError(f"{client.place}: secret {name!r} was deleted")
        if self.settings.value_type == "text":
            return {name: bytes(raw).decode()}
        return {field: _text(value) for field, value in self._decoded(raw, dict[str, msgspec.Raw], name).items()}

    async def _names(self, folder: str, step: Callable[[], None]) -> list[str]:
        """Return the names in a folder below the prefix, which ends in a slash, and in its folders.

        `step` is called for each of them.
        """
        client = self._opened()
        parts = (self._engine, "metadata" if self._versioned else "", self.settings.folder, folder.rstrip("/"))
        reply = await client.read("LIST", path_of(*parts))
        if reply.status == 404 and not reply.errors:
            return []
        if not reply.ok:
            raise failed(reply, client.place, f"the list of secrets in {folder or self.settings.folder or '/'!r}")
        step()
        keys = self._decoded(reply.content, _Listing, folder).data.keys
        inner = await asyncio.gather(*(self._names(folder + key, step) for key in keys if key.endswith("/")))
        return [folder + key for key in keys if not key.endswith("/")] + [name for names in inner for name in names]

    def _refused(self, error: LapelError, version: str) -> LapelError:
        if isinstance(error, NotFoundError) and version != _LATEST:
            error.message += f" in version {version}"
        return error

    def _decoded(self, content: bytes | msgspec.Raw, kind: type[T], name: str) -> T:
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        # Raised out here because the decoder's error may quote what it read.
        raise OperationFailedError(
            f"{self._opened().place}: {name or 'the list of secrets'!r} is not what an engine of version "
            f"{self.settings.engine_version} answers; check enginePath and vaultKVVersion"
        )

    def _opened(self) -> VaultClient:
        assert self._client is not None, "the component makes no call before open or after close"
        return self._client


def _text(value: msgspec.Raw) -> str:
    """Return a text as it is, and everything else as the JSON that it came as."""
    raw = bytes(value)
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode()
