"""JSON in and out of the APIs: bodies into structs, exact values, times and durations."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec.inspect import ListType, StructType, UnionType, type_info

from .errors import HostError, malformed

__all__ = ["Fields", "decode", "is_json_text", "rfc3339"]

T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], body: bytes, *, message: str = "{}") -> T:
    """Decode a body. Raises the 400 `ERR_MALFORMED_REQUEST`, whose text is `message` with the reason.

    A `msgspec.Raw` inside keeps its bytes as they are, which the decoder does not check for UTF-8; this does. Structs
    that forbid unknown fields are read as Go reads them: names in any case, and what is unknown is left out.
    """
    try:
        if not body.isascii():
            str(body, "utf-8")
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            spelled = _spelled(body, _shape_of(cast("Hashable", decoder.type)))
            if spelled == body:
                raise
            return decoder.decode(spelled)
    except RecursionError:
        why = "it is nested too deeply"
    except (msgspec.MsgspecError, ValueError) as exc:
        why = str(exc)
    raise malformed(message.format(why))


def _spelled(data: bytes, shape: Any) -> bytes:
    """Return JSON whose objects have the names of the structs in `shape`, exact spelling first, and no others."""
    if isinstance(shape, UnionType):
        shape = next((one for one in shape.types if isinstance(one, ListType | StructType)), None)
    try:
        if isinstance(shape, ListType):
            items = _RAWS.decode(data)
            return msgspec.json.encode([msgspec.Raw(_spelled(bytes(item), shape.item_type)) for item in items])
        if isinstance(shape, StructType):
            given = _RAW_FIELDS.decode(data)
            folded = {name.lower(): value for name, value in given.items()}
            found = {}
            for field in shape.fields:
                name = field.encode_name
                value = given[name] if name in given else folded.get(name.lower())
                if value is not None:
                    found[name] = msgspec.Raw(_spelled(bytes(value), field.type))
            return msgspec.json.encode(found)
    except (msgspec.MsgspecError, RecursionError):
        pass  # the decoder says what is wrong
    return data


@lru_cache(maxsize=32)
def _shape_of(kind: Hashable) -> Any:
    return type_info(kind)


class Fields:
    """A body as protobuf's JSON mapping reads it: names in either spelling, what is missing is empty or zero.

    Every method, the constructor included, raises the 400 `ERR_MALFORMED_REQUEST` for what does not fit.
    """

    def __init__(self, body: bytes) -> None:
        self._values: dict[str, Any] = decode(_OBJECT, body, message=_UNREADABLE) if body.strip() else {}

    def text(self, name: str) -> str:
        """Return a string field."""
        value = self._get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise _misfit(name, "a string")
        return value

    def integer(self, name: str) -> int:
        """Return an int32 field, which may be written as a number or as text."""
        value = self._get(name)
        if value is None:
            return 0
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not -(2**31) <= value < 2**31:
            raise _misfit(name, "a whole number of 32 bits")
        return value

    def data(self, name: str) -> bytes:
        """Return a bytes field, which is written as base64 of either alphabet, with or without padding."""
        text = self.text(name).rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise _misfit(name, "base64") from None

    def enumeration(self, name: str, words: Sequence[str]) -> str | None:
        """Return one of `words`, given as text or as its number; None for anything else."""
        value = self._get(name)
        if value is None:
            return words[0]
        if type(value) is int and 0 <= value < len(words):
            return words[value]
        return value if value in words else None

    def _get(self, name: str) -> Any:
        value = self._values.get(name)
        return self._values.get(_snake(name)) if value is None else value


def is_json_text(data: bytes) -> bool:
    """Tell whether bytes are one JSON value, so that they may be put into a document as they are."""
    try:
        if not data.isascii():
            str(data, "utf-8")
        _RAW.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def rfc3339(time: datetime) -> str:
    """Return a time as Dapr writes it: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_RAW: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.Raw)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECT: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_INTEGER = re.compile("-?[0-9]{1,10}")
_UNREADABLE = "failed deserializing HTTP body: {}"


def _misfit(name: str, expected: str) -> HostError:
    return malformed(_UNREADABLE.format(f"field {name} must be {expected}"))


@lru_cache(maxsize=64)
def _snake(name: str) -> str:
    return re.sub("(?=[A-Z])", "_", name).lower()
