"""An object written whole or not at all, however long it is and whatever happens on the way."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, Final

from google.cloud.storage import Blob

from lapel.coalesce import mark_not_sent
from lapel.errors import OutcomeUnknownError, UnavailableError

from .client import StorageClient
from .threads import TIMEOUT
from .transport import current_step

__all__ = ["CHUNK_BYTES", "upload"]

CHUNK_BYTES: Final = 2 * 1024 * 1024
"""What is sent in one request; longer content goes in several. Cloud Storage wants a multiple of 256 KiB, and the
library holds up to four copies."""


async def upload(
    client: StorageClient,
    blob: Blob,
    data: bytes | AsyncIterable[bytes],
    *,
    content_type: str,
    generation: int | None,
    place: str,
) -> str:
    """Write an object, which appears when all of it has arrived; return its generation.

    With `generation` only in the place of that one; 0: only if there is none. Raises `EtagMismatchError`,
    `OutcomeUnknownError` when the end was sent and not answered, and others when certainly nothing was stored.
    """
    options: dict[str, Any] = {"content_type": content_type, "timeout": TIMEOUT, "retry": None}
    if generation is not None:
        options["if_generation_match"] = generation
    if isinstance(data, bytes) and len(data) <= CHUNK_BYTES:
        return await client.run(_send, blob, data, options, place=place, writes=True)
    return await _Chunks(client, blob, options, place).send(_pieces(data) if isinstance(data, bytes) else data)


def _send(blob: Blob, data: bytes, options: dict[str, Any]) -> str:
    blob.upload_from_string(data, **options)
    return str(blob.generation)


class _Chunks:
    """One upload in several requests. Nothing is stored before `_commit`."""

    def __init__(self, client: StorageClient, blob: Blob, options: dict[str, Any], place: str) -> None:
        self._client = client
        self._blob = blob
        self._options = options
        self._place = place
        self._writer: Any = None
        self._committing = False

    async def send(self, data: AsyncIterable[bytes]) -> str:
        try:
            pending = bytearray()
            async for chunk in data:
                pending += chunk
                while len(pending) > CHUNK_BYTES:
                    # One byte more than a chunk is there, so this one is never the last.
                    part = bytes(memoryview(pending)[:CHUNK_BYTES])
                    del pending[:CHUNK_BYTES]
                    await self._write(part)
            return await self._commit(bytes(pending))
        except BaseException as exc:
            if isinstance(exc, CancelledError) and not self._committing:
                mark_not_sent(exc)
            if self._writer is not None:
                # The service would forget what has arrived by itself, but only after a week.
                self._client.tidy(self._writer.terminate)
            raise

    async def _write(self, part: bytes) -> None:
        if self._writer is None:
            self._writer = self._blob.open("wb", chunk_size=CHUNK_BYTES, **self._options)
        try:
            await self._client.run(self._writer.write, part, place=self._place, writes=True)
        except OutcomeUnknownError:
            raise UnavailableError(f"{self._place}: the upload broke off on the way; nothing was stored") from None

    async def _commit(self, rest: bytes) -> str:
        self._committing = True
        if self._writer is None:
            return await self._client.run(_send, self._blob, rest, self._options, place=self._place, writes=True)
        return await self._client.run(self._finish, rest, place=self._place, writes=True)

    def _finish(self, rest: bytes) -> str:
        self._writer.write(rest)
        self._writer.close()
        step = current_step()
        assert step is not None
        assert step.answer is not None
        return str(step.answer.json()["generation"])


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(data), CHUNK_BYTES):
        yield bytes(view[start : start + CHUNK_BYTES])
