"""Local files that requests of the S3 binding name, read and written in threads."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from lapel.errors import InvalidArgumentError

__all__ = ["read_file", "write_file"]

CHUNK = 256 * 1024


async def read_file(path: str) -> AsyncIterator[bytes]:
    """Return the content of a file. Raises `InvalidArgumentError` when it cannot be read."""
    try:
        file = await asyncio.to_thread(Path(path).open, "rb")
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
        finally:
            await asyncio.to_thread(file.close)
    except (OSError, ValueError) as exc:
        raise _unusable(exc, "read") from None


async def write_file(path: str, content: AsyncIterator[bytes]) -> None:
    """Write a file whole or not at all. Raises `InvalidArgumentError` when it cannot be written."""
    target = Path(path)
    try:
        handle, name = await asyncio.to_thread(tempfile.mkstemp, dir=target.parent, prefix=f".{target.name}-")
        file, draft = os.fdopen(handle, "wb"), Path(name)
        try:
            async for chunk in content:
                await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(file.close)
            await asyncio.to_thread(draft.replace, target)
        finally:
            await asyncio.shield(asyncio.to_thread(_clear, file, draft))
    except (OSError, ValueError) as exc:
        raise _unusable(exc, "written") from None


def _clear(file: BinaryIO, draft: Path) -> None:
    file.close()
    draft.unlink(missing_ok=True)


def _unusable(exc: Exception, what: str) -> InvalidArgumentError:
    reason = exc.strerror if isinstance(exc, OSError) else "that is not a path"
    return InvalidArgumentError(f"the file of 'filePath' cannot be {what}: {reason}")
