"""JSON in and out of the APIs: bodies into structs, exact values, times and durations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from .errors import malformed

__all__ = ["decode", "is_json_text", "rfc3339"]

T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], body: bytes, *, message: str = "{}") -> T:
    """Decode a body. Raises the 400 `ERR_MALFORMED_REQUEST`, whose text is `message` with the reason.

    A `msgspec.Raw` inside keeps its bytes as they are, which the decoder does not check for UTF-8; this does.
    """
    try:
        if not body.isascii():
            str(body, "utf-8")
        return decoder.decode(body)
    except RecursionError:
        why = "it is nested too deeply"
    except (msgspec.MsgspecError, ValueError) as exc:
        why = str(exc)
    raise malformed(message.format(why))


def is_json_text(data: bytes) -> bool:
    """Tell whether bytes are one JSON value, so that they may be put into a document as they are."""
    try:
        if not data.isascii():
            str(data, "utf-8")
        _RAW.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def rfc3339(time: datetime) -> str:
    """Return a time as Dapr writes it: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_RAW: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.Raw)
