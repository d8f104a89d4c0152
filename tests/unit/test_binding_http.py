"""Requests to a real server on this machine, in plain text and over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lapel.bindings import BindingResponse, OutputBinding, ReplyError
from lapel.driver import DriverContext
from lapel.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidArgumentError,
    LapelError,
    NotFoundError,
    OperationFailedError,
    OutcomeUnknownError,
    OutcomeUnknownTimeoutError,
    PermissionDeniedError,
    SettingsError,
    ThrottledError,
    UnavailableError,
)
from lapel.testing import row
from lapel_contrib.http.binding import HttpBinding
from lapel_contrib.http.requests import target
from lapel_contrib.http.settings import HttpSettings

JSON = "application/json; charset=utf-8"

# The first use of a settings class looks for plugins of pydantic on the disk, which no event loop should wait for.
HttpSettings.parse({"url": "http://localhost"})


@dataclass
class Request:
    """What the server received; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def text(status: str, body: bytes = b"", **headers: str) -> Answer:
    """Answer with that status and body."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines])
        writer.write(f"{head}\r\n\r\n".encode() + (b"" if request.method == "HEAD" else body))

    return answer


def raw(data: bytes, *, hang: bool = False) -> Answer:
    """Answer with these bytes, then close the connection or leave it be."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if hang:
            await asyncio.Event().wait()
        writer.close()

    return answer


@dataclass
class Server:
    """A small HTTP server that answers as `answers` say, one after another; the last one stays."""

    port: int = 0
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=lambda: [text("200 OK", b"fine")])
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split(" ")
                headers: dict[str, str] = {}
                while (line := await reader.readline()) != b"\r\n":
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await self.body(reader, headers)
                request = Request(method, path, headers, body)
                self.requests.append(request)
                self.arrived.set()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                await answer(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await reader.readexactly(int(headers.get("content-length", 0)))
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(parts)


@asynccontextmanager
async def running(port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    state = Server(scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(state.serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running() as state:
        yield state


def made(url: str, **fields: str) -> OutputBinding:
    settings = HttpSettings.parse({"url": url, **fields})
    return OutputBinding(HttpBinding(settings, DriverContext(component="web")))


@pytest.fixture
async def binding(server: Server) -> AsyncIterator[OutputBinding]:
    async with made(server.url + "/base/") as opened:
        yield opened


# requests


@pytest.mark.parametrize(
    ("operation", "method"),
    [("create", "POST"), ("get", "GET"), ("head", "HEAD"), ("post", "POST"), ("put", "PUT"), ("PATCH", "PATCH"),
     ("delete", "DELETE"), ("options", "OPTIONS"), ("trace", "TRACE")],
)  # fmt: skip
async def test_each_operation_is_a_method(server: Server, binding: OutputBinding, operation: str, method: str) -> None:
    has_body = method in ("POST", "PUT", "PATCH")
    reply = await binding.invoke(operation, bytes(range(256)) if has_body else None)
    request = server.requests[0]
    assert (request.method, request.path) == (method, "/base/")
    assert request.body == (bytes(range(256)) if has_body else b"")
    assert request.headers.get("content-type") == (JSON if has_body else None)
    assert request.headers["accept"] == JSON
    assert reply.data == (None if method == "HEAD" else b"fine")
    assert reply.metadata["statusCode"] == "200"
    assert reply.metadata["status"] == "200 OK"


async def test_data_for_a_method_without_a_body_is_refused(server: Server, binding: OutputBinding) -> None:
    with pytest.raises(InvalidArgumentError, match="GET has no body"):
        await binding.invoke("get", b"data")
    await binding.invoke("get", b"")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("http://h", None, "http://h"),
        ("http://h", "x", "http://h/x"),
        ("http://h/", "/x/", "http://h/x/"),
        ("http://h/a", "//evil.example/x", "http://h/a/evil.example/x"),
        ("http://h", "@evil.example", "http://h/@evil.example"),
        ("http://h/a?k=1", "b?l=2", "http://h/a/b?k=1&l=2"),
        ("http://h/a", "b%2Fc?u=http://x/../y", "http://h/a/b%2Fc?u=http://x/../y"),
    ],
)
def test_the_path_is_joined_with_one_slash_and_never_changes_the_host(base: str, path: str, expected: str) -> None:
    assert target(base, path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "a/../b",
        "a/%2e%2e/b",
        "%2E./b",
        "a/..%2fb",
        "a/%252e%252e/b",
        "a\\..\\b",
        "a%5c..%5cb",
        "./a",
        "a#b",
        "a\nb",
    ],
)
def test_a_path_that_would_leave_the_base_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgumentError, match="'path'"):
        target("http://h/base", path)


async def test_capitalised_metadata_becomes_headers_and_tracing_wins(server: Server, binding: OutputBinding) -> None:
    metadata = {
        "Content-Type": "text/plain",
        "X-One": " ümlaut ",
        "lower": "not sent",
        "Traceparent": "loses",
        "traceparent": "00-1-2-01",
        "baggage": "a=b",
        "path": "p?q=1",
    }
    await binding.invoke("post", b"x", metadata=metadata)
    request = server.requests[0]
    assert request.path == "/base/p?q=1"
    assert request.headers["content-type"] == "text/plain"
    assert request.headers["x-one"] == "ümlaut"
    assert request.headers["traceparent"] == "00-1-2-01"
    assert request.headers["baggage"] == "a=b"
    assert "lower" not in request.headers


@pytest.mark.parametrize(
    "metadata",
    [{"X-A": "a\r\nX-B: b"}, {"X A": "b"}, {"X-A:": "b"}, {"Host": "evil"}, {"Content-Length": "1"},
     {"Transfer-Encoding": "chunked"}, {"X-Token": "mine"}, {"errorIfNot2XX": "perhaps"}, {"X-A": "\x00"}],
)  # fmt: skip
async def test_metadata_that_cannot_be_sent_is_refused(server: Server, metadata: dict[str, str]) -> None:
    async with made(server.url, securityToken="s3cret", securityTokenHeader="X-Token") as binding:
        with pytest.raises(InvalidArgumentError):
            await binding.invoke("post", b"", metadata=metadata)
    assert server.requests == []


async def test_the_security_token_is_sent(server: Server) -> None:
    async with made(server.url, securityToken="s3cret", securityTokenHeader="X-Token") as binding:
        await binding.invoke("get")
    assert server.requests[0].headers["x-token"] == "s3cret"


async def test_credentials_in_the_url_become_basic_authentication(server: Server) -> None:
    async with made(f"http://user:p%40ss@127.0.0.1:{server.port}") as binding:
        await binding.invoke("get")
        await binding.invoke("get", metadata={"Authorization": "Bearer mine"})
    assert server.requests[0].headers["authorization"] == "Basic dXNlcjpwQHNz"
    assert server.requests[1].headers["authorization"] == "Bearer mine"


async def test_a_stream_is_sent_in_chunks(server: Server, binding: OutputBinding) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(5):
            yield bytes([number]) * 10_000

    await binding.invoke("put", parts())
    assert server.requests[0].body == b"".join(bytes([number]) * 10_000 for number in range(5))
    assert server.requests[0].headers["transfer-encoding"] == "chunked"


async def test_cookies_are_not_kept_between_calls(server: Server, binding: OutputBinding) -> None:
    server.answers = [text("200 OK", Set_Cookie="session=1; Path=/")]
    await binding.invoke("get")
    await binding.invoke("get")
    assert "cookie" not in server.requests[1].headers


# replies


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


def long_reply(size: int, *, known: bool) -> Answer:
    head = f"Content-Length: {size}" if known else "Connection: close"
    return raw(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + b"x" * size)


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


# redirects


@pytest.mark.parametrize(
    ("status", "operation", "method", "body"),
    [(301, "post", "GET", b""), (302, "put", "GET", b""), (303, "delete", "GET", b""), (307, "post", "POST", b"data"),
     (308, "patch", "PATCH", b"data"), (302, "get", "GET", b""), (301, "head", "HEAD", b"")],
)  # fmt: skip
async def test_redirects_are_followed_as_go_does(
    server: Server, binding: OutputBinding, status: int, operation: str, method: str, body: bytes
) -> None:
    server.answers = [text(f"{status} Go", Location="/other?x=1"), text("200 OK", b"there")]
    data = b"data" if operation in ("post", "put", "patch") else None
    await binding.invoke(operation, data)
    assert (server.requests[1].method, server.requests[1].path) == (method, "/other?x=1")
    assert server.requests[1].body == body


async def test_credentials_stay_with_their_host(server: Server) -> None:
    async with running() as other:
        server.answers = [text("302 Go", Location="/again"), text("302 Go", Location=f"{other.url}/there")]
        async with made(server.url, securityToken="s3cret", securityTokenHeader="X-Token") as binding:
            await binding.invoke("get", metadata={"Authorization": "Bearer b", "Cookie": "c=1", "X-Other": "stays"})
        assert server.requests[1].headers["x-token"] == "s3cret"
        there = other.requests[0].headers
        assert not there.keys() & {"x-token", "authorization", "cookie"}
        assert there["x-other"] == "stays"


async def test_an_endless_redirect_ends(server: Server, binding: OutputBinding) -> None:
    server.answers = [text("302 Go", Location="/base/")]
    with pytest.raises(OperationFailedError, match="more than 10 times"):
        await binding.invoke("get")
    assert len(server.requests) == 11


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "http://[", "javascript:alert(1)"])
async def test_a_redirect_to_nowhere_is_an_error(server: Server, binding: OutputBinding, location: str) -> None:
    server.answers = [text("302 Go", Location=location)]
    with pytest.raises(OperationFailedError, match="redirected to something"):
        await binding.invoke("get")


async def test_a_stream_cannot_follow_a_redirect_that_wants_it_again(server: Server, binding: OutputBinding) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"data"

    server.answers = [text("307 Go", Location="/other")]
    with pytest.raises(OperationFailedError, match="a stream can be sent only once"):
        await binding.invoke("post", parts())


# failures


@row("stricter-073")
async def test_a_server_that_is_down_is_unavailable_and_works_again_without_a_new_open() -> None:
    async with running() as server:
        port = server.port
        binding = await made(server.url).open()
        assert (await binding.invoke("post", b"")).data == b"fine"
    async with binding:
        with pytest.raises(UnavailableError, match=f"cannot reach 127.0.0.1:{port}"):
            await binding.invoke("post", b"")
        async with running(port):
            assert (await binding.invoke("post", b"")).data == b"fine"


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b"nonsense\r\n\r\n"])
async def test_a_lost_reply_leaves_the_outcome_of_a_write_unknown(
    server: Server, binding: OutputBinding, reply: bytes
) -> None:
    server.answers = [raw(reply)]
    with pytest.raises(OutcomeUnknownError, match="its reply was lost"):
        await binding.invoke("post", b"data")
    assert len(server.requests) == 1


async def test_a_read_whose_reply_is_lost_is_tried_again(server: Server, binding: OutputBinding) -> None:
    server.answers = [raw(b""), raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), text("200 OK", b"whole")]
    assert (await binding.invoke("get")).data == b"whole"
    server.answers = [raw(b"")]
    with pytest.raises(UnavailableError, match="lost the connection"):
        await binding.invoke("get")


async def test_the_response_timeout_is_the_deadline(server: Server) -> None:
    server.answers = [raw(b"", hang=True)]
    async with made(server.url, responseTimeout="50ms") as binding:
        with pytest.raises(OutcomeUnknownTimeoutError, match=r"0\.05 s"):
            await binding.invoke("post", b"")
        with pytest.raises(DeadlineExceededError):
            await binding.invoke("get")


async def test_a_deadline_before_anything_was_sent_is_no_unknown_outcome() -> None:
    left = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Never answer the TLS greeting, and notice when the client has gone."""
        while await reader.read(1000):
            pass
        writer.close()
        left.set()

    deaf = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = deaf.sockets[0].getsockname()[1]
    async with deaf, made(f"https://127.0.0.1:{port}", responseTimeout="100ms") as binding:
        with pytest.raises(DeadlineExceededError) as caught:
            await binding.invoke("post", b"")
        assert not isinstance(caught.value, OutcomeUnknownError)
        # The connection of the handshake is not left behind.
        async with asyncio.timeout(10):
            await left.wait()


async def test_a_cancelled_call_leaves_a_working_component(server: Server, binding: OutputBinding) -> None:
    server.answers = [raw(b"", hang=True), text("200 OK", b"fine")]
    task = asyncio.create_task(binding.invoke("post", b""))
    await server.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await binding.invoke("post", b"")).data == b"fine"


async def test_many_calls_at_once(server: Server, binding: OutputBinding) -> None:
    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        await text("200 OK", request.body)(request, writer)

    server.answers = [echo]
    bodies = [f"{number}".encode() for number in range(200)]
    replies = await asyncio.gather(*(binding.invoke("post", body) for body in bodies))
    assert [reply.data for reply in replies] == bodies


async def test_connections_are_given_back_however_a_call_ends(server: Server) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise RuntimeError("mine")

    async with made(server.url, maxResponseBodySize="1Ki") as binding:
        driver = binding.driver
        assert isinstance(driver, HttpBinding)
        for answer in (text("200 OK"), text("500 Oh"), raw(b""), text("302 Go", Location="ftp://x"),
                       long_reply(2000, known=True), long_reply(2000, known=False), text("204 No")):  # fmt: skip
            server.answers = [answer]
            for data in (b"x", broken()):
                with contextlib.suppress(LapelError, RuntimeError):
                    await binding.invoke("post", data)
        server.answers = [long_reply(900, known=False)]
        await (await binding.invoke("get", stream=True)).read()
        await (await binding.invoke("get", stream=True)).aclose()
        server.arrived.clear()
        server.answers = [raw(b"", hang=True)]
        task = asyncio.create_task(binding.invoke("post", b""))
        await server.arrived.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert driver._transports is not None
        assert [pool.busy for pool in driver._transports._direct._pools] == [0]


async def test_no_secret_is_in_errors_or_logs(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "c4n4ry"
    url = f"http://{secret}:{secret}@127.0.0.1:{server.port}/{secret}?key={secret}"
    server.answers = [text("200 OK"), text("500 Oh"), raw(b""), text("302 Go", Location="ftp://x")]
    errors: list[str] = []
    binding = made(url, securityToken=secret, securityTokenHeader="X-Token")
    async with binding:
        await binding.invoke("post", b"")
        for _ in range(3):
            with pytest.raises(LapelError) as caught:
                await binding.invoke("post", b"")
            error: BaseException | None = caught.value
            while error is not None:
                errors.append(f"{error!r} {error}")
                error = error.__cause__
    with pytest.raises(SettingsError) as refused:
        HttpSettings.parse({"url": f"nope://{secret}"})
    shown = [*errors, caplog.text, repr(binding), repr(binding.driver.settings), str(refused.value)]
    assert [each for each in shown if secret in each] == []
    assert len(server.requests) == 4


async def test_the_proxy_of_the_environment_is_used_but_not_for_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{server.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    async with made("http://host.example/x") as binding:
        await binding.invoke("get")
    assert server.requests[0].path == "http://host.example/x"
    async with running() as other, made(other.url) as binding:
        await binding.invoke("get")
        assert len(other.requests) == 1


# settings


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"url": "ftp://h"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://h:port"}, "url"),
        ({"url": "http://h/#x"}, "url"),
        ({"url": "http://h/a b"}, "url"),
        ({"url": "https://h", "MTLSClientCert": "c"}, "MTLSClientCert"),
        ({"url": "https://h", "MTLSClientKey": "k"}, "MTLSClientKey"),
        ({"url": "http://h", "MTLSRootCA": "c"}, "MTLSRootCA"),
        ({"url": "http://h", "securityToken": "t"}, "securityToken"),
        ({"url": "http://h", "securityTokenHeader": "X"}, "securityTokenHeader"),
        ({"url": "http://h", "securityToken": "t\n", "securityTokenHeader": "X"}, "securityToken"),
        ({"url": "http://h", "securityToken": "t", "securityTokenHeader": "X Y"}, "securityTokenHeader"),
        ({"url": "http://h", "MTLSRenegotiation": "RenegotiateOnceAsClient"}, "MTLSRenegotiation"),
        ({"url": "http://h", "MTLSRenegotiation": "Sometimes"}, "MTLSRenegotiation"),
        ({"url": "http://h", "responseTimeout": "0"}, "responseTimeout"),
        ({"url": "http://h", "maxResponseBodySize": "lots"}, "maxResponseBodySize"),
        ({"url": "http://h", "errorIfNot2XX": "perhaps"}, "errorIfNot2XX"),
        ({"url": "http://h", "direction": "input"}, "direction"),
    ],
)
def test_wrong_fields_are_found_offline(fields: dict[str, str], name: str) -> None:
    assert [problem.field for problem in HttpSettings.examine(fields)] == [name]


# TLS


@dataclass
class Identity:
    """A certificate and its key, in PEM form."""

    certificate: str
    key: str


def issue(name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None) -> tuple[Any, Any, Identity]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key())
        builder = builder.add_extension(authority, critical=False)
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    return (
        certificate,
        key,
        Identity(
            certificate.public_bytes(serialization.Encoding.PEM).decode(),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
        ),
    )


@dataclass
class Certificates:
    """A certificate authority, and what it issued to the server and to the client."""

    authority: Identity
    server: ssl.SSLContext
    client: Identity


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority, authority_key, authority_identity = issue("authority", None)
    _, _, server_identity = issue("server", (authority, authority_key))
    _, _, client_identity = issue("client", (authority, authority_key))
    (folder / "server.pem").write_text(server_identity.certificate + server_identity.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority_identity.certificate)
    context.load_cert_chain(folder / "server.pem")
    return Certificates(authority_identity, context, client_identity)


@asynccontextmanager
async def secure(
    certificates: Certificates, *, client: bool, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
) -> AsyncIterator[Server]:
    certificates.server.verify_mode = ssl.CERT_REQUIRED if client else ssl.CERT_NONE
    certificates.server.maximum_version = newest
    async with running(tls=certificates.server) as server:
        yield server


@pytest.mark.parametrize("inline", [True, False])
async def test_both_sides_show_certificates(certificates: Certificates, tmp_path: Path, inline: bool) -> None:
    fields = {
        "MTLSRootCA": certificates.authority.certificate,
        "MTLSClientCert": certificates.client.certificate,
        "MTLSClientKey": certificates.client.key,
    }
    if not inline:
        for name, content in fields.items():
            (tmp_path / name).write_text(content)
            fields[name] = str(tmp_path / name)
    async with secure(certificates, client=True) as server, made(server.url, **fields) as binding:
        assert (await binding.invoke("post", b"x")).data == b"fine"


async def test_a_server_that_is_not_trusted_is_refused(certificates: Certificates) -> None:
    async with secure(certificates, client=False) as server:
        async with made(server.url) as binding:
            with pytest.raises(OperationFailedError, match=r"not trusted .*MTLSRootCA") as caught:
                await binding.invoke("get")
            assert not caught.value.retryable
        assert server.requests == []


async def test_a_client_without_a_certificate_is_told_which_field_to_set(certificates: Certificates) -> None:
    # TLS 1.3 asks after the handshake, and then the reset connection may arrive before the alert.
    async with secure(certificates, client=True, newest=ssl.TLSVersion.TLSv1_2) as server:
        fields = {"MTLSRootCA": certificates.authority.certificate}
        async with made(server.url, **fields) as binding:
            with pytest.raises(PermissionDeniedError, match="MTLSClientCert"):
                await binding.invoke("get")
        assert server.requests == []


@pytest.mark.parametrize(("renegotiation", "never"), [("RenegotiateNever", True), ("RenegotiateFreelyAsClient", False)])
def test_renegotiation_reaches_the_tls_library(renegotiation: str, never: bool) -> None:
    from lapel_contrib.http.tls import make_context

    context = make_context(HttpSettings.parse({"url": "https://h", "MTLSRenegotiation": renegotiation}))
    assert bool(context.options & ssl.OP_NO_RENEGOTIATION) is never


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"MTLSRootCA": "/missing/file"}, "'MTLSRootCA': No such file"),
        ({"MTLSRootCA": "-----BEGIN CERTIFICATE-----\nnonsense"}, "'MTLSRootCA' holds no certificate"),
        ({"MTLSClientCert": "-----BEGIN X", "MTLSClientKey": "-----BEGIN c4n4ry"}, "'MTLSClientKey' are not a PEM"),
    ],
)
async def test_certificates_that_cannot_be_read_do_not_open(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        await made("https://127.0.0.1", **fields).open()
    assert "c4n4ry" not in str(caught.value)
