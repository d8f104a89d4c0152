"""Messages as they travel through SNS to SQS."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

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
_NAME = re.compile(r"(?!AWS\.|Amazon\.|\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)", re.IGNORECASE)


class Notification(msgspec.Struct, frozen=True):
    """What a message of a queue says. `topic` is the name of the topic at SNS; empty if it does not tell."""

    topic: str
    data: bytes
    metadata: Mapping[str, str]
    key: str | None = None
    content_type: str | None = None


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
    if text.startswith("{"):
        try:
            note = msgspec.json.decode(text)
        except msgspec.DecodeError:
            note = None
        if isinstance(note, dict) and note.get("Type") == "Notification" and "TopicArn" in note and "Message" in note:
            topic, text = str(note["TopicArn"]).rpartition(":")[2], str(note["Message"])
            attributes = {
                name: str(value.get("Value", "")) for name, value in (note.get("MessageAttributes") or {}).items()
            }
    own = _own(attributes.pop(OWN, None))
    metadata = {**attributes, **own.get("attributes", {})}
    return Notification(topic, _payload(text, own), metadata, own.get("key"), own.get("type"))


def _own(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _payload(text: str, own: Mapping[str, Any]) -> bytes:
    if not own.get("base64"):
        return text.encode()
    try:
        return b"" if text == _EMPTY else base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
