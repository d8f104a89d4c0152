"""Records of Kafka, as Dapr lays them out: keys, headers, partitions, and what of them handlers see."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote_plus

import msgspec
from aiokafka.structs import ConsumerRecord

from lapel.errors import InvalidArgumentError, UnsupportedError
from lapel.pubsub.cloudevents import CLOUD_EVENT_CONTENT_TYPE
from lapel.pubsub.message import DEAD_LETTER_REASON

from .options import ConsumerOptions

__all__ = [
    "CONTENT_TYPE",
    "NULL",
    "Outgoing",
    "Reading",
    "RecordMetadata",
    "check_schema",
    "check_topic",
    "content_type_of",
    "encode",
    "partition_of",
]

CONTENT_TYPE: Final = "content-type"
"""The header of raw messages, as in CloudEvents' binding for Kafka. Events in an envelope go without."""
OVERHEAD: Final = 128
"""Bytes around a record and its batch, at most."""
NULL: Final = b"null"
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_NO_METADATA: Mapping[str, str] = {}
_MOST_KNOWN: Final = 10_000
_known_topics: set[str] = set()
"""Topics whose names were looked at before."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One record to send. `partition` None leaves the choice to `partition_of`; `value` None is a tombstone."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int | None


def encode(
    topic: str,
    data: bytes,
    key: str | None,
    content_type: str | None,
    metadata: Mapping[str, str],
    *,
    exclude: re.Pattern[str] | None,
    limit: int,
) -> Outgoing:
    """Build a record. Every pair of `metadata` becomes a header unless `exclude` matches its name.

    `partitionKey` or `__key` is the key where `key` is None, `partitionNumber` the partition. The text `null`, and no
    data under a key, make a tombstone. Raises `InvalidArgumentError` for what no broker takes, and `UnsupportedError`
    for Avro.
    """
    if topic not in _known_topics:
        check_topic(topic)
        if len(_known_topics) < _MOST_KNOWN:
            _known_topics.add(topic)
    headers: list[tuple[str, bytes]] = []
    size = len(data)
    partition: int | None = None
    if metadata:
        if key is None:
            key = metadata.get("partitionKey") or metadata.get("__key") or None
        # The partition of a dead letter is that of the topic it came from.
        if "partitionNumber" in metadata and DEAD_LETTER_REASON not in metadata:
            partition = _partition_number(metadata["partitionNumber"])
        check_schema(metadata.get("valueSchemaType"))
        for name, text in metadata.items():
            if exclude is None or exclude.search(name) is None:
                value = text.encode()
                headers.append((name, value))
                size += 2 * len(name) + len(value) + 8
    if content_type is not None and content_type != CLOUD_EVENT_CONTENT_TYPE and CONTENT_TYPE not in metadata:
        headers.append((CONTENT_TYPE, content_type.encode()))
        size += 64
    raw_key = None if key is None else key.encode()
    if raw_key is not None:
        size += len(raw_key)
    if size > limit - OVERHEAD:
        raise InvalidArgumentError(
            f"a message of {size} bytes with key and headers is over maxMessageBytes, which is {limit}"
        )
    # The client cannot send a record with neither key nor value; receivers see `null` for both forms of it.
    tombstone = (data == NULL or not data) and raw_key is not None
    return Outgoing(topic, raw_key, None if tombstone else data, headers, partition)


def check_topic(topic: str) -> None:
    """Raise `InvalidArgumentError` unless Kafka takes this name."""
    if _TOPIC.fullmatch(topic) is None or topic in (".", ".."):
        raise InvalidArgumentError(
            f"{topic!r} is no name of a Kafka topic: at most 249 letters, digits, dots, underscores and hyphens"
        )


def partition_of(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
    """Choose a partition: by the key's FNV-1a hash as a signed 32-bit number, without its sign; at random without key.

    This is where Dapr, and librdkafka's `fnv1a_random`, put the same key; other clients by default do not.
    """
    if key is None:
        found = available or partitions
        return found[0] if len(found) == 1 else random.choice(found)  # noqa: S311 - spreads load
    if len(partitions) == 1:
        return partitions[0]
    return sorted(partitions)[abs(_hash(key)) % len(partitions)]


@functools.lru_cache(maxsize=4096)
def _hash(key: bytes) -> int:
    value = 0x811C9DC5
    for byte in key:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def _partition_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidArgumentError(f"metadata partitionNumber must be a whole number from 0, got {text!r}")
    return int(text)


def check_schema(kind: str | None) -> None:
    """Raise `UnsupportedError` for the metadata `valueSchemaType: Avro`, `InvalidArgumentError` for unknown ones."""
    if kind is None or kind.lower() in ("", "none"):
        return
    if kind.lower() == "avro":
        raise UnsupportedError("metadata valueSchemaType: Avro is not supported; publish encoded bytes as rawPayload")
    raise InvalidArgumentError(f"metadata valueSchemaType must be None, got {kind!r}")


class Reading:
    """How records are shown to handlers, as the settings have it."""

    __slots__ = ("_escape", "_exclude")

    def __init__(self, options: ConsumerOptions) -> None:
        self._escape = options.escape_headers
        self._exclude = options.exclude_headers

    def metadata(self, record: ConsumerRecord) -> dict[str, str]:
        """Return key, offset, topic, time and partition, and the headers; the last of several with one name wins."""
        found: dict[str, str] = {}
        if record.key is not None:
            found["__key"] = self._text(record.key)
        found["__offset"] = str(record.offset)
        found["__topic"] = record.topic
        found["__timestamp"] = str(record.timestamp)
        found["__partition"] = str(record.partition)
        exclude = self._exclude
        for name, value in record.headers:
            if exclude is None or exclude.search(name) is None:
                found[name] = self._text(value or b"")
        return found

    def _text(self, value: bytes) -> str:
        return quote_plus(value) if self._escape else value.decode("utf-8", "replace")


class RecordMetadata(Mapping[str, str]):
    """The metadata of a record, made when it is first looked at: most handlers never do."""

    __slots__ = ("_found", "_reading", "_record")

    def __init__(self, record: ConsumerRecord, reading: Reading) -> None:
        self._record: ConsumerRecord | None = record
        self._reading = reading
        self._found = _NO_METADATA

    def _all(self) -> Mapping[str, str]:
        if self._record is not None:
            self._found, self._record = self._reading.metadata(self._record), None
        return self._found

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"RecordMetadata({dict(self._all())!r})"


def content_type_of(record: ConsumerRecord) -> str | None:
    """Return what the header of a record says of its value."""
    for name, value in record.headers:
        if name.lower() == CONTENT_TYPE and value:
            text: str = value.decode("utf-8", "replace")
            return text
    return None
