"""Wrap published data into CloudEvents 1.0 and unwrap what a broker delivers.

The envelope is Dapr's, so events go both ways between lapel and a Dapr sidecar. The code is our own because the
envelope is paid for with every message: parsing `data` and writing it again with the standard library takes about ten
times as long as the typed codec here and changes decimals. JSON data passes through as the bytes that were published,
and one typed decode, which leaves `data` alone, reads an envelope.

Byte layout: one JSON object without white space between attributes, keys in alphabetical order, text in UTF-8.

Deliberate differences from a Dapr sidecar, all readable by one:

* JSON data is embedded as published (white space, number spelling, key order); a sidecar rewrites it.
* `<`, `>` and `&` are written as they are, not as escapes; both spellings are the same JSON.
* Text that is not valid UTF-8 goes to `data_base64` and arrives intact; a sidecar puts U+FFFD in its place.
* `time` is always UTC. `expiration` keeps fractions of a second; a sidecar cuts them off and so drops up to a second
  too early.
* JSON that msgspec refuses (a lone surrogate escape, nesting near Python's recursion limit) counts as invalid and
  becomes a string.

Sources: CloudEvents 1.0 core and JSON format; Dapr's publish and subscribe API.
"""

from __future__ import annotations

import time
from binascii import a2b_base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..errors import InvalidArgumentError
from ._envelope import (
    CLOUD_EVENT_CONTENT_TYPE,
    EVENT_TYPE,
    OCTET_STREAM,
    SPEC_VERSION,
    Envelope,
    Placement,
    Wire,
    base_type,
    decode_attributes,
    decode_wire,
    encode_attributes,
    encode_envelope,
    exact_time,
    place,
    placement_of,
    random_id,
    second,
)
from .event import CloudEvent, InvalidEventError, expired
from .request_metadata import raw_payload, ttl_of

__all__ = [
    "BULK_EVENT_TYPE",
    "CLOUD_EVENT_CONTENT_TYPE",
    "DEFAULT_SOURCE",
    "EVENT_TYPE",
    "CloudEvent",
    "InvalidEventError",
    "expired",
    "raw_payload",
    "ttl_of",
    "unwrap",
    "wrap",
]

BULK_EVENT_TYPE: Final = "com.dapr.event.sent.bulk"
"""The `type` of the outer message of a bulk delivery; the events inside keep their own."""

DEFAULT_SOURCE: Final = "Dapr"
"""The `source` of an event whose publisher has no app id."""

_BINARY_PREFIX: Final = "ce_"
_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


def wrap(
    data: bytes,
    *,
    topic: str,
    pubsub_name: str,
    content_type: str | None = None,
    source: str | None = None,
    metadata: Mapping[str, str] = _NO_METADATA,
    traceparent: str = "",
    tracestate: str = "",
    broker_has_ttl: bool = False,
    now: float | None = None,
    new_id: str | None = None,
) -> bytes:
    """Build the envelope of published data, as JSON.

    Valid `application/json` becomes `data` byte for byte; `application/octet-stream`,
    `application/cloudevents+protobuf` and anything that is not UTF-8 becomes `data_base64`; everything else, invalid
    JSON included, becomes a string. None as content type means `text/plain`, None as source `Dapr`. Data of type
    `application/cloudevents+json` is an envelope already: its topic and pubsub name are overwritten, missing
    attributes except `id` are filled, and the rest stays.

    Of `metadata`, in any case, `cloudevent.id`, `.source`, `.type`, `.subject`, `.traceid`, `.traceparent` and
    `.tracestate` override attributes of a new envelope; `ttl` or `ttlInSeconds` add `expiration` unless
    `broker_has_ttl`. `now` is seconds since the epoch, by default the clock; `new_id` by default a random UUID.

    Raises `InvalidArgumentError` for a time to live that cannot be read or an attribute that is not valid Unicode,
    `InvalidEventError` when the data claims to be an envelope and is not a JSON object.
    """
    clock = time.time() if now is None else now
    expiration: str | UnsetType = UNSET
    overrides: Mapping[str, str] = _NO_METADATA
    if metadata:
        ttl = ttl_of(metadata)
        if ttl is not None and not broker_has_ttl:
            expiration = exact_time(clock + ttl)
        overrides = {name.lower(): value for name, value in metadata.items()}
    if placement_of(content_type) is Placement.EVENT:
        fills = {
            "source": DEFAULT_SOURCE,
            "specversion": SPEC_VERSION,
            "time": second(int(clock)),
            "traceid": traceparent,
            "traceparent": traceparent,
            "tracestate": tracestate,
            "type": EVENT_TYPE,
        }
        return _pass_through(data, topic, pubsub_name, fills, expiration)
    own = overrides.get
    payload, payload_base64 = place(data, content_type)
    trace = own("cloudevent.traceparent") or own("cloudevent.traceid") or traceparent
    envelope = Envelope(
        payload,
        payload_base64,
        content_type or "text/plain",
        expiration,
        own("cloudevent.id") or new_id or random_id(),
        pubsub_name,
        own("cloudevent.source") or source or DEFAULT_SOURCE,
        SPEC_VERSION,
        own("cloudevent.subject") or UNSET,
        second(int(clock)),
        topic,
        trace,
        trace,
        own("cloudevent.tracestate") or tracestate,
        own("cloudevent.type") or EVENT_TYPE,
    )
    try:
        return encode_envelope(envelope)
    except UnicodeEncodeError as exc:
        raise _not_unicode(topic) from exc


def unwrap(
    body: bytes,
    *,
    topic: str,
    pubsub_name: str,
    metadata: Mapping[str, str] = _NO_METADATA,
    raw: bool = False,
    new_id: str | None = None,
) -> CloudEvent:
    """Read a delivered message as an event.

    With `raw` the body is data of no known type in a new event; its id is `new_id`, by default a random UUID, and so
    differs with each redelivery. Otherwise, with message metadata `content-type: application/octet-stream`, the body is
    data and `ce_*` metadata are the attributes, unless there are none and the body is an envelope. Otherwise the body
    must be an envelope. Attributes of an odd JSON type are taken as their JSON text. Missing topic and pubsub name come
    from the arguments, missing or empty trace attributes from the metadata; a missing id stays empty.

    Raises `InvalidEventError` when the body is not a JSON object, or its `data_base64` is not base64.
    """
    if raw:
        return _new_event(body, topic, pubsub_name, metadata, new_id)
    if metadata and base_type(_lookup(metadata, "content-type")) == OCTET_STREAM:
        attributes = {
            name.lower()[len(_BINARY_PREFIX) :]: value
            for name, value in metadata.items()
            if name.lower().startswith(_BINARY_PREFIX)
        }
        if attributes:
            body = _from_attributes(body, attributes, topic, pubsub_name, new_id)
        elif not _is_envelope(body):
            return _new_event(body, topic, pubsub_name, metadata, new_id)
    try:
        wire = decode_wire(body)
    except (ValueError, RecursionError):
        wire = _decode_leniently(body, topic)
    traceparent, tracestate = wire.traceparent, wire.tracestate
    if metadata:
        traceparent = traceparent or _lookup(metadata, "traceparent")
        tracestate = tracestate or _lookup(metadata, "tracestate")
    return CloudEvent(
        id=wire.id or "",
        source=wire.source or "",
        type=wire.type or "",
        topic=topic if wire.topic is None else wire.topic,
        pubsubname=pubsub_name if wire.pubsubname is None else wire.pubsubname,
        data=_data_of(wire, topic),
        specversion=wire.specversion or "",
        subject=wire.subject,
        datacontenttype=wire.datacontenttype,
        time=wire.time,
        expiration=wire.expiration,
        traceparent=traceparent or "",
        tracestate=tracestate or "",
        envelope=body,
    )


def _pass_through(
    data: bytes, topic: str, pubsub_name: str, fills: Mapping[str, str], expiration: str | UnsetType
) -> bytes:
    try:
        # Strings that the decoder skips are not checked by it.
        data.decode()
        present = decode_attributes(data)
    except (ValueError, RecursionError) as exc:
        raise InvalidEventError(
            f"data for topic {topic!r} has content type {CLOUD_EVENT_CONTENT_TYPE} but is not a JSON object: {exc}"
        ) from exc
    attributes: dict[str, str | Raw] = {
        **present,
        **{name: value for name, value in fills.items() if name not in present or bytes(present[name]) == b"null"},
        "topic": topic,
        "pubsubname": pubsub_name,
    }
    if expiration is not UNSET:
        attributes["expiration"] = expiration
    try:
        return encode_attributes(attributes)
    except UnicodeEncodeError as exc:
        raise _not_unicode(topic) from exc


def _not_unicode(topic: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"an attribute of an event for topic {topic!r} is not valid Unicode; check topic, app id and metadata"
    )


def _data_of(wire: Wire, topic: str) -> bytes:
    if wire.data_base64 is not None:
        return wire.data_base64
    if wire.data is UNSET:
        return b""
    data = bytes(wire.data)
    # CloudEvents JSON format: data without a content type is JSON.
    if wire.datacontenttype is None or placement_of(wire.datacontenttype) is Placement.JSON:
        return data
    if data.startswith(b'"'):
        try:
            return msgspec.json.decode(data, type=str).encode()
        except ValueError as exc:
            raise InvalidEventError(f"data of an event on topic {topic!r} is not valid text: {exc}") from exc
    return b"" if data == b"null" else data


def _decode_leniently(body: bytes, topic: str) -> Wire:
    """Read an envelope whose attributes are not all strings, as some producers write them."""
    values: dict[str, Any] = {}
    try:
        attributes = decode_attributes(body)
        for name in Wire.__struct_fields__:
            if name in attributes:
                values[name] = attributes[name] if name == "data" else _as_text(attributes[name])
    except (ValueError, RecursionError) as exc:
        raise InvalidEventError(
            f"a message on topic {topic!r} is not a CloudEvent, a JSON object was expected: {exc}. "
            "Set metadata rawPayload to true on the subscription if its producers do not send CloudEvents"
        ) from exc
    encoded = values.get("data_base64")
    if encoded is not None:
        try:
            values["data_base64"] = a2b_base64(encoded.replace("\r", "").replace("\n", ""), strict_mode=True)
        except ValueError as exc:
            raise InvalidEventError(f"data_base64 of an event on topic {topic!r} is not base64: {exc}") from exc
    return Wire(**values)


def _as_text(raw: Raw) -> str | None:
    value = msgspec.json.decode(raw)
    return value if value is None or isinstance(value, str) else bytes(raw).decode()


def _new_event(
    body: bytes, topic: str, pubsub_name: str, metadata: Mapping[str, str], new_id: str | None
) -> CloudEvent:
    trace = _lookup(metadata, "traceparent") or _lookup(metadata, "traceid")
    return CloudEvent(
        id=new_id or random_id(),
        source=DEFAULT_SOURCE,
        type=EVENT_TYPE,
        topic=topic,
        pubsubname=pubsub_name,
        data=body,
        datacontenttype=OCTET_STREAM,
        traceparent=trace or "",
        tracestate=_lookup(metadata, "tracestate") or "",
    )


def _from_attributes(
    body: bytes, attributes: Mapping[str, str], topic: str, pubsub_name: str, new_id: str | None
) -> bytes:
    """Turn a message in binary content mode into an envelope."""
    content_type = attributes.get("datacontenttype") or OCTET_STREAM
    data, data_base64 = place(body, content_type)
    envelope: dict[str, object] = {
        "source": DEFAULT_SOURCE,
        "specversion": SPEC_VERSION,
        "type": EVENT_TYPE,
        "topic": topic,
        "pubsubname": pubsub_name,
        **attributes,
        "datacontenttype": content_type,
    }
    envelope["id"] = attributes.get("id") or new_id or random_id()
    for name, value in (("data", data), ("data_base64", data_base64)):
        envelope.pop(name, None)
        if value is not UNSET:
            envelope[name] = value
    try:
        return encode_attributes(envelope)
    except UnicodeEncodeError as exc:
        raise InvalidEventError(f"a ce_ attribute of a message on topic {topic!r} is not valid Unicode") from exc


def _is_envelope(body: bytes) -> bool:
    try:
        return "specversion" in decode_attributes(body)
    except (ValueError, RecursionError):
        return False


def _lookup(metadata: Mapping[str, str], name: str) -> str | None:
    value = metadata.get(name)
    if value is not None:
        return value
    for key, value in metadata.items():
        if len(key) == len(name) and key.lower() == name:
            return value
    return None
