"""bindings.gcp.bucket when the service refuses, the connection breaks, or nothing answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from tests.backends.gcp_fixtures import OwnGcs
from tests.backends.gcs import GcsBackend, GcsServer
from tests.backends.gcs_front import GcsFront

from lapel.bindings import OutputBinding
from lapel.component import ComponentOptions
from lapel.driver import DriverContext
from lapel.errors import (
    DeadlineExceededError,
    LapelError,
    NotFoundError,
    OutcomeUnknownError,
    OutcomeUnknownTimeoutError,
    ThrottledError,
    UnavailableError,
)
from lapel.testing.proxy import FaultProxy
from lapel_contrib.gcp.bucket import BucketBinding
from lapel_contrib.gcp.client import THREADS
from lapel_contrib.gcp.component_settings import BucketSettings
from lapel_contrib.gcp.upload import CHUNK_BYTES

pytestmark = pytest.mark.faults

MIB = 1024 * 1024


def binding_at(endpoint: str, bucket: str, *, timeout: float | None = None) -> OutputBinding:
    settings = BucketSettings.parse({"projectID": "shop", "endpoint": endpoint, "bucket": bucket})
    options = ComponentOptions(call_timeout=None if timeout is None else timedelta(seconds=timeout))
    return OutputBinding(BucketBinding(settings, DriverContext(component="objects")), options=options)


Behind = Callable[..., Awaitable[tuple[FaultProxy, OutputBinding]]]


@pytest_asyncio.fixture
async def behind(gcs_server: GcsBackend, gcs_bucket: str) -> AsyncIterator[Behind]:
    """Return a function that opens a binding on the shared emulator through a proxy."""
    parts = urlsplit(gcs_server.endpoint)
    async with AsyncExitStack() as stack:

        async def start(timeout: float | None = None) -> tuple[FaultProxy, OutputBinding]:
            proxy = await stack.enter_async_context(FaultProxy(parts.hostname or "", parts.port or 0))
            endpoint = f"http://{proxy.host}:{proxy.port}"
            return proxy, await stack.enter_async_context(binding_at(endpoint, gcs_bucket, timeout=timeout))

        yield start


# the service refuses


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize(("operation", "path"), [("get", "/download/"), ("list", "/o$"), ("bulkGet", "/o$")])
async def test_reading_is_tried_again(
    gcs_front: GcsFront, gcs_bucket: str, status: int, operation: str, path: str
) -> None:
    async with binding_at(gcs_front.url, gcs_bucket) as binding:
        await binding.invoke("create", b"x", metadata={"key": "k"})
        before = len(gcs_front.requests("GET", path))
        gcs_front.answer("GET", path, status, times=2)
        await binding.invoke(operation, metadata={"key": "k"})
        assert len(gcs_front.requests("GET", path)) == before + 3


WRITES: list[tuple[int, type[LapelError]]] = [
    (429, ThrottledError),
    (503, UnavailableError),
    (500, OutcomeUnknownError),
    (502, OutcomeUnknownError),
    (504, OutcomeUnknownError),
]


@pytest.mark.parametrize(("status", "error"), WRITES)
async def test_writing_is_never_tried_again_and_the_error_says_what_is_known(
    gcs_front: GcsFront, gcs_server: GcsBackend, gcs_bucket: str, status: int, error: type[LapelError]
) -> None:
    async with binding_at(gcs_front.url, gcs_bucket) as binding:
        gcs_front.answer("POST", "/upload/", status)
        with pytest.raises(error):
            await binding.invoke("create", b"x", metadata={"key": "k"})
        assert len(gcs_front.requests("POST", "/upload/")) == 1
        await binding.invoke("create", b"x", metadata={"key": "k"})
        gcs_front.answer("DELETE", "/o/k$", status)
        with pytest.raises(error):
            await binding.invoke("delete", metadata={"key": "k"})
        assert len(gcs_front.requests("DELETE", "/o/k$")) == 1
    assert gcs_server.names(gcs_bucket) == ["k"]


async def test_slowing_down_is_asked_for_in_two_ways(gcs_front: GcsFront, gcs_bucket: str) -> None:
    slow = {"error": {"code": 403, "errors": [{"reason": "rateLimitExceeded"}], "message": "slow down"}}
    async with binding_at(gcs_front.url, gcs_bucket) as binding:
        gcs_front.answer("POST", "/upload/", 403, slow)
        with pytest.raises(ThrottledError):
            await binding.invoke("create", b"x", metadata={"key": "k"})


# the connection breaks


async def test_a_write_whose_answer_is_lost_has_an_unknown_outcome(
    behind: Behind, gcs_server: GcsBackend, gcs_bucket: str
) -> None:
    proxy, binding = await behind()
    for operation, pattern in (("create", b"POST /upload"), ("delete", b"DELETE ")):
        trap = proxy.drop_reply(pattern)
        with pytest.raises(OutcomeUnknownError):
            await binding.invoke(operation, b"x", metadata={"key": "k"})
        assert trap.hit
        assert gcs_server.names(gcs_bucket) == (["k"] if operation == "create" else [])


async def test_a_read_whose_connection_breaks_is_tried_again(behind: Behind) -> None:
    proxy, binding = await behind()
    await binding.invoke("create", b"x", metadata={"key": "k"})
    for trap in (proxy.drop_reply(b"GET /download"), proxy.cut_request(b"GET /download")):
        assert (await binding.invoke("get", metadata={"key": "k"})).data == b"x"
        assert trap.hit


async def test_connections_that_broke_while_they_were_idle_are_replaced(behind: Behind) -> None:
    proxy, binding = await behind()
    await binding.invoke("create", b"x", metadata={"key": "k"})
    assert proxy.cut()
    await asyncio.sleep(0.05)  # for the reset to arrive, or a write could not know
    await binding.invoke("create", b"y", metadata={"key": "k"})
    assert (await binding.invoke("get", metadata={"key": "k"})).data == b"y"


@pytest.mark.parametrize("operation", ["create", "get", "delete", "list"])
async def test_what_cannot_be_reached_is_unavailable(behind: Behind, operation: str) -> None:
    proxy, binding = await behind()
    proxy.refuse()
    proxy.cut()
    await asyncio.sleep(0.05)
    error = (UnavailableError, OutcomeUnknownError) if operation in ("create", "delete") else UnavailableError
    with pytest.raises(error):
        await binding.invoke(operation, metadata={"key": "k"})
    proxy.heal()
    await binding.invoke("create", b"x", metadata={"key": "k"})


# uploads cut in the middle


@pytest.mark.parametrize("cut_after", [1, 3])
async def test_an_upload_that_is_cut_leaves_no_object(
    behind: Behind, gcs_server: GcsBackend, gcs_bucket: str, cut_after: int
) -> None:
    proxy, binding = await behind()

    async def stream() -> AsyncIterator[bytes]:
        for number in range(6):
            if number == cut_after:
                proxy.refuse()
                proxy.cut()
                await asyncio.sleep(0.05)
            yield bytes(CHUNK_BYTES)

    with pytest.raises(UnavailableError, match=r"nothing was (stored|done)"):
        await binding.invoke("create", stream(), metadata={"key": "k"})
    proxy.heal()
    assert gcs_server.names(gcs_bucket) == []
    await binding.invoke("create", b"whole", metadata={"key": "k"})
    assert gcs_server.content(gcs_bucket, "k") == b"whole"


async def test_one_request_that_is_cut_in_the_middle_leaves_no_object(
    behind: Behind, gcs_server: GcsBackend, gcs_bucket: str
) -> None:
    proxy, binding = await behind()
    half = CHUNK_BYTES // 2
    data = b"a" * half + b"the middle" + b"b" * (half - 1000)
    trap = proxy.cut_request(b"the middle")
    with pytest.raises(OutcomeUnknownError):
        await binding.invoke("create", data, metadata={"key": "k"})
    assert trap.hit
    assert gcs_server.names(gcs_bucket) == []


async def test_the_older_object_stays_when_its_replacement_is_cut(
    behind: Behind, gcs_server: GcsBackend, gcs_bucket: str
) -> None:
    proxy, binding = await behind()
    await binding.invoke("create", b"older", metadata={"key": "k"})

    async def stream() -> AsyncIterator[bytes]:
        yield bytes(2 * CHUNK_BYTES)
        proxy.cut()
        proxy.refuse()
        await asyncio.sleep(0.05)
        yield bytes(CHUNK_BYTES)

    with pytest.raises(UnavailableError):
        await binding.invoke("create", stream(), metadata={"key": "k"})
    assert gcs_server.content(gcs_bucket, "k") == b"older"


async def test_an_upload_that_its_caller_gives_up_leaves_no_object_and_no_session(
    gcs_front: GcsFront, gcs_server: GcsBackend, gcs_bucket: str
) -> None:
    class GaveUp(Exception):  # noqa: N818 - what the caller's code raises
        pass

    async def stream() -> AsyncIterator[bytes]:
        yield bytes(2 * CHUNK_BYTES)
        raise GaveUp

    async with binding_at(gcs_front.url, gcs_bucket) as binding:
        with pytest.raises(GaveUp):
            await binding.invoke("create", stream(), metadata={"key": "k"})
    assert gcs_server.names(gcs_bucket) == []
    assert len(gcs_front.requests("DELETE", "/upload/")) == 1


async def test_an_upload_that_is_cancelled_anywhere_leaves_all_or_nothing(
    behind: Behind, gcs_server: GcsBackend, gcs_bucket: str
) -> None:
    _, binding = await behind()
    size = 3 * CHUNK_BYTES

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(CHUNK_BYTES)

    for number in range(20):
        task = asyncio.create_task(binding.invoke("create", stream(), metadata={"key": f"k{number}"}))
        await asyncio.sleep(number * 0.004)
        task.cancel()
        await asyncio.wait([task])
    await binding.invoke("create", b"works", metadata={"key": "last"})
    sizes = {int(gcs_server.attributes(gcs_bucket, name)["size"]) for name in gcs_server.names(gcs_bucket)}
    assert sizes <= {size, len(b"works")}


# nothing answers


@pytest.fixture
def frozen(own_gcs: OwnGcs) -> GcsServer:
    """An emulator of the test's own, to be frozen."""
    server = own_gcs.server()
    server.make_bucket("bucket")
    return server


async def test_calls_to_a_server_that_hangs_end_in_time_and_free_their_threads(frozen: GcsServer) -> None:
    async with binding_at(frozen.endpoint, "bucket", timeout=0.5) as binding:
        await binding.invoke("create", b"x", metadata={"key": "k"})
        frozen.freeze()
        begun = time.monotonic()
        reads = [binding.invoke("get", metadata={"key": "k"}) for _ in range(2 * THREADS)]
        writes = [binding.invoke("create", b"y", metadata={"key": "k"}) for _ in range(8)]
        outcomes = await asyncio.gather(*writes, *reads, return_exceptions=True)
        assert time.monotonic() - begun < 5
        # Those that found a thread were sent; the others certainly were not.
        assert {type(outcome) for outcome in outcomes[:8]} <= {OutcomeUnknownTimeoutError, DeadlineExceededError}
        assert OutcomeUnknownTimeoutError in {type(outcome) for outcome in outcomes[:8]}
        assert {type(outcome) for outcome in outcomes[8:]} == {DeadlineExceededError}
        frozen.thaw()
        async with asyncio.timeout(5):
            while await _attempt(binding) is None:
                pass


async def _attempt(binding: OutputBinding) -> bytes | None:
    try:
        data = (await binding.invoke("get", metadata={"key": "k"})).data
    except LapelError:
        return None
    assert isinstance(data, bytes)
    return data


async def test_closing_with_a_server_that_hangs_returns_in_time(frozen: GcsServer) -> None:
    binding = await binding_at(frozen.endpoint, "bucket", timeout=60).open()
    frozen.freeze()
    calls = [asyncio.create_task(binding.invoke("get", metadata={"key": "k"})) for _ in range(2 * THREADS)]
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    await binding.aclose()
    assert time.monotonic() - begun < 12
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, LapelError) for outcome in outcomes)


async def test_a_download_that_hangs_ends_with_its_deadline(frozen: GcsServer) -> None:
    path = "/upload/storage/v1/b/bucket/o?uploadType=media&name=k"
    await asyncio.to_thread(frozen.call, "POST", path, bytes(40 * MIB), "text/plain")
    async with binding_at(frozen.endpoint, "bucket", timeout=0.5) as binding:
        response = await binding.invoke("get", metadata={"key": "k"}, stream=True)
        assert isinstance(response.data, AsyncIterator)
        await anext(response.data)
        frozen.freeze()
        with pytest.raises(DeadlineExceededError):
            while True:
                await anext(response.data)
        frozen.thaw()


async def test_a_stream_that_is_read_slowly_holds_no_thread(behind: Behind) -> None:
    _, binding = await behind()
    await binding.invoke("create", bytes(MIB), metadata={"key": "k"})
    streams = [await binding.invoke("get", metadata={"key": "k"}, stream=True) for _ in range(THREADS + 8)]
    await binding.invoke("create", b"x", metadata={"key": "other"})
    for each in streams:
        assert await each.read() == bytes(MIB)


async def test_a_missing_object_is_not_mistaken_for_a_failure(behind: Behind) -> None:
    _, binding = await behind()
    with pytest.raises(NotFoundError):
        await binding.invoke("get", metadata={"key": "k"})
    assert json.loads(await (await binding.invoke("list")).read()) == []
