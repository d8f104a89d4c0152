"""S3 in trouble: throttling, uploads that break in the middle, cut replies, and objects larger than memory."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.backends.aws import AwsBackend
from tests.backends.aws_proxy import AwsProxy, Reply, Request, xml_error
from tests.conformance.aws_subject import client

import lapel
from lapel.bindings import OutputBinding
from lapel.errors import LapelError, NotFoundError, OutcomeUnknownError, ThrottledError, UnavailableError
from lapel_contrib.aws.s3_requests import as_json
from lapel_contrib.aws.s3_transfer import LISTED

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

MIB = 1024 * 1024


@pytest.fixture
def bucket(aws_server: AwsBackend) -> str:
    name = f"faults-{uuid4().hex[:12]}"
    client(aws_server, "s3").create_bucket(Bucket=name)
    return name


@asynccontextmanager
async def opened(server: AwsBackend, url: str, bucket: str) -> AsyncIterator[OutputBinding]:
    settings = {**server.properties, "endpoint": url, "bucket": bucket, "forcePathStyle": "true"}
    half_minute = timedelta(seconds=30)
    async with lapel.open_output_binding(
        "aws.s3", settings, init_timeout=half_minute, call_timeout=half_minute
    ) as binding:
        yield binding


async def stream(parts: int, error: Exception | None = None) -> AsyncIterator[bytes]:
    for _ in range(parts):
        yield b"x" * MIB
    if error is not None:
        raise error


def found(server: AwsBackend, bucket: str) -> tuple[list[str], list[str]]:
    """Return the keys in a bucket, and those of uploads that are not complete."""
    s3 = client(server, "s3")
    objects = s3.list_objects_v2(Bucket=bucket).get("Contents") or []
    uploads = s3.list_multipart_uploads(Bucket=bucket).get("Uploads") or []
    return [each["Key"] for each in objects], [each["Key"] for each in uploads]


@pytest.mark.parametrize("parts", [3, 12])
async def test_a_stream_that_breaks_leaves_no_object(
    aws_server: AwsBackend, aws_proxy: AwsProxy, bucket: str, parts: int
) -> None:
    async with opened(aws_server, aws_proxy.url, bucket) as binding:
        with pytest.raises(ZeroDivisionError):
            await binding.invoke("create", stream(parts, ZeroDivisionError()), metadata={"key": "half"})
    assert await asyncio.to_thread(found, aws_server, bucket) == ([], [])


async def test_a_cancelled_upload_leaves_no_object(aws_server: AwsBackend, aws_proxy: AwsProxy, bucket: str) -> None:
    stopped = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for number in range(1000):
            if number == 12:
                stopped.set()
                await asyncio.Event().wait()
            yield b"x" * MIB

    async with opened(aws_server, aws_proxy.url, bucket) as binding:
        upload = asyncio.create_task(binding.invoke("create", endless(), metadata={"key": "half"}))
        await stopped.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
    assert await asyncio.to_thread(found, aws_server, bucket) == ([], [])


async def test_an_upload_whose_connection_breaks_leaves_the_object_that_was_there(
    aws_server: AwsBackend, aws_proxy: AwsProxy, bucket: str
) -> None:
    async with opened(aws_server, aws_proxy.url, bucket) as binding:
        await binding.invoke("create", b"before", metadata={"key": "kept"})

        def rule(request: Request) -> Reply | None:
            return Reply(cut=True) if request.query.get("partNumber") == "2" else None

        aws_proxy.rule = rule
        with pytest.raises(UnavailableError):
            await binding.invoke("create", stream(12), metadata={"key": "kept"})
        assert await (await binding.invoke("get", metadata={"key": "kept"})).read() == b"before"
    assert await asyncio.to_thread(found, aws_server, bucket) == (["kept"], [])


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (xml_error("SlowDown", 503), ThrottledError),
        (xml_error("InternalError", 500), OutcomeUnknownError),
        (Reply(cut=True), OutcomeUnknownError),
        (Reply(lose=True), OutcomeUnknownError),
    ],
    ids=["throttled", "failed", "cut", "reply lost"],
)
async def test_an_object_is_sent_once_whatever_the_service_answers(
    aws_server: AwsBackend, aws_proxy: AwsProxy, bucket: str, reply: Reply, error: type[LapelError]
) -> None:
    operation = f"PUT /{bucket}/once"
    async with opened(aws_server, aws_proxy.url, bucket) as binding:
        aws_proxy.first(operation, 1, reply)
        with pytest.raises(LapelError) as caught:
            await binding.invoke("create", b"x", metadata={"key": "once"})
    assert type(caught.value) is error
    assert len(aws_proxy.of(operation)) == 1


@pytest.mark.parametrize(
    "reply", [xml_error("SlowDown", 503), xml_error("InternalError", 500), Reply(cut=True)], ids=["slow", "500", "cut"]
)
async def test_reads_are_repeated_within_the_deadline(
    aws_server: AwsBackend, aws_proxy: AwsProxy, bucket: str, reply: Reply
) -> None:
    operation = f"GET /{bucket}/there"
    async with opened(aws_server, aws_proxy.url, bucket) as binding:
        await binding.invoke("create", b"x", metadata={"key": "there"})
        aws_proxy.first(operation, 2, reply)
        assert await (await binding.invoke("get", metadata={"key": "there"})).read() == b"x"
    assert len(aws_proxy.of(operation)) == 3


async def test_the_fields_of_a_request_reach_the_service(
    aws_server: AwsBackend, aws_proxy: AwsProxy, bucket: str, tmp_path: Path
) -> None:
    file = tmp_path / "content"
    await asyncio.to_thread(file.write_bytes, b"from a file")
    metadata = {
        "key": "a/b c",
        "Content-Type": "text/x-own",
        "tags": "team=red, cost=1",
        "storageClass": "GLACIER_IR",
        "filePath": str(file),
        "presignTTL": "90s",
    }
    async with opened(aws_server, aws_proxy.url, bucket) as binding:
        reply = json.loads(await (await binding.invoke("create", metadata=metadata)).read())
        assert "X-Amz-Expires=90" in reply["presignURL"]
        got = await binding.invoke("get", metadata={"key": "a/b c", "encodeBase64": "true"})
        assert (await got.read(), got.content_type) == (b"ZnJvbSBhIGZpbGU=", "text/x-own")
        await binding.invoke("create", b"aGk=\n", metadata={"key": "plain", "decodeBase64": "true"})
        assert await (await binding.invoke("get", metadata={"key": "plain"})).read() == b"hi"
        document = {"prefix": "a/", "delimiter": "/", "maxResults": 5, "marker": "a"}
        listed = json.loads(await (await binding.invoke("list", document)).read())
        assert [each["Key"] for each in listed["Contents"]] == ["a/b c"]
        items = {"items": [{"key": "plain"}, {"key": "missing"}], "concurrency": 2}
        both = json.loads(await (await binding.invoke("bulkGet", items)).read())
        assert both[0] == {"key": "plain", "data": "hi"}
        assert both[1]["error"]
        made = {"items": [{"key": "n", "data": {"a": 1}, "contentType": "application/json"}, {"key": "no"}]}
        created = json.loads(await (await binding.invoke("bulkCreate", made)).read())
        assert [sorted(each) for each in created] == [["key", "location"], ["error", "key"]]
        assert await (await binding.invoke("get", metadata={"key": "n"})).read() == b'{"a":1}'
        gone = json.loads(await (await binding.invoke("bulkDelete", {"keys": ["n", "plain"]})).read())
        assert gone == [{"key": "n"}, {"key": "plain"}]
        with pytest.raises(NotFoundError):
            await binding.invoke("get", metadata={"key": "n"})
    put = aws_proxy.of(f"PUT /{bucket}/a/b%20c")[0]
    assert put.headers["content-type"] == "text/x-own"
    assert put.headers["x-amz-storage-class"] == "GLACIER_IR"
    assert put.headers["x-amz-tagging"] == "team=red&cost=1"
    asked = next(request.query for request in aws_proxy.requests if "max-keys" in request.query)
    assert (asked["prefix"], asked["delimiter"], asked["max-keys"], asked["marker"]) == ("a/", "/", "5", "a")


@pytest.mark.parametrize("data", [None, b"", b"null", b'""'])
async def test_a_file_is_stored_where_the_data_say_that_there_are_none(
    aws_server: AwsBackend, aws_proxy: AwsProxy, bucket: str, tmp_path: Path, data: bytes | None
) -> None:
    file = tmp_path / "content"
    await asyncio.to_thread(file.write_bytes, b"from a file")
    async with opened(aws_server, aws_proxy.url, bucket) as binding:
        await binding.invoke("create", data, metadata={"key": "k", "filePath": str(file)})
        assert await (await binding.invoke("get", metadata={"key": "k"})).read() == b"from a file"
        await binding.invoke("create", b'"aGk="', metadata={"key": "k", "decodeBase64": "true"})
        assert await (await binding.invoke("get", metadata={"key": "k"})).read() == b"hi"


async def test_a_long_listing_is_what_one_request_would_have_brought(
    aws_server: AwsBackend, aws_proxy: AwsProxy, bucket: str
) -> None:
    s3 = client(aws_server, "s3")

    def fill() -> None:
        for number in range(LISTED * 2 + 10):
            s3.put_object(Bucket=bucket, Key=f"a/{number:04}" if number % 3 else f"b{number:04}/x", Body=b"x")

    def expected(**arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = s3.list_objects(Bucket=bucket, **arguments)
        del found["ResponseMetadata"]
        return found

    await asyncio.to_thread(fill)
    documents: list[dict[str, Any]] = [
        {},
        {"maxResults": LISTED * 2},
        {"maxResults": LISTED + 1, "prefix": "a/"},
        {"maxResults": LISTED, "marker": "a/0050"},
        {"delimiter": "/"},
        {"prefix": "nothing"},
    ]
    async with opened(aws_server, aws_proxy.url, bucket) as binding:
        for document in documents:
            names = {"maxResults": "MaxKeys", "prefix": "Prefix", "marker": "Marker", "delimiter": "Delimiter"}
            whole = await asyncio.to_thread(expected, **{names[name]: value for name, value in document.items()})
            listed = json.loads(await (await binding.invoke("list", document)).read())
            assert listed == json.loads(as_json(whole)), document
    asked = [int(request.query["max-keys"]) for request in aws_proxy.requests if "max-keys" in request.query]
    assert max(asked) == LISTED
    assert len(asked) > len(documents)


async def test_an_object_of_100_mib_takes_less_than_40_mib_of_memory(aws_server: AwsBackend, bucket: str) -> None:
    settings = json.dumps({**aws_server.properties, "bucket": bucket, "forcePathStyle": "true"})
    program = Path(__file__).with_name("s3_memory.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), settings, "100", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    measured = json.loads(output)
    assert measured["same"]
    assert measured["down"] < 40 * 1024, measured
