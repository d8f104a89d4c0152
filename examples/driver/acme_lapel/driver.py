"""The driver. Everything that is the same for all stores is done by lapel above it."""

import asyncio
import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lapel.errors import EtagMismatchError, StorageError
from lapel.state import DeleteRequest, GetRequest, IfAbsent, IfMatch, SetRequest, StateDriver, StateItem

from . import STATE
from .settings import FolderStateSettings

__all__ = ["FolderState"]

T = TypeVar("T")
ETAG_BYTES = 36


class FolderState(StateDriver[FolderStateSettings]):
    """A file holds the etag and then the value; writing goes to a second file that is renamed into place.

    For one process: nothing but this object's lock makes compare and set one step.
    """

    descriptor = STATE

    async def open(self) -> None:
        """Make the folder."""
        self._turn = asyncio.Lock()
        await self._in_thread(lambda: self.settings.path.mkdir(parents=True, exist_ok=True))

    async def close(self) -> None:
        """Hold nothing, so there is nothing to let go of."""

    async def ping(self) -> None:
        """See that the folder can be read."""
        await self._in_thread(lambda: os.scandir(self.settings.path).close())

    async def get(self, request: GetRequest) -> StateItem | None:
        """Read the key's file."""
        content = await self._in_thread(lambda: _read(self._file(request.key)))
        if content is None:
            return None
        return StateItem(data=content[ETAG_BYTES:], etag=content[:ETAG_BYTES].decode())

    async def set(self, request: SetRequest) -> str | None:
        """Write the key's file if the precondition holds."""

        def write() -> str:
            file = self._file(request.key)
            _check(request.precondition, _read(file))
            etag = str(uuid.uuid4())
            draft = file.with_suffix(".new")
            with draft.open("wb") as stream:
                stream.write(etag.encode() + request.value)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(file)
            return etag

        return await self._one_at_a_time(write)

    async def delete(self, request: DeleteRequest) -> None:
        """Remove the key's file if the precondition holds."""

        def remove() -> None:
            file = self._file(request.key)
            _check(request.precondition, _read(file))
            file.unlink(missing_ok=True)

        await self._one_at_a_time(remove)

    def _file(self, key: str) -> Path:
        return self.settings.path / hashlib.sha256(key.encode()).hexdigest()

    async def _one_at_a_time(self, work: Callable[[], T]) -> T:
        async with self._turn:
            # Shielded, so that a cancelled caller does not give up the turn while the thread still writes.
            running = asyncio.ensure_future(self._in_thread(work))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])
                raise

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as exc:
            raise StorageError(f"the folder {self.settings.path} failed: {exc.strerror}") from exc


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _check(precondition: IfMatch | IfAbsent | None, content: bytes | None) -> None:
    if isinstance(precondition, IfAbsent) and content is not None:
        raise EtagMismatchError("the key exists already")
    if isinstance(precondition, IfMatch) and (content is None or content[:ETAG_BYTES].decode() != precondition.etag):
        raise EtagMismatchError("the key has another etag, or none")
