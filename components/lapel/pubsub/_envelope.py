"""The envelope's layout on the wire, and what is needed to fill it."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime
from enum import Enum, auto
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..jsontext import JSON_CONTENT_TYPE

__all__ = [
    "CLOUD_EVENT_CONTENT_TYPE",
    "EVENT_TYPE",
    "OCTET_STREAM",
    "SPEC_VERSION",
    "Envelope",
    "Placement",
    "Wire",
    "base_type",
    "decode_attributes",
    "decode_wire",
    "encode_attributes",
    "encode_envelope",
    "exact_time",
    "place",
    "placement_of",
    "random_id",
    "second",
]

CLOUD_EVENT_CONTENT_TYPE: Final = "application/cloudevents+json"
"""The content type of an envelope, and of published data that already is one."""

EVENT_TYPE: Final = "com.dapr.event.sent"
"""The `type` of an event whose publisher named none."""

SPEC_VERSION: Final = "1.0"
OCTET_STREAM: Final = "application/octet-stream"


class Placement(Enum):
    """Where data of a content type goes."""

    JSON = auto()
    BASE64 = auto()
    TEXT = auto()
    EVENT = auto()


class Envelope(msgspec.Struct, gc=False):
    """What `wrap` encodes; the order of the fields is the order on the wire."""

    data: str | Raw | UnsetType
    data_base64: bytes | UnsetType
    datacontenttype: str | UnsetType
    expiration: str | UnsetType
    id: str
    pubsubname: str
    source: str
    specversion: str
    subject: str | UnsetType
    time: str | UnsetType
    topic: str
    traceid: str | UnsetType
    traceparent: str | UnsetType
    tracestate: str | UnsetType
    type: str


class Wire(msgspec.Struct, gc=False):
    """What `unwrap` decodes; None is an attribute that is missing or null."""

    data: Raw | UnsetType = UNSET
    data_base64: bytes | None = None
    datacontenttype: str | None = None
    expiration: str | None = None
    id: str | None = None
    pubsubname: str | None = None
    source: str | None = None
    specversion: str | None = None
    subject: str | None = None
    time: str | None = None
    topic: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    type: str | None = None


encode_envelope = msgspec.json.Encoder().encode
encode_attributes = msgspec.json.Encoder(order="sorted").encode
decode_wire = msgspec.json.Decoder(Wire).decode
decode_attributes = msgspec.json.Decoder(dict[str, Raw]).decode
_check_json = msgspec.json.Decoder(Raw).decode

# An own generator: ids must not repeat when a program seeds the global one or forks.
_ids = random.Random()  # noqa: S311 - an id has to be unique, not secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


def place(data: bytes, content_type: str | None) -> tuple[str | Raw | UnsetType, bytes | UnsetType]:
    """Return the values of `data` and `data_base64`, of which exactly one is set."""
    placement = placement_of(content_type)
    if placement is Placement.BASE64:
        return UNSET, data
    try:
        # msgspec does not look at the bytes inside strings that it skips, so UTF-8 is checked apart.
        text = data.decode()
    except UnicodeDecodeError:
        return UNSET, data
    if placement is Placement.JSON:
        try:
            _check_json(data)
        except (ValueError, RecursionError):
            return text, UNSET
        return Raw(data), UNSET
    return text, UNSET


@lru_cache(maxsize=256)
def placement_of(content_type: str | None) -> Placement:
    """Tell where data of a content type goes. A suffix such as `+json` makes nothing JSON."""
    name = base_type(content_type)
    if name == JSON_CONTENT_TYPE:
        return Placement.JSON
    if name in (OCTET_STREAM, "application/cloudevents+protobuf"):
        return Placement.BASE64
    return Placement.EVENT if name == CLOUD_EVENT_CONTENT_TYPE else Placement.TEXT


def base_type(content_type: str | None) -> str:
    """Return the content type in lower case without parameters; empty when there is none."""
    return content_type.partition(";")[0].strip().lower() if content_type else ""


@lru_cache(maxsize=8)
def second(moment: int) -> str:
    """Write seconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact_time(moment: float) -> str:
    """Write seconds since the epoch as RFC 3339 with the fraction, if there is one."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def random_id() -> str:
    """Return a version 4 UUID as text, several times faster than `str(uuid.uuid4())`."""
    digits = f"{_ids.getrandbits(128):032x}"
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
