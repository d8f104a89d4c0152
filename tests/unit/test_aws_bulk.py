"""Operations of the S3 binding on many objects: each item for itself, and replies in pieces."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from lapel.errors import LapelError, UnavailableError
from lapel_contrib.aws.s3_bulk import LARGEST_REPLY, bulk_delete, bulk_get
from lapel_contrib.aws.s3_transfer import CHUNK, SMALL, Bucket, decode_base64


class Broken(bytes):
    """Content whose stream breaks off at its end."""


class Objects:
    """A bucket in memory. Objects of `claimed` bytes are empty, for nobody is to read them."""

    def __init__(self, objects: dict[str, bytes], claimed: dict[str, int] | None = None) -> None:
        self._objects = objects
        self._claimed = claimed or {}
        self.closed: list[str] = []
        self.deleted: list[str] = []

    async def get(self, key: str) -> tuple[bytes | AsyncIterator[bytes], dict[str, Any]]:
        content = self._objects.get(key, b"")
        size = self._claimed.get(key, len(content))
        return (self._stream(key, content) if size > SMALL else content), {"ContentLength": size}

    async def _stream(self, key: str, content: bytes) -> AsyncIterator[bytes]:
        try:
            # Chunks that cut characters, and that three does not divide.
            for start in range(0, len(content), CHUNK - 1):
                yield content[start : start + CHUNK - 1]
            if isinstance(content, Broken):
                raise UnavailableError("cut")
        finally:
            self.closed.append(key)

    async def delete_many(self, keys: list[str]) -> dict[str, LapelError]:
        self.deleted += keys
        return {key: UnavailableError("later") for key in keys if key == "later"}


async def got(objects: Objects, *keys: str, encode: bool = False) -> list[dict[str, str]]:
    document = json.dumps({"items": [{"key": key} for key in keys], "concurrency": 1}).encode()
    reply = await bulk_get(cast("Bucket", objects), document, encode=encode)
    found: list[dict[str, str]] = json.loads(
        reply if isinstance(reply, bytes) else b"".join([piece async for piece in reply])
    )
    return found


async def test_an_object_too_large_for_the_reply_takes_no_room_from_the_others() -> None:
    half = bytes(LARGEST_REPLY // 2 + 1)
    objects = Objects({"a": b"abc", "half": b"", "b": b"abc"}, {"big": LARGEST_REPLY + 1, "half": len(half)})
    big, first, part, again, last = await got(objects, "big", "a", "half", "half", "b")
    assert "filePath" in big["error"]
    assert first == {"key": "a", "data": "abc"}
    assert part == {"key": "half", "data": ""}
    assert "filePath" in again["error"]
    assert last == {"key": "b", "data": "abc"}
    assert objects.closed == ["half"]


async def test_an_object_that_breaks_off_takes_no_room_either() -> None:
    objects = Objects({"cut": Broken(b""), "whole": b""}, {"cut": LARGEST_REPLY, "whole": LARGEST_REPLY})
    cut, whole = await got(objects, "cut", "whole")
    assert "cut" in cut["error"]
    assert whole == {"key": "whole", "data": ""}


@pytest.mark.parametrize("encode", [False, True])
@pytest.mark.parametrize(
    "content",
    ['é\n\U0001f600\x00"\\' * 50_000, "plain", "", b"\xff" * 3, b"x" * 400_001 + b"\xc3", b"\xc3\x28" * 200_000],
    ids=["long text", "short", "empty", "binary", "cut character", "long binary"],
)
async def test_content_is_text_or_base64_however_long_it_is(content: str | bytes, encode: bool) -> None:
    data = content.encode() if isinstance(content, str) else content
    expected = content if isinstance(content, str) and not encode else base64.b64encode(data).decode()
    found = await got(Objects({"k": data, "other": b"1"}), "k", "other", encode=encode)
    assert found[0] == {"key": "k", "data": expected}
    assert found[1]["key"] == "other"


async def test_a_long_reply_is_a_stream_of_short_pieces() -> None:
    objects = Objects({"k": b"x" * (4 * SMALL)})
    reply = await bulk_get(cast("Bucket", objects), b'{"items": [{"key": "k"}]}', encode=False)
    assert not isinstance(reply, bytes)
    pieces = [piece async for piece in reply]
    assert max(map(len, pieces)) <= CHUNK
    assert json.loads(b"".join(pieces)) == [{"key": "k", "data": "x" * (4 * SMALL)}]


async def test_nothing_asked_for_is_an_empty_list() -> None:
    assert await got(Objects({})) == []


async def test_keys_that_cannot_be_deleted_fail_alone() -> None:
    objects = Objects({})
    keys = ["a", "", "x" * 1025, "\x01", "later", "b"]
    found = await bulk_delete(cast("Bucket", objects), json.dumps({"keys": keys}).encode())
    assert [each["key"] for each in found] == keys
    assert ["error" in each for each in found] == [False, True, True, True, True, False]
    assert objects.deleted == ["a", "later", "b"]


async def test_when_no_key_can_be_deleted_nothing_is_sent() -> None:
    objects = Objects({})
    (found,) = await bulk_delete(cast("Bucket", objects), b'{"keys": [""]}')
    assert "error" in found
    assert objects.deleted == []


@pytest.mark.parametrize("chunks", [[b'"aGVsbG8="'], [b'"aGVs', b"bG8", b'="'], [b"aGVs\r\nbG8=\n"]])
async def test_base64_may_be_in_quotes_as_json_has_it(chunks: list[bytes]) -> None:
    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    assert b"".join([piece async for piece in decode_base64(source())]) == b"hello"
