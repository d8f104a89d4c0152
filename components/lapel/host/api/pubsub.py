"""Publish: one event, or several at once."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ...descriptor import Kind
from ...errors import InvalidArgumentError, LapelError, TopicForbiddenError
from ...jsontext import is_json
from ...pubsub import PublishEntry, PubSub
from ...pubsub.cloudevents import CLOUD_EVENT_CONTENT_TYPE, InvalidEventError
from ...pubsub.request_metadata import raw_payload, ttl_of
from ..errors import HostError, error_info, reason, resource_info
from ..http import NO_CONTENT, NO_METADATA, Request, Response, metadata_headers
from ..protojson import decode
from ..routing import Handler, Route
from ..tracecontext import trace_of
from .lookup import find

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["routes"]

LONGEST_HEADER = 4096
"""Longer response metadata is left out: clients refuse headers of a few KiB."""


class _Entry(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    entry_id: str | None = msgspec.field(default=None, name="entryId")
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    content_type: str | None = msgspec.field(default=None, name="contentType")
    metadata: dict[str, str] | None = None


_entries = msgspec.json.Decoder(list[_Entry])


def routes(host: Host) -> list[Route]:
    """Return the routes of this API."""
    api = _Publish(host)
    one, several, bulk = "/v1.0/publish", "/v1.0-alpha1/publish/bulk", "/v1.0/publish/bulk"

    def route(template: str, handler: Handler, summary: str, accepts: Any = None) -> Route:
        query = ("metadata.ttlInSeconds", "metadata.rawPayload") if accepts else ()
        answers = (204,) if accepts else ()
        return Route(
            ("POST", "PUT"),
            template,
            handler,
            "publish",
            summary,
            "whole",
            accepts=accepts,
            query=query,
            answers=answers,
        )

    topic = "{pubsub}/{topic...}"
    return [
        route(one, api.nameless, "Refused: it names no component"),
        route(several, api.nameless, "Refused: it names no component"),
        route(f"{one}/{{pubsub}}", api.topicless, "Refused: it names no topic"),
        route(f"{several}/{{pubsub}}", api.topicless, "Refused: it names no topic"),
        route(f"{one}/{topic}", api.publish, "Publish one event", bytes),
        route(f"{several}/{topic}", api.bulk_publish, "Publish several events", list[_Entry]),
        route(f"{bulk}/{topic}", api.bulk_publish, "Publish several events", list[_Entry]),
    ]


class _Publish:
    def __init__(self, host: Host) -> None:
        self._host = host

    async def nameless(self, request: Request) -> Response:
        raise _error(404, "ERR_PUBSUB_EMPTY", "NAME_EMPTY", "", "pubsub name is empty")

    async def topicless(self, request: Request) -> Response:
        name = request.parameters[0]
        self._pubsub(name)
        text = f"topic is empty in pubsub {name}"
        raise _error(404, "ERR_TOPIC_NAME_EMPTY", "TOPIC_NAME_EMPTY", name, text)

    async def publish(self, request: Request) -> Response:
        name, topic = request.parameters
        pubsub = self._pubsub(name)
        metadata = request.metadata()
        raw = _checked(name, metadata)
        content_type = request.header(b"content-type")
        try:
            await pubsub.publish(
                topic,
                request.body,
                content_type=content_type or None,
                raw=raw,
                metadata=_traced(request, metadata, raw),
            )
        except TopicForbiddenError as exc:
            raise self._forbidden(name, topic) from exc
        except InvalidEventError as exc:
            text = f"cannot create cloudevent: {reason(exc)}"
            raise _error(500, "ERR_PUBSUB_CLOUD_EVENTS_SER", "CLOUD_EVENT_CREATION", name, text) from exc
        except InvalidArgumentError as exc:
            raise _wrong_metadata(name, exc) from exc
        except LapelError as exc:
            text = f"error when publishing to topic {topic} in pubsub {name}: {reason(exc)}"
            raise _error(500, "ERR_PUBSUB_PUBLISH_MESSAGE", "PUBLISH_MESSAGE", name, text) from exc
        return NO_CONTENT

    async def bulk_publish(self, request: Request) -> Response:
        name, topic = request.parameters
        pubsub = self._pubsub(name)
        metadata = request.metadata()
        raw = _checked(name, metadata)
        try:
            given = decode(_entries, request.body)
        except HostError as exc:
            text = f"error when unmarshaling the request for topic {topic} pubsub {name}: {exc.message}"
            raise _error(400, "ERR_PUBSUB_EVENTS_SER", "UNMARSHAL_EVENTS", name, text) from exc
        entries = _checked_entries(given, name, topic, raw=raw)
        try:
            outcomes = await pubsub.bulk_publish(topic, entries, raw=raw, metadata=_traced(request, metadata, raw))
        except TopicForbiddenError as exc:
            raise self._forbidden(name, topic) from exc
        except InvalidArgumentError as exc:
            raise _wrong_metadata(name, exc) from exc
        except LapelError as exc:
            text = f"error when publishing to topic {topic} in pubsub {name}: {reason(exc)}"
            raise _error(500, "ERR_PUBSUB_PUBLISH_MESSAGE", "PUBLISH_MESSAGE", name, text) from exc
        failed = [(outcome.entry_id, outcome.error) for outcome in outcomes if outcome.error is not None]
        if not failed:
            return NO_CONTENT
        if all(isinstance(error, TopicForbiddenError) for _, error in failed):
            raise self._forbidden(name, topic)
        return _partly_failed(failed)

    def _pubsub(self, name: str) -> PubSub:
        host = self._host
        return find(
            host,
            Kind.PUBSUB,
            host.components.pubsub,
            name,
            none=lambda: _error(400, "ERR_PUBSUB_NOT_CONFIGURED", "NOT_CONFIGURED", name, "pubsub is not configured"),
            missing=lambda: HostError(
                404, "ERR_PUBSUB_NOT_FOUND", f"pubsub {name} is not found", [error_info("DAPR_PUBSUB_NOT_FOUND")]
            ),
        )

    def _forbidden(self, name: str, topic: str) -> HostError:
        text = f"topic {topic} is not allowed for app id {self._host.options.app_id}"
        return _error(403, "ERR_PUBSUB_FORBIDDEN", "FORBIDDEN", name, text)


def _error(status: int, code: str, word: str, name: str, text: str) -> HostError:
    details = [resource_info("pubsub", name, description=text), error_info(f"DAPR_PUBSUB_{word}")]
    return HostError(status, code, text, details)


def _wrong_metadata(name: str, exc: LapelError) -> HostError:
    text = f"failed deserializing metadata. Error: {reason(exc)}"
    return _error(400, "ERR_PUBSUB_REQUEST_METADATA", "METADATA_DESERIALIZATION", name, text)


def _checked(name: str, metadata: Mapping[str, str]) -> bool | None:
    """Return whether the event goes without an envelope, None to leave it to the component."""
    if not metadata:
        return None
    try:
        ttl_of(metadata)
        return raw_payload(metadata) or None
    except InvalidArgumentError as exc:
        raise _wrong_metadata(name, exc) from exc


def _traced(request: Request, metadata: Mapping[str, str], raw: bool | None) -> Mapping[str, str]:
    """Add the caller's trace, which an envelope carries as attributes and a raw message as its own metadata."""
    trace = trace_of(request)
    if not trace:
        return metadata
    if not raw:
        trace = {f"cloudevent.{key}": value for key, value in trace.items() if key != "baggage"}
    return {**trace, **metadata}


def _is_event(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() == CLOUD_EVENT_CONTENT_TYPE


def _checked_entries(given: list[_Entry], name: str, topic: str, *, raw: bool | None) -> list[PublishEntry]:
    """Return the entries of a bulk, every one of them right, before any is sent."""
    seen: set[str] = set()
    entries = []
    for entry in given:
        if not entry.entry_id or entry.entry_id in seen:
            raise _wrong_entries(name, topic, f"entryId is duplicated or not present for entry {entry.entry_id or ''}")
        seen.add(entry.entry_id)
        try:
            data = _data_of(entry)
        except ValueError as exc:
            raise _wrong_entries(name, topic, f"entry {entry.entry_id}: {exc}") from exc
        if not raw and _is_event(entry.content_type) and not data.startswith(b"{"):
            text = (
                f"error when marshalling cloud event envelope for topic {topic} pubsub {name}: "
                f"entry {entry.entry_id} is not an object"
            )
            raise _error(400, "ERR_PUBSUB_EVENTS_SER", "MARSHAL_ENVELOPE", name, text)
        entries.append(
            PublishEntry(
                data=data,
                entry_id=entry.entry_id,
                content_type=entry.content_type,
                metadata=entry.metadata or NO_METADATA,
            )
        )
    return entries


def _wrong_entries(name: str, topic: str, why: str) -> HostError:
    text = f"error marshaling events to bytes for topic {topic} pubsub {name}. error: {why}"
    return _error(400, "ERR_PUBSUB_EVENTS_SER", "MARSHAL_EVENTS", name, text)


def _data_of(entry: _Entry) -> bytes:
    """Return the bytes of an event, which its content type says how to read. Raises `ValueError`."""
    event = b"null" if isinstance(entry.event, msgspec.UnsetType) else bytes(entry.event)
    kind = (entry.content_type or "").partition(";")[0].strip().lower()
    if is_json(kind) or kind == CLOUD_EVENT_CONTENT_TYPE:
        return event
    if not (kind.startswith("text/") or kind in ("application/xml", "application/octet-stream")):
        raise ValueError(f"content type {entry.content_type or ''!r} is not one that a bulk takes")
    try:
        text = msgspec.json.decode(event, type=str)
    except msgspec.MsgspecError:
        raise ValueError(f"an event of type {kind} must be a JSON string") from None
    if kind != "application/octet-stream":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("an event of type application/octet-stream must be base64") from None


def _partly_failed(failed: list[tuple[str, LapelError]]) -> Response:
    entries = [{"entryId": entry_id, "error": reason(error)} for entry_id, error in failed]
    body = msgspec.json.encode({"failedEntries": entries, "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE"})
    told = {"responseData": body.decode(), "error": f"{len(failed)} entries failed: {reason(failed[0][1])}"}
    headers = metadata_headers({key: text for key, text in told.items() if len(text) <= LONGEST_HEADER})
    return Response(500, body, headers=headers)
