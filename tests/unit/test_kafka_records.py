"""Keys, headers, partitions and tombstones, as Dapr lays them out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from lapel.errors import InvalidArgumentError, UnsupportedError
from lapel_contrib.kafka.component_settings import KafkaPubSubSettings
from lapel_contrib.kafka.records import Outgoing, Reading, RecordMetadata, encode, partition_of


def out(data: Any = b"x", *, key: Any = None, content_type: Any = None, **metadata: str) -> Outgoing:
    return encode("t", data, key, content_type, metadata, exclude=None, limit=10_000)


def reading(**fields: str) -> Reading:
    settings = KafkaPubSubSettings.parse({"brokers": "b:1", "authType": "none", **fields})
    return Reading(settings.consumer_options())


def incoming(key: bytes | None = b"k", *headers: tuple[str, bytes]) -> ConsumerRecord:
    return ConsumerRecord("t", 3, 17, 1700000000123, 0, key, b"v", None, -1, 0, headers)


@pytest.mark.parametrize(
    ("key", "partitions", "expected"),
    # FNV-1a, 32 bits: 0x811c9dc5, 0xe40c292c and 0xbf9cf968 are negative as signed numbers, 0x6222e842 is not.
    [
        (b"", 7, 2128831035 % 7),
        (b"a", 7, 468965076 % 7),
        (b"foobar", 10, 1080231576 % 10),
        (b"fo", 10, 0x6222E842 % 10),
        # 0x050c5d7e is positive.
    ],
)
def test_a_key_goes_to_the_partition_of_its_hash(key: bytes, partitions: int, expected: int) -> None:
    everyone = list(range(partitions))
    assert partition_of(key, everyone[::-1], [0]) == expected


def test_without_a_key_all_available_partitions_are_used() -> None:
    assert {partition_of(None, [0, 1, 2, 3], [1, 2]) for _ in range(200)} == {1, 2}
    assert {partition_of(None, [0, 1], []) for _ in range(200)} == {0, 1}


@pytest.mark.parametrize(
    ("given", "metadata", "expected"),
    [
        ("own", {"partitionKey": "a", "__key": "b"}, b"own"),
        (None, {"partitionKey": "a", "__key": "b"}, b"a"),
        (None, {"__key": "b"}, b"b"),
        (None, {"PARTITIONKEY": "a"}, None),
    ],
)
def test_the_key_of_a_message(given: str | None, metadata: dict[str, str], expected: bytes | None) -> None:
    assert out(key=given, **metadata).key == expected


def test_every_pair_of_metadata_is_a_header() -> None:
    metadata = {"partitionKey": "k", "rawPayload": "true", "ttlInSeconds": "5", "own": "ü", "partitionNumber": "3"}
    record = out(**metadata)
    assert record.headers == [(name, text.encode()) for name, text in metadata.items()]
    assert record.partition == 3


def test_excluded_metadata_are_no_headers() -> None:
    record = encode(
        "t", b"x", None, None, {"x-secret": "1", "other": "2"}, exclude=re.compile("secret|zzz"), limit=10_000
    )
    assert record.headers == [("other", b"2")]


def test_a_raw_message_says_its_type_and_an_event_does_not() -> None:
    assert out(content_type="text/plain").headers == [("content-type", b"text/plain")]
    assert out(content_type="application/cloudevents+json").headers == []
    assert out(content_type="text/plain", **{"content-type": "own"}).headers == [("content-type", b"own")]


@pytest.mark.parametrize(
    ("data", "key", "value"), [(b"null", "k", None), (b"", "k", None), (b"", None, b""), (b"null", None, b"null")]
)
def test_tombstones_need_a_key(data: bytes, key: str | None, value: bytes | None) -> None:
    assert out(data, key=key).value == value


def test_the_partition_of_a_dead_letter_is_not_that_of_its_message() -> None:
    assert out(partitionNumber="7", **{"dead-letter-reason": "it failed"}).partition is None


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "", "99999999999", "\u0663"])
def test_a_partition_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="partitionNumber"):
        out(partitionNumber=text)


def test_avro_is_refused_by_name() -> None:
    for kind in ("Avro", "AVRO"):
        with pytest.raises(UnsupportedError, match="Avro"):
            out(valueSchemaType=kind)
    with pytest.raises(InvalidArgumentError, match="valueSchemaType"):
        out(valueSchemaType="XML")
    assert out(valueSchemaType="None").value == b"x"


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "a/b", "ä", "a" * 250])
def test_names_that_no_broker_takes_are_refused(topic: str) -> None:
    with pytest.raises(InvalidArgumentError, match="topic"):
        encode(topic, b"x", None, None, {}, exclude=None, limit=10_000)


@pytest.mark.parametrize("big", [{"data": b"x" * 10_000}, {"key": "k" * 10_000}, {"own": "v" * 10_000}])
def test_what_is_too_large_is_refused(big: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="maxMessageBytes"):
        out(**big)


def test_received_metadata() -> None:
    headers = (("a", b"1"), ("b", b"\xff"), ("a", b"2"), ("empty", b""))
    found: Mapping[str, str] = RecordMetadata(incoming(b"k", *headers), reading())
    assert dict(found) == {
        "__key": "k",
        "__offset": "17",
        "__topic": "t",
        "__timestamp": "1700000000123",
        "__partition": "3",
        "a": "2",
        "b": "\ufffd",
        "empty": "",
    }
    assert len(found) == 8
    assert found.get("nothing") is None
    assert "__key" not in RecordMetadata(incoming(None), reading())


def test_headers_can_be_escaped_and_excluded() -> None:
    record = incoming(b"a b", ("x", b"\xff&"), ("hidden", b"1"))
    found = RecordMetadata(record, reading(escapeHeaders="true", excludeHeaderMetaRegex="^hid"))
    assert (found["__key"], found["x"]) == ("a+b", "%FF%26")
    assert "hidden" not in found
