"""The entries of a stream, as Dapr lays them out.

`data` has the bytes of the message and `metadata` a JSON object of texts. `key` and `contentType` are ours, and are
there only when a message has them; a sidecar passes over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lapel.delivery import Delivery
from lapel.errors import InvalidArgumentError
from lapel.pubsub.types import PublishRequest

from .scripts import Argument

__all__ = ["Taken", "decode", "encode"]

_ENVELOPE = "application/cloudevents+json"
"""What is raw without saying so is taken for this, as in streams that a sidecar writes."""
_NO_METADATA: Mapping[str, str] = {}
_texts = msgspec.json.Decoder(dict[str, str])
_anything = msgspec.json.Decoder(dict[str, Any])


class Taken(msgspec.Struct, eq=False, gc=False):
    """What a consumer remembers of a message that it holds: until when, in the loop's time, it is surely its own."""

    id: bytes
    sure_until: float


def encode(request: PublishRequest) -> tuple[list[Argument], int]:
    """Return the fields of an entry and their size. Raises `InvalidArgumentError` for what is not valid Unicode."""
    data = request.data
    fields: list[Argument] = ["data", data]
    size = len(data)
    try:
        if request.metadata:
            metadata = msgspec.json.encode(dict(request.metadata))
            fields += ("metadata", metadata)
            size += len(metadata)
        if request.key is not None:
            fields += ("key", request.key.encode())
        if request.content_type is not None and request.content_type != _ENVELOPE:
            fields += ("contentType", request.content_type.encode())
    except UnicodeEncodeError as exc:
        raise InvalidArgumentError("the metadata, key or content type is not valid Unicode") from exc
    return fields, size


def decode(topic: str, id_: bytes, fields: Sequence[bytes] | None, attempt: int, sure_until: float) -> Delivery:
    """Build a delivery. What another program wrote without `data` has empty data."""
    if fields and len(fields) == 2 and fields[0] == b"data":
        return Delivery(Taken(id_, sure_until), topic, fields[1], _NO_METADATA, None, None, attempt)
    found: dict[bytes, bytes] = {}
    if fields:
        pairs = iter(fields)
        found = dict(zip(pairs, pairs, strict=True))
    metadata, key, content_type = found.get(b"metadata"), found.get(b"key"), found.get(b"contentType")
    return Delivery(
        Taken(id_, sure_until),
        topic,
        found.get(b"data", b""),
        _NO_METADATA if metadata is None or metadata == b"{}" else _metadata(metadata),
        None if content_type is None else content_type.decode(errors="replace"),
        None if key is None else key.decode(errors="replace"),
        attempt,
    )


def _metadata(text: bytes) -> Mapping[str, str]:
    try:
        return _texts.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        return {name: value for name, value in _anything.decode(text).items() if isinstance(value, str)}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _NO_METADATA
