"""bindings.gcp.bucket: its operations in the terms of the service."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.cloud import storage
from tests.backends.gcs import GcsBackend
from tests.backends.gcs_front import GcsFront, front_of

from lapel.bindings import BindingResponse, OutputBinding
from lapel.driver import DriverContext
from lapel.errors import (
    EtagMismatchError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from lapel_contrib.gcp.bucket import BucketBinding
from lapel_contrib.gcp.component_settings import BucketSettings
from lapel_contrib.gcp.upload import CHUNK_BYTES


def binding_at(endpoint: str, bucket: str, **fields: str) -> OutputBinding:
    given = {"projectID": "shop", "endpoint": endpoint, "bucket": bucket, **fields}
    settings = BucketSettings.parse(given, component="objects", driver="bindings.gcp.bucket")
    return OutputBinding(BucketBinding(settings, DriverContext(component="objects")))


@pytest.fixture
async def binding(gcs_front: GcsFront, gcs_bucket: str) -> AsyncIterator[OutputBinding]:
    async with binding_at(gcs_front.url, gcs_bucket) as binding:
        yield binding


def document(response: BindingResponse) -> Any:
    assert isinstance(response.data, bytes)
    return json.loads(response.data)


# create and get


async def test_create_answers_the_address_and_the_generation(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    response = await binding.invoke("create", b"x", metadata={"key": "a/b c"})
    assert document(response) == {"objectURL": f"https://storage.googleapis.com/{gcs_bucket}/a/b%20c"}
    found = gcs_server.attributes(gcs_bucket, "a/b c")
    assert response.metadata == {"key": "a/b c", "generation": found["generation"]}
    assert found["contentType"] == "application/octet-stream"


async def test_create_without_a_key_makes_one_up_and_replaces_nothing(
    gcs_front: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    response = await binding.invoke("create", b"x")
    assert gcs_server.names(gcs_bucket) == [response.metadata["key"]]
    (upload,) = gcs_front.requests("POST", "/upload/")
    assert upload.query["ifGenerationMatch"] == "0"


async def test_the_old_spelling_of_the_key_counts_first(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    await binding.invoke("create", b"x", metadata={"key": "new", "name": "old"})
    assert gcs_server.names(gcs_bucket) == ["old"]


@pytest.mark.parametrize("size", [0, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 5])
@pytest.mark.parametrize("streamed", [True, False])
async def test_content_of_any_length_arrives(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding, size: int, streamed: bool
) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]

    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, size, 1_000_003):
            yield data[start : start + 1_000_003]

    response = await binding.invoke("create", stream() if streamed else data, metadata={"key": "k"})
    assert gcs_server.content(gcs_bucket, "k") == data
    assert response.metadata["generation"] == gcs_server.attributes(gcs_bucket, "k")["generation"]
    assert (await binding.invoke("get", metadata={"key": "k"})).data == data


@pytest.mark.parametrize(
    ("fields", "metadata", "expected"),
    [
        ({"contentType": "text/css"}, {}, "text/css"),
        ({"contentType": "text/css"}, {"contentType": "image/png"}, "image/png"),
        ({}, {"contentType": "image/png"}, "image/png"),
    ],
)
@pytest.mark.parametrize("size", [1, CHUNK_BYTES + 1])
async def test_the_content_type_is_kept(
    gcs_server: GcsBackend,
    gcs_bucket: str,
    fields: dict[str, str],
    metadata: dict[str, str],
    expected: str,
    size: int,
) -> None:
    async with binding_at(gcs_server.endpoint, gcs_bucket, **fields) as binding:
        await binding.invoke("create", bytes(size), metadata={"key": "k", **metadata})
        assert gcs_server.attributes(gcs_bucket, "k")["contentType"] == expected
        assert (await binding.invoke("get", metadata={"key": "k"})).content_type == expected


@pytest.mark.parametrize("text", [b"aGVsbG8=", b'"aGVsbG8="', b"aGVs\r\nbG8="])
@pytest.mark.parametrize("where", ["component", "request"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_base64_is_decoded_where_asked_for(
    gcs_server: GcsBackend, gcs_bucket: str, text: bytes, where: str, streamed: bool
) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for number in range(len(text)):
            yield text[number : number + 1]

    fields = {"decodeBase64": "true"} if where == "component" else {}
    metadata = {"key": "k"} | ({"decodeBase64": "true"} if where == "request" else {})
    async with binding_at(gcs_server.endpoint, gcs_bucket, **fields) as binding:
        await binding.invoke("create", stream() if streamed else text, metadata=metadata)
        assert gcs_server.content(gcs_bucket, "k") == b"hello"
        if where == "component":
            await binding.invoke("create", text, metadata={"key": "k", "decodeBase64": "false"})
            assert gcs_server.content(gcs_bucket, "k") == text


@pytest.mark.parametrize("text", [b"no base64!", b"aGVsbG8", b"aGVsbG8=aGVs"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_what_is_not_base64_is_refused_and_nothing_stored(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding, text: bytes, streamed: bool
) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for number in range(len(text)):
            yield text[number : number + 1]

    with pytest.raises(InvalidArgumentError, match="base64"):
        await binding.invoke("create", stream() if streamed else text, metadata={"key": "k", "decodeBase64": "true"})
    assert gcs_server.names(gcs_bucket) == []


@pytest.mark.parametrize("size", [0, 1, 2, 3, 10_000, 700_001])
@pytest.mark.parametrize("where", ["component", "request"])
async def test_base64_is_encoded_where_asked_for(
    gcs_server: GcsBackend, gcs_bucket: str, size: int, where: str
) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    fields = {"encodeBase64": "true"} if where == "component" else {}
    metadata = {"key": "k"} | ({"encodeBase64": "1"} if where == "request" else {})
    async with binding_at(gcs_server.endpoint, gcs_bucket, **fields) as binding:
        await binding.invoke("create", data, metadata={"key": "k"})
        response = await binding.invoke("get", metadata=metadata)
        assert response.data == base64.b64encode(data)


async def test_compressed_content_comes_out_as_it_went_in(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    text = b"compress me " * 100_000
    path = f"/upload/storage/v1/b/{gcs_bucket}/o?uploadType=media&name=z&contentEncoding=gzip"
    gcs_server.call("POST", path, gzip.compress(text), "text/plain")
    assert (await binding.invoke("get", metadata={"key": "z"})).data == text


async def test_content_that_was_changed_on_the_way_is_an_error(
    gcs_front: GcsFront, gcs_bucket: str, binding: OutputBinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    await binding.invoke("create", b"right", metadata={"key": "k"})
    forward = gcs_front._forward

    def changed(seen: Any) -> Any:
        status, headers, body = forward(seen)
        return status, headers, body.replace(b"right", b"wrong")

    monkeypatch.setattr(gcs_front, "_forward", changed)
    with pytest.raises(UnavailableError, match="checksum"):
        await binding.invoke("get", metadata={"key": "k"})


async def test_the_key_of_another_is_not_escaped_from(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    for key in ("../x", "a?alt=json", "a#b", "%2e%2e%2fx", "/", "o/k?generation=1", "ü/☃"):
        await binding.invoke("create", key.encode(), metadata={"key": key})
        assert (await binding.invoke("get", metadata={"key": key})).data == key.encode()
        await binding.invoke("delete", metadata={"key": key})
    assert gcs_server.names(gcs_bucket) == []


# preconditions


async def test_one_of_those_who_create_the_same_object_wins(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    metadata = {"key": "race", "ifGenerationMatch": "0"}
    outcomes = await asyncio.gather(
        *(binding.invoke("create", str(number).encode(), metadata=metadata) for number in range(16)),
        return_exceptions=True,
    )
    winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, BindingResponse)]
    assert len(winners) == 1
    assert sum(isinstance(outcome, EtagMismatchError) for outcome in outcomes) == 15
    assert gcs_server.content(gcs_bucket, "race") == str(winners[0]).encode()


@pytest.mark.parametrize("operation", ["create", "get", "delete", "copy", "rename", "move"])
async def test_an_operation_for_another_generation_does_not_happen(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding, operation: str
) -> None:
    first = await binding.invoke("create", b"one", metadata={"key": "k"})
    second = await binding.invoke("create", b"two", metadata={"key": "k"})
    data = {"copy": {"destinationKey": "n"}, "rename": {"newName": "n"}, "move": {"destinationKey": "n"}}.get(operation)
    stale = {"key": "k", "ifGenerationMatch": first.metadata["generation"]}
    with pytest.raises(EtagMismatchError):
        await binding.invoke(operation, data or (b"three" if operation == "create" else None), metadata=stale)
    assert gcs_server.names(gcs_bucket) == ["k"]
    assert gcs_server.content(gcs_bucket, "k") == b"two"
    right = {"key": "k", "ifGenerationMatch": second.metadata["generation"]}
    await binding.invoke(operation, data or (b"three" if operation == "create" else None), metadata=right)


# what is refused


@pytest.mark.parametrize(
    ("operation", "data", "metadata", "named"),
    [
        ("get", None, {}, "key"),
        ("create", b"x", {"key": "x" * 1025}, "1024"),
        ("create", b"x", {"key": "a\nb"}, "line end"),
        ("create", b"x", {"key": ".."}, r"\.\."),
        ("create", b"x", {"key": "\ud800"}, "surrogate"),
        ("create", b"x", {"key": "k", "decodeBase64": "perhaps"}, "decodeBase64"),
        ("create", b"x", {"key": "k", "ifGenerationMatch": "-1"}, "ifGenerationMatch"),
        ("sign", None, {"key": "k"}, "signTTL"),
        ("sign", None, {"key": "k", "signTTL": "soon"}, "signTTL"),
        ("sign", None, {"key": "k", "signTTL": "169h"}, "signTTL"),
        ("sign", None, {"key": "k", "signTTL": "0"}, "signTTL"),
        ("list", b"[]", {}, "JSON object"),
        ("list", b"{", {}, "JSON object"),
        ("list", {"prefx": "a"}, {}, "prefx"),
        ("list", {"maxResults": "5"}, {}, "maxResults"),
        ("list", {"prefix": 5}, {}, "prefix"),
        ("copy", {}, {"key": "k"}, "destination"),
        ("move", {"destinationKey": "k"}, {"key": "k"}, "onto itself"),
        ("rename", {"newName": "k"}, {"key": "k"}, "onto itself"),
        ("rename", {}, {"key": "k"}, "newName"),
        ("rename", {"newName": "x" * 1025}, {"key": "k"}, "newName"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    gcs_front: GcsFront, binding: OutputBinding, operation: str, data: Any, metadata: dict[str, str], named: str
) -> None:
    before = len(gcs_front.seen)
    with pytest.raises(InvalidArgumentError, match=named):
        await binding.invoke(operation, data, metadata=metadata)
    assert len(gcs_front.seen) == before


# opening


async def test_the_emulator_of_the_environment_is_used(
    gcs_server: GcsBackend, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for written in (gcs_server.endpoint, gcs_server.endpoint.removeprefix("http://")):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", written)
        settings = BucketSettings.parse({"projectID": "shop", "bucket": gcs_bucket})
        async with OutputBinding(BucketBinding(settings, DriverContext(component="objects"))) as binding:
            await binding.invoke("create", b"x", metadata={"key": written})
    assert len(gcs_server.names(gcs_bucket)) == 2


async def test_an_identity_that_may_not_list_is_no_obstacle_but_one_that_is_unknown_is(gcs_server: GcsBackend) -> None:
    bucket = gcs_server.make_bucket("write-only")
    with front_of(gcs_server) as front:
        front.answer("GET", "/o$", 403)
        async with binding_at(front.url, bucket) as binding:
            await binding.invoke("create", b"x", metadata={"key": "k"})
        front.answer("GET", "/o$", 401)
        with pytest.raises(PermissionDeniedError, match="401"):
            await binding_at(front.url, bucket).open()


async def test_components_of_one_assembly_share_a_client(gcs_server: GcsBackend, gcs_bucket: str) -> None:
    other = gcs_server.make_bucket("other-bucket")
    context = DriverContext(component="one")
    drivers = [
        BucketBinding(BucketSettings.parse({**gcs_server.properties, "bucket": name}), context)
        for name in (gcs_bucket, other)
    ]
    for driver in drivers:
        await driver.open()
    assert drivers[0].unwrap(storage.Client) is drivers[1].unwrap(storage.Client)
    await drivers[0].close()
    with pytest.raises(LookupError):
        drivers[0].unwrap(storage.Client)
    await drivers[1].ping()
    await drivers[1].close()


async def test_errors_say_what_is_missing(binding: OutputBinding, gcs_bucket: str) -> None:
    for operation, data in (
        ("get", None),
        ("delete", None),
        ("copy", {"destinationKey": "n"}),
        ("rename", {"newName": "n"}),
        ("move", {"destinationKey": "n"}),
    ):
        with pytest.raises(NotFoundError, match=f"'missing' in bucket '{gcs_bucket}'"):
            await binding.invoke(operation, data, metadata={"key": "missing"})
