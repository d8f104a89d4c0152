"""Objects of S3 on their way in and out, in constant memory."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import logging
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from lapel.coalesce import mark_not_sent
from lapel.errors import InvalidArgumentError, LapelError, NotFoundError, OutcomeUnknownError

from .client import AwsClients
from .errors import SDK_ERRORS, NotAllowedError, code_of, refusal

__all__ = ["SMALL", "Bucket", "decode_base64", "encode_base64"]

SMALL = 256 * 1024
"""Up to this many bytes a reply is bytes, beyond it a stream."""
PART = 5 * 1024 * 1024
"""Bytes of a part of a long object, the least that S3 allows. A shorter object is sent as one."""
PARALLEL = 2
"""How many parts are under way at once; they and the one that gathers are all that is held."""
MOST_PARTS = 10_000
CHUNK = 64 * 1024
LISTED = 125
"""How many objects one request lists: the event loop is held while the SDK takes their XML apart."""
MOST_LISTED = 1000
"""How many objects S3 lists at once, whatever it is asked for."""
REFUSED = "403"
"""The code of a refusal without a body."""
ABORT_SECONDS = 5.0
DIRECT = 1024 * 1024
"""From this many bytes on a body goes out in pieces, so that other tasks have their turn."""
_AROUND_BASE64 = b'\r\n\t "'


class Bucket:
    """The objects of one bucket. All calls raise only errors of lapel, and may overlap."""

    def __init__(self, clients: AwsClients, client: Any, name: str, logger: logging.Logger) -> None:
        self._clients = clients
        self._s3 = client
        self._logger = logger
        self.name = name
        self.place = f"S3 bucket {name!r}"

    async def put(self, key: str, data: bytes | AsyncIterable[bytes], headers: dict[str, str]) -> dict[str, Any]:
        """Create or replace an object and return what the service says of it.

        It appears when it is complete. When a stream breaks, nothing appears and what was there before stays.
        """
        if isinstance(data, bytes) and len(data) <= PART:
            return await self._put_whole(key, data, headers)
        parts = _slices(data) if isinstance(data, bytes) else _gathered(data)
        # Parts are nowhere but in this list, so that they go when they have been sent.
        head: list[bytes] = []
        try:
            while len(head) < 2 and (not head or len(head[0]) == PART):
                head.append(await anext(parts, b""))
        except asyncio.CancelledError as exc:
            mark_not_sent(exc)
            raise
        if not head[-1]:
            return await self._put_whole(key, head[0], headers)
        if len(head) == 1:
            return await self._put_whole(key, head.pop(), headers)
        return await self._put_parts(key, head, parts, headers)

    async def get(self, key: str) -> tuple[bytes | AsyncIterator[bytes], dict[str, Any]]:
        """Return an object and what the service says of it. A stream must be read to the end or closed."""
        reply = await self._call(self._s3.get_object(Bucket=self.name, Key=key), writes=False, key=key)
        body = reply["Body"]
        if reply["ContentLength"] > SMALL:
            return self._stream(body), reply
        try:
            return await self._call(body.read(), writes=False, key=key), reply
        finally:
            body.close()

    async def exists(self, key: str) -> bool:
        """Tell whether there is such an object. True also where that is not for this caller to know."""
        try:
            await self._s3.head_object(Bucket=self.name, Key=key)
        except SDK_ERRORS as exc:
            if code_of(exc) == REFUSED:
                return True
            error = self._clients.translate(exc, f"{self.place}, key {key!r}", writes=False)
            if isinstance(error, NotFoundError):
                return False
            raise error from None
        return True

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error of the service."""
        await self._call(self._s3.delete_object(Bucket=self.name, Key=key), writes=True, key=key)

    async def delete_many(self, keys: list[str]) -> dict[str, LapelError]:
        """Remove up to a thousand objects and return the errors by key."""
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        reply = await self._call(self._s3.delete_objects(Bucket=self.name, Delete=objects), writes=True)
        return {
            entry.get("Key", ""): refusal(
                entry.get("Code", ""), entry.get("Message", ""), self.place, service_fault=False, writes=True
            )
            for entry in reply.get("Errors") or ()
        }

    async def page(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return one page of objects, as if a single request had brought it."""
        most = min(arguments["MaxKeys"], MOST_LISTED)
        reply = await self._list(arguments, most)
        whole = {**reply, "MaxKeys": most}
        count = _listed(reply)
        while reply.get("IsTruncated") and count < most and (marker := _last(reply)):
            reply = await self._list({**arguments, "Marker": marker}, most - count)
            count += _listed(reply)
            for name in ("Contents", "CommonPrefixes"):
                if found := reply.get(name):
                    whole[name] = [*whole.get(name, ()), *found]
            whole["IsTruncated"] = reply.get("IsTruncated", False)
            whole.pop("NextMarker", None)
            if "NextMarker" in reply:
                whole["NextMarker"] = reply["NextMarker"]
        return whole

    async def _list(self, arguments: dict[str, Any], most: int) -> dict[str, Any]:
        asked = {**arguments, "MaxKeys": min(most, LISTED)}
        reply: dict[str, Any] = await self._call(self._s3.list_objects(Bucket=self.name, **asked), writes=False)
        reply.pop("ResponseMetadata", None)
        return reply

    async def sign(self, key: str, seconds: int) -> str:
        """Return a URL that anybody can read the object with, for so long."""
        arguments = {"Bucket": self.name, "Key": key}
        call = self._s3.generate_presigned_url("get_object", Params=arguments, ExpiresIn=seconds)
        url: str = await self._call(call, writes=False)
        return url

    async def check(self) -> None:
        """Raise `NotFoundError` when there is no such bucket, `PermissionDeniedError` for credentials that are none.

        That a caller may not look at the bucket is a sign of life: the right to do so is one of its own.
        """
        try:
            await self._s3.head_bucket(Bucket=self.name)
        except SDK_ERRORS as exc:
            if code_of(exc) != REFUSED:
                raise self._clients.translate(exc, self.place, writes=False) from None
            # The reply to HEAD has no body that would say why.
            with suppress(NotAllowedError):
                await self._call(self._s3.list_objects(Bucket=self.name, MaxKeys=1), writes=False)

    def url_of(self, key: str) -> str:
        """Return where an object is, without a signature."""
        host = str(self._s3.meta.endpoint_url)
        path = f"/{quote(key)}"
        scheme, _, rest = host.partition("://")
        style = (self._s3.meta.config.s3 or {}).get("addressing_style")
        in_host = style == "virtual" or (style != "path" and ".amazonaws.com" in host)
        return f"{scheme}://{self.name}.{rest}{path}" if in_host else f"{host}/{self.name}{path}"

    # inside

    async def _put_whole(self, key: str, data: bytes, headers: dict[str, str]) -> dict[str, Any]:
        call = self._s3.put_object(Bucket=self.name, Key=key, Body=_body(data), **headers)
        reply: dict[str, Any] = await self._call(call, writes=True, key=key)
        return reply

    async def _put_parts(
        self, key: str, head: list[bytes], rest: AsyncIterator[bytes], headers: dict[str, str]
    ) -> dict[str, Any]:
        created = await self._call(
            self._s3.create_multipart_upload(Bucket=self.name, Key=key, **headers), writes=False, key=key
        )
        upload = {"Bucket": self.name, "Key": key, "UploadId": created["UploadId"]}
        try:
            parts = await self._send_parts(upload, head, rest)
        except asyncio.CancelledError as exc:
            # Nothing has appeared, and nothing will.
            mark_not_sent(exc)
            await self._abort(upload)
            raise
        except BaseException:
            await self._abort(upload)
            raise
        try:
            done: dict[str, Any] = await self._call(
                self._s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}), writes=True, key=key
            )
        except OutcomeUnknownError:
            raise
        except LapelError:
            await self._abort(upload)
            raise
        return done

    async def _send_parts(
        self, upload: dict[str, Any], head: list[bytes], rest: AsyncIterator[bytes]
    ) -> list[dict[str, Any]]:
        """Send the parts, a few at a time, and return how they are called. Leaves no task behind."""
        running: set[asyncio.Task[dict[str, Any]]] = set()
        made: list[dict[str, Any]] = []

        async def room(most: int) -> None:
            while len(running) > most:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                running.difference_update(done)
                made.extend(task.result() for task in done)

        try:
            for number in range(1, MOST_PARTS + 1):
                await room(PARALLEL - 1)
                if not head:
                    head.append(await anext(rest, b""))
                if not head[0]:
                    break
                running.add(asyncio.ensure_future(self._send_part(upload, number, head.pop(0))))
            else:
                raise InvalidArgumentError(f"the stream is longer than {MOST_PARTS * PART // 2**30} GiB")
            await room(0)
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)
        return sorted(made, key=lambda part: part["PartNumber"])

    async def _send_part(self, upload: dict[str, Any], number: int, data: bytes) -> dict[str, Any]:
        # A part that is not part of an object yet has no effect, so a lost reply is no unknown outcome.
        reply = await self._call(
            self._s3.upload_part(**upload, PartNumber=number, Body=_body(data)), writes=False, key=upload["Key"]
        )
        checksums = {name: reply[name] for name in reply if name.startswith("Checksum") and name != "ChecksumType"}
        return {"PartNumber": number, "ETag": reply["ETag"], **checksums}

    async def _abort(self, upload: dict[str, Any]) -> None:
        """Have the parts removed. Whoever is cancelled meanwhile is so after that."""
        aborting = asyncio.ensure_future(self._try_abort(upload))
        while not aborting.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((aborting,), timeout=ABORT_SECONDS)

    async def _try_abort(self, upload: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(ABORT_SECONDS):
                await self._call(self._s3.abort_multipart_upload(**upload), writes=False)
        except (LapelError, TimeoutError) as exc:
            self._logger.warning(
                "%s: the parts of a broken upload could not be removed; a lifecycle rule of the bucket should: %s",
                self.place,
                exc,
            )

    async def _stream(self, body: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                try:
                    chunk: bytes = await body.read(CHUNK)
                except SDK_ERRORS as exc:
                    raise self._clients.translate(exc, self.place, writes=False) from None
                if not chunk:
                    return
                yield chunk
        finally:
            body.close()

    async def _call(self, reply: Any, *, writes: bool, key: str | None = None) -> Any:
        try:
            return await reply
        except SDK_ERRORS as exc:
            place = self.place if key is None else f"{self.place}, key {key!r}"
            raise self._clients.translate(exc, place, writes=writes) from None


def _listed(reply: dict[str, Any]) -> int:
    return len(reply.get("Contents") or ()) + len(reply.get("CommonPrefixes") or ())


def _last(reply: dict[str, Any]) -> str | None:
    """Return the marker behind which a listing goes on; S3 says it only where there is a delimiter."""
    contents = reply.get("Contents")
    marker: str | None = reply.get("NextMarker") or (contents[-1]["Key"] if contents else None)
    return marker


def _body(data: bytes) -> Any:
    return data if len(data) < DIRECT else io.BytesIO(data)


async def _slices(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PART):
        yield data[start : start + PART]


async def _gathered(source: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Cut a stream into parts of equal size; the last is shorter, perhaps empty."""
    gathered = bytearray()
    async for chunk in source:
        for start in range(0, len(chunk), PART):
            gathered += chunk[start : start + PART]
            if len(gathered) >= PART:
                yield bytes(memoryview(gathered)[:PART])
                del gathered[:PART]
    if gathered:
        yield bytes(gathered)


async def decode_base64(source: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Return what a stream of Base64 text stands for; it may be in quotes, as JSON has it, and broken into lines."""
    left = b""
    async for chunk in source:
        left += chunk.translate(None, _AROUND_BASE64)
        whole = len(left) // 4 * 4
        ready, left = left[:whole], left[whole:]
        yield _decode(ready)
    if left:
        yield _decode(left)


async def encode_base64(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Return a stream as Base64 text."""
    left = b""
    try:
        async for chunk in source:
            left += chunk
            whole = len(left) // 3 * 3
            yield base64.b64encode(left[:whole])
            left = left[whole:]
        if left:
            yield base64.b64encode(left)
    finally:
        await source.aclose()  # type: ignore[attr-defined]  # a generator of this module


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise InvalidArgumentError("the data is not Base64 text, which decodeBase64 says it is") from None
