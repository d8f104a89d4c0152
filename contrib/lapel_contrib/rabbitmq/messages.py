"""Between the attributes of messages and AMQP's properties and headers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from pamqp.commands import Basic

from lapel.errors import InvalidArgumentError

from .settings import LONGEST_TTL

__all__ = ["KEY_HEADER", "attributes_of", "event_metadata", "integer_of", "properties_of", "short_text", "truthy"]

KEY_HEADER = "lapel-key"
"""The header that carries the key by which messages are ordered."""

PERSISTENT = 2
_HIGHEST_PRIORITY = 255
_LARGEST_HEADERS = 100_000
"""Bytes. All headers must fit into one frame, of 128 KiB."""
_HEADER_NAME = 128
_SHORT = 255
# Copies go to these routing keys; the broker closes the channel when they are texts.
_NOT_HEADERS = ("CC", "BCC")
# The broker's own bookkeeping. A dead letter of ours must not bring it along as text.
_BROKERS = frozenset({"CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count", KEY_HEADER})
_BROKERS_PREFIXES = ("x-first-death-", "x-last-death-")
_TRUE = frozenset({"y", "yes", "t", "true", "on", "1"})


def properties_of(
    metadata: Mapping[str, str],
    *,
    content_type: str | None,
    ttl: float | None,
    key: str | None = None,
    skipped: frozenset[str] = frozenset(),
    all_headers: bool = False,
) -> tuple[Basic.Properties, dict[str, str]]:
    """Return the properties of a message, and the metadata of names in `skipped`, in lower case.

    `contentType`, `messageID`, `correlationID`, `type` and `priority` become properties, in any case of letters; all
    others headers. With `all_headers` those become headers as well. `ttl` is in seconds. Raises `InvalidArgumentError`
    for what AMQP cannot carry.
    """
    headers: dict[str, Any] = {}
    special: dict[str, str] = {}
    message_id = correlation_id = message_type = None
    priority: int | None = None
    size = 0
    for name, value in metadata.items():
        lower = name.lower()
        header = all_headers
        match lower:
            case "contenttype":
                content_type = value or content_type
            case "messageid":
                message_id = short_text(name, value) or None
            case "correlationid":
                correlation_id = short_text(name, value) or None
            case "type":
                message_type = short_text(name, value) or None
            case "priority":
                priority = min(max(integer_of(name, value), 0), _HIGHEST_PRIORITY) if value else None
            case _ if lower in skipped:
                special[lower] = value
            case _:
                header = True
        if header:
            if name in _NOT_HEADERS or len(name.encode()) > _HEADER_NAME:
                raise InvalidArgumentError(
                    f"metadata {name[:40]!r} cannot be a header: {', '.join(_NOT_HEADERS)} mean something to the "
                    f"broker, and names have at most {_HEADER_NAME} bytes"
                )
            size += len(name.encode()) + len(value.encode())
            headers[name] = value
    if key is not None:
        headers[KEY_HEADER] = key
        size += len(key.encode())
    if size > _LARGEST_HEADERS:
        raise InvalidArgumentError(f"the metadata have {size} bytes; at most {_LARGEST_HEADERS} fit into a message")
    if ttl is not None and ttl > LONGEST_TTL:
        # The broker closes the channel for it, which costs the messages of others their confirmations.
        raise InvalidArgumentError(f"a time to live of {ttl:g} s is longer than RabbitMQ's limit of {LONGEST_TTL} s")
    properties = Basic.Properties(
        content_type=None if content_type is None else short_text("content type", content_type),
        headers=headers or None,
        delivery_mode=PERSISTENT,
        priority=priority,
        correlation_id=correlation_id,
        expiration=None if ttl is None else str(max(1, round(ttl * 1000))),
        message_id=message_id,
        message_type=message_type,
    )
    return properties, special


def attributes_of(properties: Basic.Properties, *, expose_properties: bool) -> tuple[dict[str, str], str | None]:
    """Return the attributes of a message, all as text, and its key.

    With `expose_properties` properties and headers come under Dapr's `metadata.` names as well.
    """
    found: dict[str, str] = {}
    headers = properties.headers or {}
    key = headers.get(KEY_HEADER)
    for name, value in headers.items():
        if name not in _BROKERS and not name.startswith(_BROKERS_PREFIXES):
            found[name] = _text(value)
    if expose_properties:
        for name, value in (
            ("messageid", properties.message_id),
            ("correlationid", properties.correlation_id),
            ("type", properties.message_type),
            ("contenttype", properties.content_type),
        ):
            if value:
                found[f"metadata.{name}"] = value
        found |= {f"metadata.{name}": _text(value) for name, value in headers.items() if name != KEY_HEADER}
    return found, key if isinstance(key, str) else None


def event_metadata(properties: Basic.Properties) -> dict[str, str]:
    """Return the headers of a binding's event that are texts, their names escaped as in a URL."""
    return {quote_plus(name): value for name, value in (properties.headers or {}).items() if isinstance(value, str)}


def short_text(name: str, value: str) -> str:
    """Return a text that AMQP has 255 bytes for. Raises `InvalidArgumentError` for a longer one."""
    if len(value) * 4 > _SHORT and len(value.encode()) > _SHORT:
        raise InvalidArgumentError(f"{name} has {len(value.encode())} bytes; RabbitMQ takes at most {_SHORT}")
    return value


def integer_of(name: str, value: str) -> int:
    """Return a whole number. Raises `InvalidArgumentError` naming the metadata."""
    text = value.strip()
    digits = text.removeprefix("-").removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidArgumentError(f"metadata {name} must be a whole number, got {value[:40]!r}")
    # More digits are no different, and `int` refuses very many.
    return int(text[:19])


def truthy(value: str) -> bool:
    """Return what Dapr takes for true."""
    return value.strip().lower() in _TRUE


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(value, default=str, separators=(",", ":"))
