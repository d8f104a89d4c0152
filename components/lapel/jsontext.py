"""JSON to and from bytes, exactly and strictly, for every kind."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from .errors import InvalidArgumentError

__all__ = ["JSON_CONTENT_TYPE", "decode_json", "encode_value", "is_json"]

JSON_CONTENT_TYPE = "application/json"


def is_json(content_type: str | None) -> bool:
    """Tell whether a content type is JSON; case and parameters do not matter."""
    return content_type is not None and content_type.partition(";")[0].strip().lower() == JSON_CONTENT_TYPE


def encode_value(value: Any, content_type: str | None) -> tuple[bytes, str | None]:
    """Return what an application's value is stored or sent as, with its content type.

    Bytes stay as they are. Everything else becomes compact JSON: text a JSON string; dataclasses, msgspec Structs
    and pydantic models objects. Raises `InvalidArgumentError` for values that JSON cannot hold without loss (NaN,
    infinity, lone surrogates, keys that are not text) and for a content type that contradicts JSON.
    """
    if isinstance(value, bytes):
        return value, content_type
    if isinstance(value, bytearray | memoryview):
        return bytes(value), content_type
    if content_type is not None and not is_json(content_type):
        if isinstance(value, str):
            try:
                return value.encode(), content_type
            except UnicodeEncodeError:
                raise InvalidArgumentError("a str value is not text: it holds a lone surrogate") from None
        raise InvalidArgumentError(
            f"a {type(value).__name__} is stored as JSON, which contradicts content type {content_type!r}; pass bytes"
        )
    try:
        text = _ENCODER.encode(value)
        if isinstance(value, dict | list | tuple):
            _check_keys(value)
        return text.encode(), content_type or JSON_CONTENT_TYPE
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidArgumentError(f"a {type(value).__name__} value is not JSON: {_reason(exc)}") from None


def decode_json(data: bytes, type_: Any = None) -> Any:
    """Decode JSON, into `type_` unless that is None. Raises `ValueError` when it is not JSON or does not fit."""
    if type_ is None:
        try:
            return _DECODER.decode(str(data, "utf-8"))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
    if hasattr(type_, "model_validate_json"):
        return type_.model_validate_json(data)
    return msgspec.json.decode(data, type=type_)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return msgspec.to_builtins(value, str_keys=True)


def _check_keys(value: Any) -> None:
    """Refuse keys that JSON would turn into text without a word, so that `1` and `"1"` would be one key."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise TypeError(f"it has a key of type {type(key).__name__}, and keys are text")
                if isinstance(inner, dict | list | tuple):
                    waiting.append(inner)
        else:
            waiting += [inner for inner in item if isinstance(inner, dict | list | tuple)]


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _reason(exc: Exception) -> str:
    if isinstance(exc, UnicodeEncodeError):
        return "it holds a lone surrogate"
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    return str(exc)
