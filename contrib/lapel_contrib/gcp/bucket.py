"""bindings.gcp.bucket."""

from __future__ import annotations

import base64
import json
import os
import uuid
from contextlib import suppress
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import google.auth.credentials
from google.api_core.exceptions import Forbidden
from google.cloud import storage
from google.cloud.storage import Blob
from typing_extensions import override

from lapel.bindings import BindingDriver, BindingResponse, InvokeRequest
from lapel.driver import DriverContext
from lapel.errors import (
    ConfigurationError,
    InvalidArgumentError,
    NotFoundError,
    UnsupportedError,
)
from lapel.jsontext import JSON_CONTENT_TYPE
from lapel.policy import Effect

from . import BUCKET, copying
from .arguments import checked_key, decoded, document_of, flag_of, generation_of, key_of, lifetime_of, text_of
from .bulk import BulkContent
from .client import StorageClient
from .component_settings import BucketSettings
from .download import Base64Text, Download
from .listing import FILTERS, JsonPages, Listing
from .settings import Access, checked_endpoint
from .threads import TIMEOUT
from .upload import upload

__all__ = ["BucketBinding"]

_SAFE: Final = frozenset({"get", "list", "sign", "bulkGet"})
_LISTED: Final = 1000
_BINARY: Final = "application/octet-stream"
_T = TypeVar("_T")


class BucketBinding(BindingDriver[BucketSettings]):
    """`bindings.gcp.bucket`: objects of one bucket, named by the request metadata `key` (or `name`, its old spelling).

    `create` stores the data as it is, whole or not at all, replacing what is there; without a key it makes one up and
    never replaces. `get` answers the content, as a stream from 256 KiB on. `copy`, `rename` and `move` never leave less
    than one whole object, see `copying`. With the metadata `ifGenerationMatch` an operation on one object happens only
    if that is its generation, or for 0 only if there is none; `get` and `create` answer it as `generation`. `list` and
    `bulkGet` answer JSON under the names of Go's library, in constant memory. A signed URL needs a private key or an
    identity that may sign; nothing is looked up for it.

    The client is synchronous; it runs on a bounded number of threads, and a call that is cancelled has its connection
    cut, so it ends at once. `unwrap(google.cloud.storage.Client)` gives the client, for use on threads of your own.
    """

    descriptor = BUCKET
    content_operations = frozenset({"create"})

    def __init__(self, settings: BucketSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._access: Access | None = None
        self._client: StorageClient | None = None

    @override
    def effect(self, operation: str) -> Effect:
        return Effect.SAFE if operation in _SAFE else Effect.UNSAFE

    async def open(self) -> None:
        self._access = _access(self.settings)
        self._client = await StorageClient.acquire(self._access, self.context.shared)
        try:
            await self.ping()
        except NotFoundError:
            raise ConfigurationError(
                f"there is no bucket {self.settings.bucket!r}; create it, or correct the field 'bucket'"
            ) from None

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._access is not None:
            await self.context.shared.release(StorageClient.key_of(self._access))

    async def ping(self) -> None:
        await self._opened().run(self._look, place=f"bucket {self.settings.bucket!r}", writes=False)

    def _look(self) -> None:
        found = self._opened().sdk.list_blobs(
            self.settings.bucket, max_results=1, fields="nextPageToken", timeout=TIMEOUT, retry=None
        )
        # An identity that may not list, only write perhaps, is fine; one that is not accepted gets another answer.
        with suppress(Forbidden):
            next(found.pages)

    @override
    def unwrap(self, kind: type[_T]) -> _T:
        if kind is storage.Client and self._client is not None:
            return cast("_T", self._client.sdk)
        return super().unwrap(kind)

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        match request.operation:
            case "create":
                return await self._create(request)
            case "get":
                return await self._get(request)
            case "delete":
                return await self._delete(request)
            case "list":
                return await self._list(request)
            case "bulkGet":
                return await self._bulk_get(request)
            case "sign":
                return await self._sign(request)
            case "rename":
                return await self._rename(request)
            case _:
                return await self._copy_or_move(request)

    async def _create(self, request: InvokeRequest) -> BindingResponse:
        key, generation = key_of(request), generation_of(request)
        if key is None:
            key, generation = str(uuid.uuid4()), 0
        data = b"" if request.data is None else request.data
        if flag_of(request, "decodeBase64", self.settings.decode_base64):
            data = decoded(data)
        written = await upload(
            self._opened(),
            self._blob(key),
            data,
            content_type=request.metadata.get("contentType") or self.settings.content_type or _BINARY,
            generation=generation,
            place=self._place(key),
        )
        url = f"https://storage.googleapis.com/{self.settings.bucket}/{quote(key)}"
        return _json({"objectURL": url}, {"key": key, "generation": written})

    async def _get(self, request: InvokeRequest) -> BindingResponse:
        key = self._required(request)
        encode = flag_of(request, "encodeBase64", self.settings.encode_base64)
        generation = generation_of(request)
        query = {} if generation is None else {"ifGenerationMatch": str(generation)}
        download = await Download.open(self._opened(), self.settings.bucket, key, query)
        metadata = {} if download.generation is None else {"generation": download.generation}
        content_type = "text/plain" if encode else download.content_type
        if download.complete:
            data = base64.b64encode(download.head) if encode else download.head
            return BindingResponse(data, metadata, content_type)
        return BindingResponse(Base64Text(download) if encode else download, metadata, content_type)

    async def _delete(self, request: InvokeRequest) -> BindingResponse:
        key = self._required(request)
        blob, generation = self._blob(key), generation_of(request)
        await self._opened().run(_remove, blob, generation, place=self._place(key), writes=True)
        return BindingResponse()

    async def _list(self, request: InvokeRequest) -> BindingResponse:
        document = await document_of(request, FILTERS)
        pages = await JsonPages.open(Listing(self._opened(), self.settings.bucket, document, most=_LISTED))
        return BindingResponse(pages if pages.whole is None else pages.whole, content_type=JSON_CONTENT_TYPE)

    async def _bulk_get(self, request: InvokeRequest) -> BindingResponse:
        document = await document_of(request, FILTERS)
        encode = flag_of(request, "encodeBase64", self.settings.encode_base64)
        listing = Listing(self._opened(), self.settings.bucket, document, most=None)
        content = BulkContent(self._opened(), listing, encode=encode)
        await content.begin()
        return BindingResponse(content, content_type=JSON_CONTENT_TYPE)

    async def _sign(self, request: InvokeRequest) -> BindingResponse:
        key, lifetime = self._required(request), lifetime_of(request, self.settings.sign_ttl)
        url = await self._opened().run(self._signed, key, lifetime, place=self._place(key), writes=False)
        return _json({"signURL": url})

    def _signed(self, key: str, lifetime: Any) -> str:
        client = self._opened()
        signer = client.identity.signer
        if signer is None:
            raise UnsupportedError("cannot sign without a key; give privateKeyID, privateKey, clientEmail and type")
        options: dict[str, Any] = {"credentials": signer}
        if not isinstance(signer, google.auth.credentials.Signing):
            # The identity of a machine or workload has no key here; the IAM service signs in its name.
            if not signer.valid:
                signer.refresh(client.token_request)
            email = getattr(signer, "service_account_email", None)
            if not email:
                raise UnsupportedError("cannot sign: these credentials are not of a service account")
            options |= {"service_account_email": email, "access_token": signer.token}
        blob = self._blob(key)
        url: str = blob.generate_signed_url(
            version="v4", expiration=lifetime, method="GET", api_access_endpoint=client.endpoint, **options
        )
        return url

    async def _rename(self, request: InvokeRequest) -> BindingResponse:
        key = self._required(request)
        document = await document_of(request, ("newName",))
        new = text_of(document, "newName")
        if not new:
            raise InvalidArgumentError("rename needs 'newName' in the JSON object of its data")
        await self._move(request, key, self.settings.bucket, checked_key(new, "'newName'"))
        return BindingResponse(f"object {key} renamed to {new}".encode(), content_type="text/plain")

    async def _copy_or_move(self, request: InvokeRequest) -> BindingResponse:
        key = self._required(request)
        document = await document_of(request, ("destinationBucket", "destinationKey"))
        bucket, target = text_of(document, "destinationBucket"), text_of(document, "destinationKey")
        if not bucket and not target:
            raise InvalidArgumentError(
                f"{request.operation} needs 'destinationBucket' or 'destinationKey' in the JSON object of its data"
            )
        bucket = bucket or self.settings.bucket
        target = checked_key(target, "'destinationKey'") if target else key
        if request.operation == "move":
            await self._move(request, key, bucket, target)
            return BindingResponse(f"object {key} moved to {bucket}/{target}".encode(), content_type="text/plain")
        client = self._opened()
        generation = generation_of(request)
        await copying.copy(client, self._blob(key), client.sdk.bucket(bucket), target, generation=generation)
        return BindingResponse(f"object {key} copied to {bucket}/{target}".encode(), content_type="text/plain")

    async def _move(self, request: InvokeRequest, key: str, bucket: str, target: str) -> None:
        if (bucket, target) == (self.settings.bucket, key):
            raise InvalidArgumentError(f"{request.operation} would move the object onto itself and so delete it")
        client = self._opened()
        generation = generation_of(request)
        await copying.move(client, self._blob(key), client.sdk.bucket(bucket), target, generation=generation)

    def _required(self, request: InvokeRequest) -> str:
        key = key_of(request)
        if key is None:
            raise InvalidArgumentError(f"{request.operation} needs the request metadata 'key'")
        return key

    def _blob(self, key: str) -> Blob:
        return self._opened().sdk.bucket(self.settings.bucket).blob(key)

    def _place(self, key: str) -> str:
        return f"object {key!r} in bucket {self.settings.bucket!r}"

    def _opened(self) -> StorageClient:
        assert self._client is not None, "the component makes no call before open or after close"
        return self._client


def _access(settings: BucketSettings) -> Access:
    access = settings.access()
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if access.endpoint is not None or not emulator:
        return access
    try:
        endpoint = checked_endpoint(emulator if "://" in emulator else f"http://{emulator}")
    except ValueError as exc:
        raise ConfigurationError(f"STORAGE_EMULATOR_HOST of the environment {exc}") from None
    return Access(access.project, access.key, endpoint)


def _remove(blob: Blob, generation: int | None) -> None:
    blob.delete(if_generation_match=generation, timeout=TIMEOUT, retry=None)


def _json(document: dict[str, str], metadata: dict[str, str] | None = None) -> BindingResponse:
    return BindingResponse(json.dumps(document).encode(), metadata or {}, JSON_CONTENT_TYPE)
