"""Streams with a deadline for each step of progress, in both directions."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import NoReturn

from ..deadlines import Deadlines
from ..errors import InvalidArgumentError, LapelError

__all__ = ["Progress", "ReplyStream", "RequestStream"]


class Progress:
    """The deadline of one long call, started anew by each `step`. Belongs to the task that makes it."""

    __slots__ = ("_deadlines", "_task", "_ticket")

    def __init__(self, deadlines: Deadlines) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._deadlines = deadlines
        self._ticket = deadlines.enter(task)

    def step(self) -> None:
        """Start the clock anew, unless time has run out already."""
        if not self._ticket.expired:
            self._deadlines.leave(self._ticket)
            self._ticket = self._deadlines.enter(self._task)

    def timed_out(self) -> bool:
        """Tell whether the cancellation just caught was the deadline's alone, and take it back."""
        return self._ticket.timed_out()

    def end(self) -> None:
        """Stop the clock, and take back a cancellation of its own that came too late to matter."""
        if self._ticket.expired:
            self._ticket.timed_out()
        self._deadlines.leave(self._ticket)


class RequestStream(AsyncIterator[bytes]):
    """The caller's stream as a driver reads it: each chunk restarts the deadline, and only bytes pass."""

    __slots__ = ("_progress", "_source", "failure")

    def __init__(self, source: AsyncIterable[bytes], progress: Progress) -> None:
        self._source = aiter(source)
        self._progress = progress
        self.failure: Exception | None = None
        """What the caller's code raised."""

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> bytes:
        self._progress.step()
        try:
            chunk = await anext(self._source)
        except StopAsyncIteration:
            raise
        except Exception as exc:
            self.failure = exc
            raise
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise InvalidArgumentError(f"the stream gave a {type(chunk).__name__}; its chunks must be bytes")
        self._progress.step()
        return bytes(chunk)


class ReplyStream(AsyncIterator[bytes]):
    """The reply of an operation as the application reads it.

    Each chunk has a deadline of its own. Read it to the end, or call `aclose`, or use it as `async with`: until then it
    holds on to a connection or a file. Closing the component closes it. One task reads at a time.
    """

    __slots__ = ("_deadlines", "_fail_with", "_failed", "_forget", "_reading", "_source", "_timed_out")

    def __init__(
        self,
        source: AsyncIterator[bytes],
        deadlines: Deadlines,
        *,
        fail_with: Callable[[Exception], NoReturn],
        timed_out: Callable[[], LapelError],
        forget: Callable[[ReplyStream], None],
    ) -> None:
        self._source: AsyncIterator[bytes] | None = source
        self._deadlines = deadlines
        self._fail_with = fail_with
        self._timed_out = timed_out
        self._forget = forget
        self._failed: LapelError | None = None
        self._reading = False

    def fail(self, error: LapelError) -> None:
        """Make later reads raise `error` instead of ending as if all had been read."""
        self._failed = self._failed or error

    def __aiter__(self) -> ReplyStream:
        return self

    async def __anext__(self) -> bytes:
        source = self._source
        if source is None:
            raise self._failed or StopAsyncIteration
        progress = Progress(self._deadlines)
        self._reading = True
        complete = False
        try:
            chunk = await anext(source)
            complete = True
            return chunk
        except StopAsyncIteration:
            raise
        except CancelledError:
            if not progress.timed_out():
                raise
            self._failed = self._timed_out()
            raise self._failed from None
        except Exception as exc:
            try:
                self._fail_with(exc)
            except LapelError as error:
                self.fail(error)
                raise
        finally:
            progress.end()
            self._reading = False
            # `aclose` from another task leaves the closing to the reader.
            if not complete or self._source is None:
                self._source = source
                await self.aclose()

    async def aclose(self) -> None:
        """Let go of the rest. Idempotent; during a read the stream ends with that read."""
        source, self._source = self._source, None
        self._forget(self)
        close = getattr(source, "aclose", None)
        if close is not None and not self._reading:
            await close()

    async def __aenter__(self) -> ReplyStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
