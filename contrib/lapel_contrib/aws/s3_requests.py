"""Request metadata and data of the S3 binding, checked, and its replies as JSON."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from lapel.errors import InvalidArgumentError
from lapel.settings import parse_bool, parse_duration

from .component_settings import LONGEST_SIGNATURE, S3BindingSettings

__all__ = ["Listing", "RequestMetadata", "as_json", "checked_key", "decoded"]

_LONGEST_KEY = 1024
_Document = TypeVar("_Document")


class RequestMetadata:
    """What the metadata of one request say; names match in any case. Raises `InvalidArgumentError`."""

    def __init__(self, metadata: Mapping[str, str], settings: S3BindingSettings) -> None:
        self._values = {name.lower(): value for name, value in metadata.items() if value}
        self._settings = settings

    def key(self, operation: str) -> str:
        """Return the key that the operation cannot do without."""
        key = self._values.get("key")
        if key is None:
            raise InvalidArgumentError(f"{operation} needs the request metadata 'key'")
        return checked_key(key)

    def key_or_new(self) -> str:
        """Return the key of a new object, a UUID if none is given."""
        key = self._values.get("key")
        return str(uuid.uuid4()) if key is None else checked_key(key)

    def text(self, *names: str) -> str | None:
        """Return the first of these that is given."""
        return next((self._values[name.lower()] for name in names if name.lower() in self._values), None)

    @property
    def decode_base64(self) -> bool:
        """Whether the data is Base64 text."""
        return self._flag("decodeBase64", self._settings.decode_base64)

    @property
    def encode_base64(self) -> bool:
        """Whether the reply shall be Base64 text."""
        return self._flag("encodeBase64", self._settings.encode_base64)

    @property
    def file_path(self) -> str | None:
        """The file to read instead of the data."""
        return self.text("filePath") or self._settings.file_path

    @property
    def presign_ttl(self) -> int | None:
        """How long a signed URL is to be valid, in seconds."""
        text = self.text("presignTTL")
        found = self._settings.presign_ttl
        if text is not None:
            try:
                found = parse_duration(text)
            except ValueError as exc:
                raise InvalidArgumentError(f"the request metadata 'presignTTL' is not a duration: {exc}") from None
            if not timedelta(seconds=1) <= found <= LONGEST_SIGNATURE:
                raise InvalidArgumentError("the request metadata 'presignTTL' must be between 1s and 168h")
        return None if found is None else int(found.total_seconds())

    def headers(self) -> dict[str, str]:
        """Return what goes with a new object: content type, storage class and tags."""
        found: dict[str, str] = {}
        if content_type := self.text("Content-Type", "contentType"):
            found["ContentType"] = content_type
        if storage_class := self.text("storageClass") or self._settings.storage_class:
            found["StorageClass"] = storage_class
        if tags := self.text("tags"):
            pairs = [pair.partition("=") for pair in tags.split(",") if pair.strip()]
            if not all(equals and name.strip() for name, equals, _ in pairs):
                raise InvalidArgumentError("the request metadata 'tags' is not written as name=value,name=value")
            found["Tagging"] = urlencode({name.strip(): value.strip() for name, _, value in pairs})
        return found

    def _flag(self, name: str, default: bool) -> bool:
        text = self._values.get(name.lower())
        if text is None:
            return default
        try:
            return parse_bool(text)
        except ValueError as exc:
            raise InvalidArgumentError(f"the request metadata {name!r} is neither true nor false: {exc}") from None


class Listing(msgspec.Struct, rename="camel"):
    """The data of `list`."""

    prefix: str = ""
    marker: str = ""
    delimiter: str = ""
    max_results: int = 0

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the SDK."""
        if self.max_results < 0:
            raise InvalidArgumentError("'maxResults' of list must not be negative")
        given = {"Prefix": self.prefix, "Marker": self.marker, "Delimiter": self.delimiter}
        return {"MaxKeys": self.max_results or 1000, **{name: text for name, text in given.items() if text}}


def checked_key(key: str) -> str:
    """Return a key that S3 can hold. Raises `InvalidArgumentError`."""
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidArgumentError("the key holds a lone surrogate, which is not text") from None
    if not 1 <= length <= _LONGEST_KEY or "\0" in key:
        raise InvalidArgumentError(f"a key has 1 to {_LONGEST_KEY} bytes, none of them NUL")
    return key


def decoded(data: bytes, operation: str, kind: type[_Document]) -> _Document:
    """Return the JSON document that an operation takes as its data. Raises `InvalidArgumentError`."""
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as exc:
        raise InvalidArgumentError(f"the data of {operation} is not what it takes: {exc}") from None


def as_json(document: Any) -> bytes:
    """Return a reply as JSON; times as RFC 3339 has them."""
    return json.dumps(document, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)
