"""What the HTTP binding makes of replies: metadata, errors that carry the reply, limits and streams."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.binding_http_support import Request, Server, long_reply, made, raw, text
from tests.unit.binding_http_support import binding as binding
from tests.unit.binding_http_support import server as server

from lapel.bindings import BindingResponse, OutputBinding, ReplyError
from lapel.errors import (
    LapelError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    ThrottledError,
    UnavailableError,
)


async def test_the_replys_headers_are_metadata_and_repeated_ones_are_joined(
    server: Server, binding: OutputBinding
) -> None:
    server.answers = [
        raw(b"HTTP/1.1 201 Made It\r\nx-two: a\r\nX-Two: b\r\ncontent-type: text/csv\r\nContent-Length: 1\r\n\r\nx")
    ]
    reply = await binding.invoke("get")
    assert reply == BindingResponse(
        b"x",
        {"X-Two": "a, b", "Content-Type": "text/csv", "Content-Length": "1", "statusCode": "201"}
        | {"status": "201 Made It"},
        "text/csv",
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [("400 Bad", ReplyError), ("401 No", PermissionDeniedError), ("403 No", PermissionDeniedError),
     ("404 Not Found", NotFoundError), ("429 Slow", ThrottledError), ("500 Oh", ReplyError),
     ("503 Later", UnavailableError), ("304 Same", ReplyError)],
)  # fmt: skip
async def test_a_status_other_than_2xx_is_an_error_that_carries_the_reply(
    server: Server, binding: OutputBinding, status: str, kind: type[LapelError]
) -> None:
    server.answers = [text(status, b"" if status[0] == "3" else b"the reason")]
    with pytest.raises(kind, match=f"with {status[:3]}") as caught:
        await binding.invoke("post", b"")
    assert isinstance(caught.value, ReplyError)
    assert caught.value.response.data == (b"" if status[0] == "3" else b"the reason")
    assert caught.value.response.metadata["status"] == status
    assert "the reason" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("by_request", [True, False])
async def test_such_a_status_is_a_reply_if_asked_for(server: Server, by_request: bool) -> None:
    server.answers = [text("500 Oh", b"why")]
    async with made(server.url, errorIfNot2XX="true" if by_request else "false") as binding:
        reply = await binding.invoke("get", metadata={"errorIfNot2XX": "false"} if by_request else {})
    assert (reply.data, reply.metadata["statusCode"]) == (b"why", "500")


async def test_reading_methods_are_tried_again_when_the_server_asks_for_time(
    server: Server, binding: OutputBinding
) -> None:
    server.answers = [text("503 Later"), text("200 OK", b"now")]
    assert (await binding.invoke("get")).data == b"now"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("status", ["200", "500"])
async def test_a_body_over_the_limit_is_an_error_and_never_cut(server: Server, known: bool, status: str) -> None:
    head = "Content-Length: 1025" if known else "Connection: close"
    server.answers = [raw(f"HTTP/1.1 {status} S\r\n{head}\r\n\r\n".encode() + b"x" * 1025)]
    async with made(server.url, maxResponseBodySize="1Ki") as binding:
        with pytest.raises(OperationFailedError, match=f"status {status} .*maxResponseBodySize=1Ki"):
            await binding.invoke("get")
        server.answers = [long_reply(1024, known=known)]
        assert (await binding.invoke("get")).data == b"x" * 1024


async def test_a_limit_of_zero_is_none(server: Server) -> None:
    server.answers = [long_reply(2_000_000, known=True)]
    async with made(server.url, maxResponseBodySize="-1") as binding:
        assert (await binding.invoke("get")).data == b"x" * 2_000_000


async def test_the_length_that_head_tells_is_no_body(server: Server) -> None:
    server.answers = [raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")]
    async with made(server.url, maxResponseBodySize="1Ki") as binding:
        reply = await binding.invoke("head")
    assert (reply.data, reply.metadata["Content-Length"]) == (None, "5000")


async def test_a_reply_can_be_read_while_it_is_sent(server: Server, binding: OutputBinding) -> None:
    go_on = asyncio.Event()

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        await go_on.wait()
        writer.write(b"4\r\nlast\r\n0\r\n\r\n")

    server.answers = [slowly]
    reply = await binding.invoke("get", stream=True)
    assert reply.data is not None
    assert not isinstance(reply.data, bytes)
    assert await anext(reply.data) == b"first"
    go_on.set()
    assert await reply.read() == b"last"


async def test_a_compressed_reply_is_handed_over_as_it_came(server: Server, binding: OutputBinding) -> None:
    server.answers = [text("200 OK", b"\x1f\x8b", Content_Encoding="gzip")]
    assert (await binding.invoke("get")).data == b"\x1f\x8b"
    assert server.requests[0].headers["accept-encoding"] == "identity"
