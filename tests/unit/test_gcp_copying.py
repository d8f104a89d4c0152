"""Objects copied, renamed and moved: never half done, whatever others or the service do meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.backends.gcs import GcsBackend
from tests.backends.gcs_front import GcsFront, front_of
from tests.unit.test_gcp_bucket import binding_at

from lapel.bindings import OutputBinding
from lapel.errors import EtagMismatchError, NotFoundError, OutcomeUnknownError, UnavailableError

REWRITE, DELETE = "/rewriteTo/", "/o/k$"


@pytest.fixture
def plain(gcs_server: GcsBackend) -> Iterator[GcsFront]:
    """A server that lacks the move of one step."""
    with front_of(gcs_server) as front:
        yield front


@pytest.fixture
async def binding(plain: GcsFront, gcs_bucket: str) -> AsyncIterator[OutputBinding]:
    async with binding_at(plain.url, gcs_bucket) as binding:
        await binding.invoke("create", b"moved", metadata={"key": "k", "contentType": "text/css"})
        yield binding


@pytest.fixture
def other_bucket(gcs_server: GcsBackend) -> str:
    return gcs_server.make_bucket(f"other-{uuid.uuid4().hex[:12]}")


def write(server: GcsBackend, bucket: str, name: str, data: bytes) -> None:
    server.call("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", data, "text/plain")


async def rename(binding: OutputBinding) -> None:
    await binding.invoke("rename", {"newName": "n"}, metadata={"key": "k"})


async def test_within_a_bucket_a_move_is_one_step(gcs_front: GcsFront, gcs_server: GcsBackend, gcs_bucket: str) -> None:
    async with binding_at(gcs_front.url, gcs_bucket) as binding:
        for operation, data in (("rename", {"newName": "b c"}), ("move", {"destinationKey": "d"})):
            await binding.invoke("create", b"x", metadata={"key": "a"})
            before = len(gcs_front.seen)
            response = await binding.invoke(operation, data, metadata={"key": "a"})
            assert isinstance(response.data, bytes)
            assert next(iter(data.values())).encode() in response.data
            assert [request.path.count("/moveTo/") for request in gcs_front.seen[before:]] == [1]
    assert gcs_server.names(gcs_bucket) == ["b c", "d"]


async def test_a_copy_is_of_one_generation_and_keeps_the_attributes(
    plain: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, other_bucket: str, binding: OutputBinding
) -> None:
    generation = gcs_server.attributes(gcs_bucket, "k")["generation"]
    for data, bucket, name in (
        ({"destinationKey": "n"}, gcs_bucket, "n"),
        ({"destinationBucket": other_bucket}, other_bucket, "k"),
        ({"destinationBucket": other_bucket, "destinationKey": "a/b"}, other_bucket, "a/b"),
    ):
        await binding.invoke("copy", data, metadata={"key": "k"})
        assert gcs_server.content(bucket, name) == b"moved"
        assert gcs_server.attributes(bucket, name)["contentType"] == "text/css"
    for request in plain.requests("POST", REWRITE):
        assert request.query["ifSourceGenerationMatch"] == generation
    assert gcs_server.names(gcs_bucket) == ["k", "n"]


async def test_a_large_copy_goes_on_until_it_is_complete(
    plain: GcsFront, gcs_bucket: str, gcs_server: GcsBackend, binding: OutputBinding
) -> None:
    progress = {"kind": "storage#rewriteResponse", "done": False, "totalBytesRewritten": "1", "objectSize": "5"}
    plain.answer("POST", REWRITE, 200, {**progress, "rewriteToken": "t"}, times=2)
    await binding.invoke("copy", {"destinationKey": "n"}, metadata={"key": "k"})
    assert [each.query.get("rewriteToken") for each in plain.requests("POST", REWRITE)] == [None, "t", "t"]
    assert gcs_server.content(gcs_bucket, "n") == b"moved"


async def test_a_source_that_changes_before_it_is_copied_is_not_copied(
    plain: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    plain.before("POST", REWRITE, lambda _: write(gcs_server, gcs_bucket, "k", b"newer"))
    with pytest.raises(EtagMismatchError):
        await rename(binding)
    assert gcs_server.names(gcs_bucket) == ["k"]


@pytest.mark.parametrize(
    ("operation", "data"),
    [("copy", {"destinationKey": "n"}), ("move", {"destinationKey": "n"}), ("rename", {"newName": "n"})],
)
async def test_an_object_that_must_not_be_there_is_not_copied(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding, operation: str, data: dict[str, str]
) -> None:
    with pytest.raises(EtagMismatchError):
        await binding.invoke(operation, data, metadata={"key": "k", "ifGenerationMatch": "0"})
    assert gcs_server.names(gcs_bucket) == ["k"]


async def test_a_newer_source_is_not_removed(
    plain: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    plain.before("DELETE", DELETE, lambda _: write(gcs_server, gcs_bucket, "k", b"newer"))
    await rename(binding)
    assert gcs_server.content(gcs_bucket, "n") == b"moved"
    assert gcs_server.content(gcs_bucket, "k") == b"newer"


@pytest.mark.parametrize("status", [404, 412])
async def test_of_two_who_move_an_object_one_has_it(
    plain: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding, status: int
) -> None:
    def other(_: object) -> None:
        write(gcs_server, gcs_bucket, "theirs", b"moved")
        gcs_server.call("DELETE", f"/storage/v1/b/{gcs_bucket}/o/k")

    plain.before("DELETE", DELETE, other)
    plain.answer("DELETE", DELETE, status)
    with pytest.raises(NotFoundError, match="same time"):
        await rename(binding)
    assert gcs_server.names(gcs_bucket) == ["theirs"]


async def test_a_move_that_replaced_something_is_not_taken_back(
    plain: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    write(gcs_server, gcs_bucket, "n", b"before")
    plain.before("DELETE", DELETE, lambda _: gcs_server.call("DELETE", f"/storage/v1/b/{gcs_bucket}/o/k"))
    await rename(binding)
    assert gcs_server.content(gcs_bucket, "n") == b"moved"


@pytest.mark.parametrize("status", [429, 503])
async def test_a_move_whose_end_is_refused_is_taken_back(
    plain: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding, status: int
) -> None:
    plain.answer("DELETE", DELETE, status)
    with pytest.raises(UnavailableError, match="taken back"):
        await rename(binding)
    assert gcs_server.names(gcs_bucket) == ["k"]
    assert gcs_server.content(gcs_bucket, "k") == b"moved"


async def test_a_move_whose_end_is_unknown_says_what_there_is(
    plain: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    plain.answer("DELETE", DELETE, 500)
    with pytest.raises(OutcomeUnknownError, match=r"copy, object 'n' .* is complete"):
        await rename(binding)
    assert gcs_server.content(gcs_bucket, "n") == b"moved"
    assert gcs_server.content(gcs_bucket, "k") == b"moved"


async def test_a_move_whose_end_failed_after_it_was_done_is_done(
    plain: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    def remove(_: Any) -> None:
        gcs_server.call("DELETE", f"/storage/v1/b/{gcs_bucket}/o/k")

    plain.before("DELETE", DELETE, remove)
    plain.answer("DELETE", DELETE, 500)
    await rename(binding)
    assert gcs_server.names(gcs_bucket) == ["n"]


async def test_a_move_to_another_bucket_leaves_nothing_here(
    plain: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, other_bucket: str, binding: OutputBinding
) -> None:
    generation = gcs_server.attributes(gcs_bucket, "k")["generation"]
    await binding.invoke("move", {"destinationBucket": other_bucket}, metadata={"key": "k"})
    (removal,) = plain.requests("DELETE", DELETE)
    # With the parameter `generation` a bucket that keeps versions would not keep this one.
    assert (removal.query.get("ifGenerationMatch"), removal.query.get("generation")) == (generation, None)
    assert (gcs_server.names(gcs_bucket), gcs_server.names(other_bucket)) == ([], ["k"])


async def test_a_move_to_a_bucket_that_is_not_there_leaves_all_as_it_was(
    gcs_server: GcsBackend, gcs_bucket: str, binding: OutputBinding
) -> None:
    with pytest.raises(NotFoundError):
        await binding.invoke("move", {"destinationBucket": "no-such-bucket"}, metadata={"key": "k"})
    assert gcs_server.names(gcs_bucket) == ["k"]
