"""What a request to the bucket says: names, documents and flags, checked before anything is sent."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from lapel.bindings import InvokeRequest
from lapel.errors import InvalidArgumentError
from lapel.settings import parse_bool, parse_duration

from .component_settings import LONGEST_SIGNATURE

__all__ = ["checked_key", "decoded", "document_of", "flag_of", "generation_of", "key_of", "lifetime_of", "text_of"]

_LONGEST_KEY: Final = 1024
_LONGEST_DOCUMENT: Final = 64 * 1024
_AROUND_BASE64: Final = b'\r\n "'


def key_of(request: InvokeRequest) -> str | None:
    """Return the object that the metadata name; `name` is the old spelling and counts first."""
    key = request.metadata.get("name") or request.metadata.get("key")
    return None if key is None else checked_key(key, "the request metadata 'key'")


def checked_key(key: str, what: str) -> str:
    """Return the key if Cloud Storage can hold an object of that name."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{what} holds a lone surrogate, which is not text") from None
    if not 0 < size <= _LONGEST_KEY:
        raise InvalidArgumentError(f"{what} has {size} bytes in UTF-8; expected 1 to {_LONGEST_KEY}")
    if key in (".", "..") or any(character in key for character in "\r\n\0"):
        raise InvalidArgumentError(f"{what} must not be '.' or '..', nor hold a line end or NUL")
    return key


def flag_of(request: InvokeRequest, name: str, default: bool) -> bool:
    """Return a flag of the metadata, or that of the component where the metadata have none."""
    text = request.metadata.get(name)
    if text is None:
        return default
    try:
        return parse_bool(text)
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(f"the request metadata {name!r} is {text!r}; {exc.message}") from None


def lifetime_of(request: InvokeRequest, default: timedelta | None) -> timedelta:
    """Return how long a signed URL is to be valid."""
    text = request.metadata.get("signTTL")
    if text is None and default is None:
        raise InvalidArgumentError("sign needs the request metadata 'signTTL', or the field signTTL")
    try:
        lifetime = default if text is None else parse_duration(text)
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(f"the request metadata 'signTTL' is {text!r}; {exc.message}") from None
    assert lifetime is not None
    if not timedelta(seconds=1) <= lifetime <= LONGEST_SIGNATURE:
        raise InvalidArgumentError("signTTL must be between 1s and 168h")
    return lifetime


def generation_of(request: InvokeRequest) -> int | None:
    """Return the generation that the object must have now; 0: there must be none. None: whatever there is."""
    text = request.metadata.get("ifGenerationMatch")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise InvalidArgumentError(
            f"the request metadata 'ifGenerationMatch' is {text!r}; expected the generation that a get or a create "
            "answered, or 0 for an object that must not be there"
        )
    return int(text)


async def document_of(request: InvokeRequest, known: Sequence[str]) -> dict[str, Any]:
    """Return the JSON object in the data, with the names in `known` whatever their case; empty without data."""
    data = request.data or b""
    if not isinstance(data, bytes):
        collected = bytearray()
        async for chunk in data:
            collected += chunk
            if len(collected) > _LONGEST_DOCUMENT:
                break
        data = bytes(collected)
    if len(data) > _LONGEST_DOCUMENT:
        raise InvalidArgumentError(f"the data of {request.operation} is a JSON object of at most 64 KiB")
    if not data.strip():
        return {}
    try:
        found = json.loads(data)
    except ValueError:
        found = ()
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise InvalidArgumentError(f"the data of {request.operation} must be a JSON object with {', '.join(known)}")
    spelling = {name.lower(): name for name in known}
    document: dict[str, Any] = {}
    for name, value in found.items():
        if name.lower() not in spelling:
            raise InvalidArgumentError(f"{request.operation} does not know {name!r}; it knows {', '.join(known)}")
        document[spelling[name.lower()]] = value
    return document


def text_of(document: Mapping[str, Any], name: str) -> str:
    """Return a text of a document, empty when it is not there."""
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name!r} must be text, not {type(value).__name__}")
    return value


def decoded(data: bytes | AsyncIterable[bytes]) -> bytes | AsyncIterator[bytes]:
    """Return what base64 text stands for; it may be in quotes, as JSON has it, and broken into lines."""
    if isinstance(data, bytes):
        return _decode(data.translate(None, _AROUND_BASE64))
    return _decoded_stream(data)


async def _decoded_stream(source: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    ended = False
    async for chunk in source:
        text = rest + chunk.translate(None, _AROUND_BASE64)
        whole = len(text) - len(text) % 4
        if whole and ended:
            raise InvalidArgumentError("the data goes on after the end of the base64 text")
        rest = text[whole:]
        ended = ended or text[:whole].endswith(b"=")
        if whole:
            yield _decode(text[:whole])
    if rest:
        yield _decode(rest)


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise InvalidArgumentError("decodeBase64 is set, but the data is not base64 text") from None
