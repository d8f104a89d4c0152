"""Many objects in one answer, in constant memory."""

from __future__ import annotations

import asyncio
import json
from asyncio import Task
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Final

from google.cloud.storage import Blob

from lapel.errors import NotFoundError, UnavailableError

from .attributes import attributes
from .client import StorageClient
from .download import Base64Text, Download
from .listing import Listing
from .threads import TIMEOUT

__all__ = ["BulkContent"]

AHEAD: Final = 8
"""Objects whose beginning is read while those before them are handed on."""
_TRIES: Final = 3

_Opened = tuple[Blob, Download]


class BulkContent(AsyncIterator[bytes]):
    """Objects of a bucket as a JSON array of `{"name", "data", "attrs"}`, the data in base64.

    Each object is whole and of one generation. One that is deleted between the listing and its turn is left out.
    """

    def __init__(self, client: StorageClient, listing: Listing, *, encode: bool) -> None:
        self._client = client
        self._listing = listing
        self._encode = encode
        self._blobs: deque[Blob] = deque()
        self._ahead: deque[Task[_Opened | None]] = deque()
        self._text = self._write()

    async def begin(self) -> None:
        """Read the first page of the listing, so that what is wrong is known before the answer begins."""
        await self._next_page()

    async def __anext__(self) -> bytes:
        return await anext(self._text)

    async def aclose(self) -> None:
        """Let go of everything that was read ahead. Idempotent."""
        await self._text.aclose()
        tasks = [*self._ahead]
        self._ahead.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            opened = None if task.cancelled() or task.exception() else task.result()
            if opened is not None:
                await opened[1].aclose()

    async def _write(self) -> AsyncGenerator[bytes, None]:
        separator = b"["
        while (task := await self._next()) is not None:
            opened = await task
            self._ahead.popleft()
            if opened is None:
                continue
            blob, download = opened
            try:
                yield separator + f'{{"name":{json.dumps(blob.name)},"data":"'.encode()
                content: AsyncIterator[bytes] = Base64Text(download)
                if self._encode:
                    content = Base64Text(content)
                async for chunk in content:
                    yield chunk
                yield f'","attrs":{json.dumps(attributes(blob))}}}'.encode()
            finally:
                await download.aclose()
            separator = b","
        yield b"[]" if separator == b"[" else b"]"

    async def _next(self) -> Task[_Opened | None] | None:
        """Open objects ahead, and return the one whose turn it is; None at the end."""
        while len(self._ahead) < AHEAD:
            while not self._blobs and not self._listing.complete:
                await self._next_page()
            if not self._blobs:
                break
            self._ahead.append(asyncio.create_task(self._open(self._blobs.popleft()), name="lapel gcs bulkGet"))
        return self._ahead[0] if self._ahead else None

    async def _next_page(self) -> None:
        self._blobs.extend(each for each in await self._listing.page() if isinstance(each, Blob))

    async def _open(self, blob: Blob) -> _Opened | None:
        for _ in range(_TRIES):
            with suppress(NotFoundError):
                query = {"generation": str(blob.generation)}
                return blob, await Download.open(self._client, blob.bucket.name, blob.name, query)
            # It was replaced since it was listed, or deleted. A blob that has a generation stands for that one only.
            blob = blob.bucket.blob(blob.name)
            try:
                await self._client.run(_reload, blob, place=f"object {blob.name!r}", writes=False)
            except NotFoundError:
                return None
        raise UnavailableError(f"object {blob.name!r} is replaced faster than it can be read")


def _reload(blob: Blob) -> None:
    blob.reload(timeout=TIMEOUT, retry=None)
