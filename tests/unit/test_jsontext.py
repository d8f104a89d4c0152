"""JSON keeps every value as it was, or says why it cannot."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapel.errors import InvalidArgumentError
from lapel.jsontext import decode_json, encode_value, is_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@dataclasses.dataclass
class Order:
    number: int
    lines: dict[int, str]


class Point(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    at: datetime


@given(VALUES)
def test_json_values_survive_exactly(value: Any) -> None:
    data, content_type = encode_value(value, None)
    assert content_type == "application/json"
    assert repr(decode_json(data)) == repr(value)
    assert json.loads(data) == value


@given(st.binary())
def test_bytes_stay_as_they_are(value: bytes) -> None:
    for kind in (bytes, bytearray, memoryview):
        assert encode_value(kind(value), "image/png") == (value, "image/png")
        assert encode_value(kind(value), None) == (value, None)


def test_text_is_a_json_string_unless_its_content_type_says_otherwise() -> None:
    assert encode_value("é", None) == ('"é"'.encode(), "application/json")
    assert encode_value("é", "application/json; charset=utf-8") == ('"é"'.encode(), "application/json; charset=utf-8")
    assert encode_value("é", "text/plain") == ("é".encode(), "text/plain")


def test_objects_of_the_usual_libraries_come_back_as_themselves() -> None:
    moment = datetime(2024, 5, 17, 12, tzinfo=UTC)
    for value in (Order(1, {7: "seven"}), Point(3), Model(at=moment)):
        data, _ = encode_value(value, None)
        assert decode_json(data, type(value)) == value
        assert decode_json(encode_value([value], None)[0], list[Any]) == [decode_json(data)]
    assert encode_value({"a": 1, "b": [True, None]}, None)[0] == b'{"a":1,"b":[true,null]}'


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "not JSON compliant"),
        ([float("inf")], "not JSON compliant"),
        ("\ud800", "lone surrogate"),
        ({"a": ["\udfff"]}, "lone surrogate"),
        ({1: "a"}, "key of type int"),
        ([{"a": ({None: 1},)}], "key of type NoneType"),
        ({(1, 2): "a"}, "keys must be"),
        (object(), "object"),
        ({"a": {1, object()}}, "object"),
    ],
)
def test_values_that_json_cannot_hold_are_refused(value: Any, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        encode_value(value, None)


def test_endless_and_very_deep_values_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep):
        with pytest.raises(InvalidArgumentError):
            encode_value(value, None)


def test_a_value_and_a_content_type_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="text/plain"):
        encode_value({"a": 1}, "text/plain")


@pytest.mark.parametrize(
    "data",
    [b"", b"nothing", b"NaN", b"[Infinity]", b"-Infinity", b'"\xff"', b"{} {}", b"[" * 200_000, b"\xef\xbb\xbf1"],
)
def test_what_is_not_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # every subclass keeps the promise
        decode_json(data)


@pytest.mark.parametrize("kind", [Point, Model, list[int]])
def test_json_that_does_not_fit_is_a_value_error(kind: Any) -> None:
    for data in (b'{"x": "text"}', b"nothing"):
        with pytest.raises(ValueError):  # noqa: PT011  # every subclass keeps the promise
            decode_json(data, kind)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        (" Application/JSON ; charset=utf-8", True),
        ("application/cloudevents+json", False),
        ("application/jsonp", False),
        ("", False),
        (None, False),
    ],
)
def test_json_is_recognised_whatever_its_case_and_parameters(content_type: str | None, expected: bool) -> None:
    assert is_json(content_type) == expected
