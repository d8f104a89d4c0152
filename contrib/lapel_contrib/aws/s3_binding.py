"""bindings.aws.s3."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, TypeVar

from aiobotocore.client import AioBaseClient

from lapel.bindings.driver import BindingDriver
from lapel.bindings.types import BindingResponse, InvokeRequest
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, NotFoundError
from lapel.policy import Effect

from . import S3_BINDING
from .client import AwsClients
from .component_settings import S3BindingSettings
from .files import read_file
from .s3_bulk import bulk_create, bulk_delete, bulk_get
from .s3_requests import Listing, RequestMetadata, as_json, decoded
from .s3_transfer import Bucket, decode_base64, encode_base64

__all__ = ["S3Binding"]

T = TypeVar("T")
JSON = "application/json"
NO_DATA = (b"", b"null", b'""')
"""Ways to say in JSON, which is what comes over HTTP, that there is none."""
LONGEST_DOCUMENT = 16 * 1024 * 1024


class S3Binding(BindingDriver[S3BindingSettings]):
    """Keeps objects in a bucket.

    Data goes in and comes out as it is, in constant memory where it is a stream: long ones are sent in parts, and an
    object appears when it is complete or not at all. A reply of more than 256 KiB is a stream. `delete` looks first
    whether the object is there, because S3 says nothing of one that is not; callers who may not look may still delete.

    Operations and their request metadata: `create` (`key`, default a UUID, `Content-Type`, `tags` as `a=b,c=d`,
    `storageClass`, `filePath` instead of data, `presignTTL`, `decodeBase64`) replies with `location`, `versionID` and,
    with `presignTTL`, `presignURL`; `get` (`key`, `encodeBase64`); `delete` (`key`); `list` (data: `prefix`, `marker`,
    `delimiter`, `maxResults`); `presign` (`key`, `presignTTL`); `bulkGet`, `bulkCreate`, `bulkDelete`, whose items fail
    each for itself.

    `unwrap(aiobotocore.client.AioBaseClient)` returns the client of S3.
    """

    descriptor = S3_BINDING
    content_operations = frozenset({"create"})

    def __init__(self, settings: S3BindingSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._clients = AwsClients(settings.options(), context.shared)
        self._client: Any = None
        self._bucket: Bucket | None = None

    def effect(self, operation: str) -> Effect:
        return Effect.SAFE if operation in ("get", "list", "presign", "bulkGet") else Effect.UNSAFE

    async def open(self) -> None:
        self._client = await self._clients.client("s3")
        bucket = Bucket(self._clients, self._client, self.settings.bucket, self.context.logger)
        await bucket.check()
        self._bucket = bucket

    async def close(self) -> None:
        self._bucket = None
        await self._clients.close()

    async def ping(self) -> None:
        await self._opened().check()

    def unwrap(self, kind: type[T]) -> T:
        return self._client if kind is AioBaseClient and self._client is not None else super().unwrap(kind)

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        bucket, metadata = self._opened(), RequestMetadata(request.metadata, self.settings)
        match request.operation:
            case "create":
                return await self._create(bucket, metadata, request.data)
            case "get":
                return await self._get(bucket, metadata)
            case "delete":
                return await self._delete(bucket, metadata)
            case "list":
                listing = decoded(await _document(request.data), "list", Listing)
                return BindingResponse(as_json(await bucket.page(listing.arguments())), content_type=JSON)
            case "presign":
                return await self._presign(bucket, metadata)
            case "bulkGet":
                reply = await bulk_get(bucket, await _document(request.data), encode=metadata.encode_base64)
                return BindingResponse(reply, content_type=JSON)
            case "bulkCreate":
                document = await bulk_create(bucket, await _document(request.data), decode=metadata.decode_base64)
            case _:
                document = await bulk_delete(bucket, await _document(request.data))
        return BindingResponse(as_json(document), content_type=JSON)

    async def _create(
        self, bucket: Bucket, metadata: RequestMetadata, data: bytes | AsyncIterable[bytes] | None
    ) -> BindingResponse:
        key, headers, seconds = metadata.key_or_new(), metadata.headers(), metadata.presign_ttl
        if metadata.file_path is not None and (data is None or data in NO_DATA):
            data = read_file(metadata.file_path)
        if metadata.decode_base64:
            data = decode_base64(_as_stream(data or b""))
        stored = await bucket.put(key, data or b"", headers)
        reply = {"location": bucket.url_of(key), "versionID": stored.get("VersionId")}
        if seconds is not None:
            reply["presignURL"] = await bucket.sign(key, seconds)
        return BindingResponse(as_json(reply), {"key": key}, JSON)

    async def _get(self, bucket: Bucket, metadata: RequestMetadata) -> BindingResponse:
        encode = metadata.encode_base64
        data, found = await bucket.get(metadata.key("get"))
        if encode:
            data = base64.b64encode(data) if isinstance(data, bytes) else encode_base64(data)
        return BindingResponse(data, content_type=found.get("ContentType"))

    async def _delete(self, bucket: Bucket, metadata: RequestMetadata) -> BindingResponse:
        key = metadata.key("delete")
        if not await bucket.exists(key):
            raise NotFoundError(f"{bucket.place}, key {key!r}: there is no such object")
        await bucket.delete(key)
        return BindingResponse()

    async def _presign(self, bucket: Bucket, metadata: RequestMetadata) -> BindingResponse:
        key, seconds = metadata.key("presign"), metadata.presign_ttl
        if seconds is None:
            raise InvalidArgumentError("presign needs the request metadata 'presignTTL', such as 15m")
        return BindingResponse(as_json({"presignURL": await bucket.sign(key, seconds)}), content_type=JSON)

    def _opened(self) -> Bucket:
        assert self._bucket is not None, "the component makes no call before open or after close"
        return self._bucket


async def _as_stream(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
    else:
        async for chunk in data:
            yield chunk


async def _document(data: bytes | AsyncIterable[bytes] | None) -> bytes:
    """Return the JSON text of an operation."""
    collected = bytearray()
    async for chunk in _as_stream(data or b""):
        collected += chunk
        if len(collected) > LONGEST_DOCUMENT:
            raise InvalidArgumentError(f"the JSON text is longer than {LONGEST_DOCUMENT} bytes")
    return bytes(collected)
