"""Streams of bytes between synchronous programs and asynchronous components."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from functools import partial
from typing import Any, Self

from .runner import Caller, Runner

__all__ = ["Feed", "Stream"]

FILE_CHUNK = 65_536
_END = object()


class Feed(AsyncIterator[bytes]):
    """A synchronous source as a component reads it. Chunks are made in the thread that waits for the component."""

    def __init__(self, source: Iterable[bytes]) -> None:
        # Lines are a bad measure for binary files; one without line feeds would be read as a whole.
        if isinstance(source, io.BufferedIOBase | io.RawIOBase):
            self._chunks: Iterator[bytes] = iter(partial(source.read, FILE_CHUNK), b"")
        else:
            self._chunks = iter(source)
        self._caller = Caller()

    def caller(self) -> Caller:
        """Return a new caller for `Runner.run`, which makes chunks from now on."""
        self._caller = Caller()
        return self._caller

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> bytes:
        chunk: Any = await self._caller(partial(next, self._chunks, _END))
        if chunk is _END:
            raise StopAsyncIteration
        return chunk  # type: ignore[no-any-return]  # the component checks what came

    def close(self) -> None:
        """Close the source if that is a generator."""
        if isinstance(self._chunks, Generator):
            self._chunks.close()


class Stream(Iterator[bytes]):
    """Pieces of bytes, to be read to the end or closed; a `with` block closes it. For one thread at a time."""

    def __init__(self, inner: AsyncIterator[bytes], runner: Runner, feed: Feed | None = None) -> None:
        self._inner = inner
        self._runner = runner
        self._feed = feed

    def __next__(self) -> bytes:
        feed = self._feed
        try:
            chunk = self._runner.run(_next(self._inner), feed.caller() if feed else None)
        except BaseException:
            self._close_feed()
            raise
        if chunk is _END:
            self._close_feed()
            raise StopIteration
        return chunk  # type: ignore[no-any-return]  # it is no end, so it is a piece

    def close(self) -> None:
        """Let go of the rest, and of a generator that feeds the stream. Idempotent; may follow the component's end."""
        try:
            self._runner.run_closing(_close(self._inner))
        finally:
            self._close_feed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _close_feed(self) -> None:
        if self._feed is not None:
            self._feed.close()


async def _next(stream: AsyncIterator[bytes]) -> Any:
    return await anext(stream, _END)


async def _close(stream: AsyncIterator[bytes]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
