"""bindings.gcp.bucket: listings, objects in bulk and signed URLs."""

from __future__ import annotations

import asyncio
import base64
import urllib.request
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud.storage import _signing
from tests.backends.gcs import GcsBackend
from tests.backends.gcs_front import GcsFront
from tests.unit.test_gcp_bucket import binding_at, document
from tests.unit.test_gcp_settings import ACCOUNT

from lapel.bindings import OutputBinding
from lapel.errors import UnsupportedError
from lapel_contrib.gcp.bucket import BucketBinding


@pytest.fixture
async def binding(gcs_front: GcsFront, gcs_bucket: str) -> AsyncIterator[OutputBinding]:
    async with binding_at(gcs_front.url, gcs_bucket) as binding:
        yield binding


def read_url(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as reply:
        found: bytes = reply.read()
        return found


# list and bulkGet


async def test_a_listing_has_the_names_that_go_gives(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    for key in ("a/1", "a/2", "b", "a/c/3"):
        await binding.invoke("create", key.encode(), metadata={"key": key, "contentType": "text/plain"})
    (found,) = document(await binding.invoke("list", {"prefix": "b"}))
    known = gcs_server.attributes(gcs_bucket, "b")
    assert (found["Bucket"], found["Name"], found["Size"]) == (gcs_bucket, "b", 1)
    assert (found["ContentType"], found["MD5"]) == ("text/plain", known["md5Hash"])
    assert found["CRC32C"] == int.from_bytes(base64.b64decode(known["crc32c"]), "big")
    assert (found["Generation"], found["Metageneration"]) == (int(known["generation"]), 1)
    assert found["Created"][:19] == known["timeCreated"][:19]
    assert found["Created"].endswith("Z")
    assert (found["Deleted"], found["Metadata"], found["ACL"]) == ("0001-01-01T00:00:00Z", None, None)
    below = document(await binding.invoke("list", {"PREFIX": "a/", "delimiter": "/"}))
    assert [each["Name"] or each["Prefix"] for each in below] == ["a/1", "a/2", "a/c/"]
    assert document(await binding.invoke("list", {"prefix": "none"})) == []
    assert len(document(await binding.invoke("list", {"maxResults": 2}))) == 2


def page(names: list[str], token: str | None) -> dict[str, Any]:
    items = [{"name": name, "bucket": "b", "generation": "1", "size": "1"} for name in names]
    return {"kind": "storage#objects", "items": items} | ({"nextPageToken": token} if token else {})


@pytest.mark.parametrize(
    ("asked", "expected", "sizes"),
    [
        ({}, ["a", "b", "c", "d"], ["1000", "1000", "1000"]),
        ({"maxResults": 4}, ["a", "b", "c", "d"], ["4", "4", "4"]),
        ({"maxResults": 3}, ["a", "b", "c"], ["3", "3", "3"]),
        ({"maxResults": 2}, ["a", "b"], ["2"]),
    ],
)
async def test_pages_are_followed_as_far_as_asked(
    gcs_front: GcsFront,
    binding: OutputBinding,
    gcs_bucket: str,
    asked: dict[str, int],
    expected: list[str],
    sizes: list[str],
) -> None:
    path = f"/storage/v1/b/{gcs_bucket}/o$"
    before = len(gcs_front.requests("GET", path))
    for names, token in ((["a", "b"], "2"), ([], "3"), (["c", "d"], None)):
        gcs_front.answer("GET", path, 200, page(names, token))
    response = await binding.invoke("list", asked)
    assert [each["Name"] for each in document(response)] == expected
    requests = gcs_front.requests("GET", path)[before:]
    assert [each.query["maxResults"] for each in requests] == sizes
    assert [each.query.get("pageToken") for each in requests] == [None, "2", "3"][: len(sizes)]


async def test_bulk_get_has_every_object_whole(binding: OutputBinding) -> None:
    objects = {f"{number:02}": bytes([number]) * (number * 40_000) for number in range(20)}
    for key, data in objects.items():
        await binding.invoke("create", data, metadata={"key": key})
    found = document(await binding.invoke("bulkGet"))
    assert {each["name"]: base64.b64decode(each["data"]) for each in found} == objects
    assert [each["name"] for each in found] == sorted(objects)
    assert [each["attrs"]["Size"] for each in found] == [len(data) for data in objects.values()]
    (twice,) = document(await binding.invoke("bulkGet", {"prefix": "05"}, metadata={"encodeBase64": "true"}))
    assert base64.b64decode(base64.b64decode(twice["data"])) == objects["05"]
    assert document(await binding.invoke("bulkGet", {"prefix": "none"})) == []


async def test_bulk_get_shows_one_generation_of_what_is_replaced_and_leaves_out_what_is_deleted(
    gcs_front: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    for key in ("kept", "replaced", "deleted"):
        await binding.invoke("create", b"old", metadata={"key": key})

    def interfere(_: object) -> None:
        path = f"/upload/storage/v1/b/{gcs_bucket}/o?uploadType=media&name=replaced"
        gcs_server.call("POST", path, b"newer", "text/plain")
        gcs_server.call("DELETE", f"/storage/v1/b/{gcs_bucket}/o/deleted")

    gcs_front.before("GET", "/download/.*/deleted", interfere)
    found = {each["name"]: each for each in document(await binding.invoke("bulkGet"))}
    assert "deleted" not in found
    data = base64.b64decode(found["replaced"]["data"])
    assert found["replaced"]["attrs"]["Size"] == len(data)
    assert data in (b"old", b"newer")


async def test_a_listing_or_bulk_that_is_given_up_leaves_nothing(binding: OutputBinding) -> None:
    for number in range(20):
        await binding.invoke("create", bytes(600_000), metadata={"key": f"{number}"})
    response = await binding.invoke("bulkGet", stream=True)
    assert isinstance(response.data, AsyncIterator)
    await anext(response.data)
    await response.aclose()
    assert (await binding.invoke("get", metadata={"key": "1"})).data == bytes(600_000)


# signed URLs


async def test_a_signed_url_is_one_of_version_four_and_can_be_read(gcs_server: GcsBackend, gcs_bucket: str) -> None:
    async with binding_at(gcs_server.endpoint, gcs_bucket, **ACCOUNT, signTTL="2m") as binding:
        await binding.invoke("create", b"signed", metadata={"key": "a b"})
        url = document(await binding.invoke("sign", metadata={"key": "a b", "signTTL": "90s"}))["signURL"]
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert query["X-Goog-Algorithm"] == "GOOG4-RSA-SHA256"
        assert query["X-Goog-Expires"] == "90"
        assert query["X-Goog-Credential"].startswith(ACCOUNT["clientEmail"])
        assert url.startswith(f"{gcs_server.endpoint}/{gcs_bucket}/a%20b?")
        assert await asyncio.to_thread(read_url, url) == b"signed"
        by_field = document(await binding.invoke("sign", metadata={"key": "a b"}))["signURL"]
        assert "X-Goog-Expires=120&" in by_field


async def test_nothing_is_signed_without_a_key(binding: OutputBinding) -> None:
    with pytest.raises(UnsupportedError, match="privateKeyID"):
        await binding.invoke("sign", metadata={"key": "k", "signTTL": "1m"})


class WorkloadIdentity(Credentials):
    """An identity without a key, as a machine or a workload in Google Cloud has it."""

    service_account_email = "workload@shop.iam.gserviceaccount.com"

    def refresh(self, request: Any) -> None:
        self.token = "fresh"


async def test_an_identity_without_a_key_has_the_iam_service_sign(
    binding: OutputBinding, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def sign(text: str, token: str, email: str, *_: Any) -> str:
        asked.append((text.splitlines()[0], token, email))
        return base64.b64encode(b"signature").decode()

    monkeypatch.setattr(_signing, "_sign_message", sign)
    driver = binding.driver
    assert isinstance(driver, BucketBinding)
    monkeypatch.setattr(driver._opened().identity, "signer", WorkloadIdentity())  # type: ignore[no-untyped-call]
    url = document(await binding.invoke("sign", metadata={"key": "k", "signTTL": "1m"}))["signURL"]
    assert asked == [("GOOG4-RSA-SHA256", "fresh", WorkloadIdentity.service_account_email)]
    assert f"X-Goog-Signature={b'signature'.hex()}" in url
    monkeypatch.setattr(driver._opened().identity, "signer", AnonymousCredentials())
    with pytest.raises(UnsupportedError, match="service account"):
        await binding.invoke("sign", metadata={"key": "k", "signTTL": "1m"})
