"""Messages as they travel through SNS to SQS."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from lapel.errors import InvalidArgumentError
from lapel.pubsub.types import PublishRequest

from .reader import Message
from .text import is_text

__all__ = ["Notification", "encode", "read"]

OWN = "lapel"
"""The attribute for what has no place in a message of SNS: key, content type, odd attributes, and that it is Base64."""
LARGEST = 256 * 1024
"""Bytes of a message, attributes included."""
_EMPTY = "="
_Document = TypeVar("_Document")
_NAME = re.compile(r"(?!AWS\.|Amazon\.|\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)", re.IGNORECASE)


class Notification(msgspec.Struct, frozen=True):
    """What a message of a queue says. `topic` is the name of the topic at SNS; empty if it does not tell."""

    topic: str
    data: bytes
    metadata: Mapping[str, str]
    key: str | None = None
    content_type: str | None = None


class _Attribute(msgspec.Struct, rename="pascal"):
    value: str = ""


class _Envelope(msgspec.Struct, rename="pascal"):
    """What SNS writes around a message."""

    type: Literal["Notification"]
    topic_arn: str
    message: str
    message_attributes: dict[str, _Attribute] | None = None


class _Own(msgspec.Struct):
    """The content of the attribute `OWN`."""

    key: str | None = None
    type: str | None = None
    base64: bool = False
    attributes: dict[str, str] = {}


def encode(request: PublishRequest) -> tuple[dict[str, Any], int]:
    """Return the message and attributes for SNS, and their size in bytes. Raises `InvalidArgumentError`."""
    own: dict[str, Any] = {}
    text: str | None
    try:
        text = request.data.decode()
    except UnicodeDecodeError:
        text = None
    if text is None or not is_text(text):
        text = base64.b64encode(request.data).decode() or _EMPTY
        own["base64"] = True
    if request.key is not None:
        own["key"] = request.key
    if request.content_type is not None:
        own["type"] = request.content_type
    attributes: dict[str, str] = {}
    odd: dict[str, str] = {}
    for name, value in request.metadata.items():
        plain = name.lower() != OWN and _NAME.fullmatch(name) and is_text(value)
        (attributes if plain else odd)[name] = value
    if odd:
        own["attributes"] = odd
    if own:
        attributes[OWN] = json.dumps(own, separators=(",", ":"))
    size = len(text.encode()) + sum(
        len(name.encode()) + len("String") + len(value.encode()) for name, value in attributes.items()
    )
    if size > LARGEST:
        raise InvalidArgumentError(f"the message has {size} bytes with its attributes; SNS takes {LARGEST}")
    entry: dict[str, Any] = {"Message": text}
    if attributes:
        entry["MessageAttributes"] = {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
    return entry, size


def read(message: Message) -> Notification:
    """Return what a message says, in the form of SNS or, with raw delivery, as the publisher wrote it."""
    topic, text = "", message.body
    attributes = {name: value.get("StringValue") or "" for name, value in message.attributes.items()}
    if text.startswith("{") and (note := _decoded(text, _Envelope)) is not None:
        topic, text = note.topic_arn.rpartition(":")[2], note.message
        attributes = {name: each.value for name, each in (note.message_attributes or {}).items()}
    # Somebody else may have written an attribute of that name.
    own = _decoded(attributes.pop(OWN, None) or "{}", _Own) or _Own()
    return Notification(topic, _payload(text, own), {**attributes, **own.attributes}, own.key, own.type)


def _decoded(text: str, kind: type[_Document]) -> _Document | None:
    """Return a JSON document, None when it is not one of this kind."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def _payload(text: str, own: _Own) -> bytes:
    if not own.base64:
        return text.encode()
    try:
        return b"" if text == _EMPTY else base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
