"""Operations of the S3 binding on many objects, each of which may fail for itself."""

from __future__ import annotations

import asyncio
import base64
import codecs
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec

from lapel.errors import InvalidArgumentError, LapelError

from .files import read_file, write_file
from .s3_requests import as_json, checked_key, decoded
from .s3_transfer import SMALL, Bucket, decode_base64, encode_base64
from .text import is_text

__all__ = ["bulk_create", "bulk_delete", "bulk_get"]

DELETED_AT_ONCE = 1000
LARGEST_REPLY = 64 * 1024 * 1024
"""Bytes of all objects that `bulkGet` puts into its reply; larger ones want a file, or `get`."""


class _GetItem(msgspec.Struct, rename="camel"):
    key: str
    file_path: str | None = None


class _GetDocument(msgspec.Struct, rename="camel"):
    items: list[_GetItem]
    concurrency: int = 10


class _CreateItem(msgspec.Struct, rename="camel"):
    key: str
    data: Any = None
    file_path: str | None = None
    content_type: str | None = None


class _CreateDocument(msgspec.Struct, rename="camel"):
    items: list[_CreateItem]
    concurrency: int = 10


class _DeleteDocument(msgspec.Struct):
    keys: list[str]


async def bulk_get(bucket: Bucket, data: bytes, *, encode: bool) -> bytes | AsyncIterator[bytes]:
    """Read objects, into files or into the reply: text as it is, anything else, and all with `encode`, as Base64.

    Returns the reply as JSON, as a stream where it is long, because putting it into that form takes its time.
    """
    document = decoded(data, "bulkGet", _GetDocument)
    room = LARGEST_REPLY

    async def get(item: _GetItem) -> dict[str, Any]:
        nonlocal room
        content, found = await bucket.get(checked_key(item.key))
        stream = _once(content) if isinstance(content, bytes) else content
        if item.file_path is not None:
            await write_file(item.file_path, encode_base64(stream) if encode else stream)
            return {}
        size = found["ContentLength"]
        if size > room:
            await stream.aclose()  # type: ignore[attr-defined]  # a generator
            raise InvalidArgumentError(
                f"the reply would be longer than {LARGEST_REPLY} bytes; name a filePath, or use get"
            )
        room -= size
        try:
            whole = _Content(encode=encode)
            async for chunk in stream:
                whole.add(chunk)
            return {"data": whole}
        except BaseException:
            room += size
            raise

    results = await _each(document.items, document.concurrency, get)
    pieces = _pieces(results)
    return b"".join(pieces) if LARGEST_REPLY - room <= SMALL else _in_turns(pieces)


async def bulk_create(bucket: Bucket, data: bytes, *, decode: bool) -> list[dict[str, Any]]:
    """Create objects from files or from the document: a text as it is, any other value as JSON."""
    document = decoded(data, "bulkCreate", _CreateDocument)

    async def create(item: _CreateItem) -> dict[str, Any]:
        if item.file_path is not None and item.data is None:
            content = read_file(item.file_path)
        elif item.data is None:
            raise InvalidArgumentError("the item has neither data nor filePath")
        else:
            content = _once(item.data.encode() if isinstance(item.data, str) else msgspec.json.encode(item.data))
        headers = {} if item.content_type is None else {"ContentType": item.content_type}
        await bucket.put(checked_key(item.key), decode_base64(content) if decode else content, headers)
        return {"location": bucket.url_of(item.key)}

    return await _each(document.items, document.concurrency, create)


async def bulk_delete(bucket: Bucket, data: bytes) -> list[dict[str, Any]]:
    """Delete objects, a thousand in a request; one that is not there counts as deleted."""
    keys = decoded(data, "bulkDelete", _DeleteDocument).keys
    results: list[dict[str, Any]] = []
    for start in range(0, len(keys), DELETED_AT_ONCE):
        batch = keys[start : start + DELETED_AT_ONCE]
        failed: dict[str, LapelError] = {}
        for key in batch:
            try:
                checked_key(key)
                if not is_text(key):
                    raise InvalidArgumentError(
                        "the key has control characters, which bulkDelete cannot say; use delete"
                    )
            except InvalidArgumentError as exc:
                failed[key] = exc
        if sent := [key for key in batch if key not in failed]:
            try:
                failed |= await bucket.delete_many(sent)
            except LapelError as exc:
                failed |= dict.fromkeys(sent, exc)
        results += [{"key": key, **({"error": str(failed[key])} if key in failed else {})} for key in batch]
    return results


async def _each(
    items: Sequence[Any], concurrency: int, work: Callable[[Any], Awaitable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Work on all items, so many at a time, and return their results in order."""
    if concurrency < 1:
        raise InvalidArgumentError("'concurrency' must be at least 1")
    results: list[dict[str, Any]] = [{} for _ in items]
    queue = iter(enumerate(items))

    async def worker() -> None:
        for number, item in queue:
            try:
                results[number] = {"key": item.key, **await work(item)}
            except LapelError as exc:
                results[number] = {"key": item.key, "error": str(exc)}

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(concurrency, len(items))):
            tasks.create_task(worker())
    return results


class _Content:
    """What one object holds, in pieces short enough to be looked at and encoded between two turns of the event loop."""

    def __init__(self, *, encode: bool) -> None:
        self._chunks: list[bytes] = []
        self._text = not encode
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def add(self, chunk: bytes, *, last: bool = False) -> None:
        """Take the next piece, and find out whether it is text."""
        self._chunks.append(chunk)
        if self._text:
            try:
                self._decoder.decode(chunk, last)
            except UnicodeDecodeError:
                self._text = False

    def as_json(self) -> Iterator[bytes]:
        """Return the text as a JSON string."""
        self.add(b"", last=True)
        yield b'"'
        if self._text:
            for text in codecs.iterdecode(self._chunks, "utf-8"):
                yield json.dumps(text)[1:-1].encode()
        else:
            left = b""
            for chunk in self._chunks:
                left += chunk
                whole = len(left) // 3 * 3
                yield base64.b64encode(left[:whole])
                left = left[whole:]
            yield base64.b64encode(left)
        yield b'"'


def _pieces(results: list[dict[str, Any]]) -> Iterator[bytes]:
    """Return the reply of `bulkGet` as JSON."""
    before = b"["
    for result in results:
        content = result.pop("data", None)
        rest = as_json(result)
        yield before
        if content is None:
            yield rest
        else:
            yield rest[:-1] + b',"data":'
            yield from content.as_json()
            yield b"}"
        before = b","
    yield b"]" if results else b"[]"


async def _in_turns(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
