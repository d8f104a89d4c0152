"""What goes between an application, a binding and a `BindingDriver`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping

import msgspec

__all__ = ["BindingEvent", "BindingResponse", "InvokeRequest", "ReadRequest"]

NO_METADATA: Mapping[str, str] = {}


class InvokeRequest(msgspec.Struct, frozen=True):
    """Invoke one operation. `data` is the whole payload or a one-shot stream of it; None is no payload."""

    operation: str
    data: bytes | AsyncIterable[bytes] | None = None
    metadata: Mapping[str, str] = NO_METADATA


class BindingResponse(msgspec.Struct, frozen=True):
    """What an operation, or the handler of an event, answers.

    `data` may be a stream where the driver says so; it must then be read to the end or closed. None is no data.
    """

    data: bytes | AsyncIterator[bytes] | None = None
    metadata: Mapping[str, str] = NO_METADATA
    content_type: str | None = None

    async def read(self) -> bytes:
        """Return all data as bytes, reading a stream to its end; empty when there is none."""
        if self.data is None or isinstance(self.data, bytes):
            return self.data or b""
        return b"".join([chunk async for chunk in self.data])

    async def aclose(self) -> None:
        """Let go of a stream that is not read to its end. Does nothing when there is none; idempotent."""
        close = getattr(self.data, "aclose", None)
        if close is not None:
            await close()


class ReadRequest(msgspec.Struct, frozen=True):
    """Start an input binding. `prefetch` is how many events the dispatcher means to hold at once."""

    prefetch: int
    metadata: Mapping[str, str] = NO_METADATA


class BindingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an input binding. `attempt` counts from 1 where known."""

    data: bytes
    metadata: Mapping[str, str] = NO_METADATA
    content_type: str | None = None
    attempt: int = 1
