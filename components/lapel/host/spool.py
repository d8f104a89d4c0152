"""Let a response run ahead of a client that does not read it yet.

Many clients send all of their request before they read a byte of the answer. A stream that is transformed on the fly
would then stand still: the answer waits to be read, the request to be written. Here the request is always read; what
the client does not take waits in memory and, past a bound, in a temporary file.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import IO

__all__ = ["spooled"]

MEMORY = 1024 * 1024
"""Bytes that wait in memory."""
BLOCK = 256 * 1024
"""Bytes read from the file at once."""


async def spooled(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield `chunks` in order, reading them as fast as they come. Its error is raised where it happened.

    Closing this generator ends the reading; memory is bounded, the file is gone with its last reader.
    """
    spool = _Spool()
    filling = asyncio.create_task(spool.fill(chunks), name="lapel spool")
    try:
        while (block := await spool.take()) is not None:
            yield block
        await filling
    finally:
        filling.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await filling
        await spool.close()


class _Spool:
    def __init__(self) -> None:
        self._memory: deque[bytes] = deque()
        self._size = 0
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        # Where the next bytes go in the file, and where those that wait begin.
        self._written = self._read = 0
        self._ended = False
        self._changed = asyncio.Event()

    async def fill(self, chunks: AsyncGenerator[bytes, None]) -> None:
        """Take every chunk. Once one went to the file, all do until it is read to its end, to keep the order."""
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if self._written == self._read and self._size < MEMORY:
                        self._memory.append(chunk)
                        self._size += len(chunk)
                    else:
                        await self._spill(chunk)
                    self._changed.set()
        finally:
            self._ended = True
            self._changed.set()

    async def take(self) -> bytes | None:
        """Wait for the next bytes; None after the last."""
        while True:
            if self._memory:
                chunk = self._memory.popleft()
                self._size -= len(chunk)
                return chunk
            if self._read < self._written:
                block = await asyncio.to_thread(self._load, self._read, min(BLOCK, self._written - self._read))
                self._read += len(block)
                return block
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            await asyncio.to_thread(self._file.close)

    async def _spill(self, chunk: bytes) -> None:
        if self._file is None:
            self._file = await asyncio.to_thread(tempfile.TemporaryFile)
        if self._written == self._read:
            self._written = self._read = 0  # all of it was read, so its space is free again
        await asyncio.to_thread(self._store, self._written, chunk)
        self._written += len(chunk)

    def _store(self, at: int, chunk: bytes) -> None:
        assert self._file is not None
        with self._lock:
            self._file.seek(at)
            self._file.write(chunk)

    def _load(self, at: int, size: int) -> bytes:
        assert self._file is not None
        with self._lock:
            self._file.seek(at)
            return self._file.read(size)
