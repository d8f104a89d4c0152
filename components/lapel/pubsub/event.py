"""The event that a handler sees."""

from __future__ import annotations

import builtins
import time
from datetime import datetime
from typing import Any, TypeVar, overload

import msgspec
from msgspec import UNSET

from ..errors import LapelError
from ..jsontext import decode_json
from ._envelope import SPEC_VERSION, Envelope, Wire, decode_attributes, encode_envelope, place

__all__ = ["CloudEvent", "InvalidEventError", "expired"]

T = TypeVar("T")


class InvalidEventError(LapelError, ValueError):
    """Bytes that should be a CloudEvent are not one, or its data is not what the reader asked for.

    Trying again does not help. Messages that were never CloudEvents need `rawPayload` on the subscription.
    """


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one event as a handler sees it.

    Optional attributes that the event does not have are None; `id`, `source`, `type` and the trace attributes are then
    empty. `data` is the JSON text as published for JSON data, UTF-8 for text, and the decoded bytes for binary data;
    empty when the event has none. `envelope` is the event as the broker stored it, None when it was built here.
    """

    id: str
    source: str
    type: str
    topic: str
    pubsubname: str
    data: bytes = b""
    specversion: str = SPEC_VERSION
    subject: str | None = None
    datacontenttype: str | None = None
    time: str | None = None
    expiration: str | None = None
    traceparent: str = ""
    tracestate: str = ""
    envelope: bytes | None = None

    def __repr__(self) -> str:
        # Data stays out: representations end up in logs.
        return (
            f"CloudEvent(id={self.id!r}, source={self.source!r}, type={self.type!r}, topic={self.topic!r}, "
            f"datacontenttype={self.datacontenttype!r}, data=<{len(self.data)} bytes>)"
        )

    def text(self) -> str:
        """Return the data as text; JSON data as its JSON text.

        Raises `InvalidEventError` when the data is not UTF-8; read `data` then.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError as exc:
            raise InvalidEventError(f"data of event {self.id!r} is not UTF-8 text; read the bytes of `data`") from exc

    @overload
    def json(self) -> Any: ...

    @overload
    def json(self, type: builtins.type[T]) -> T: ...

    def json(self, type: Any = None) -> Any:
        """Return the data parsed as JSON: plain values, or `type`, which may be anything msgspec or pydantic decodes.

        Integers are exact. Numbers with a fraction are exact where `type` says `Decimal`, else floats.
        Raises `InvalidEventError` when the data is not JSON or does not fit the type.
        """
        try:
            return msgspec.json.decode(self.data) if type is None else decode_json(self.data, type)
        except (ValueError, RecursionError) as exc:
            raise InvalidEventError(f"data of event {self.id!r} cannot be read as the JSON asked for: {exc}") from exc

    @property
    def extensions(self) -> dict[str, Any]:
        """The attributes that have no field here, such as `traceid` and custom ones, parsed on each access.

        Raises `InvalidEventError` when one of them is not valid Unicode or a number beyond all bounds.
        """
        if self.envelope is None:
            return {"traceid": self.traceparent} if self.traceparent else {}
        try:
            return {
                name: msgspec.json.decode(value)
                for name, value in decode_attributes(self.envelope).items()
                if name not in Wire.__struct_fields__
            }
        except (ValueError, RecursionError) as exc:
            raise InvalidEventError(f"extension attributes of event {self.id!r} cannot be read: {exc}") from exc

    def to_json(self) -> bytes:
        """Return the envelope: unchanged as stored, or built from the attributes when there is none.

        An event built for a raw subscription gives the same bytes on every call.
        """
        if self.envelope is not None:
            return self.envelope
        data, data_base64 = place(self.data, self.datacontenttype)
        return encode_envelope(
            Envelope(
                data,
                data_base64,
                self.datacontenttype or UNSET,
                self.expiration or UNSET,
                self.id,
                self.pubsubname,
                self.source,
                self.specversion,
                self.subject or UNSET,
                self.time or UNSET,
                self.topic,
                self.traceparent or UNSET,
                self.traceparent or UNSET,
                self.tracestate or UNSET,
                self.type,
            )
        )


def expired(event: CloudEvent, now: float | None = None) -> bool:
    """Tell whether the event's `expiration` lies before `now`, seconds since the epoch, by default the clock.

    An event without expiration, or with one that is not an RFC 3339 time with an offset, is not expired.
    """
    if not event.expiration:
        return False
    try:
        moment = msgspec.convert(event.expiration, datetime)
    except msgspec.ValidationError:
        return False
    return moment.tzinfo is not None and moment.timestamp() < (time.time() if now is None else now)
