"""What the HTTP binding sends: methods, paths, headers and bodies as asked for, and to no other host."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.unit.binding_http_support import Server, made, running, text
from tests.unit.binding_http_support import binding as binding
from tests.unit.binding_http_support import server as server

from lapel.bindings import OutputBinding
from lapel.errors import InvalidArgumentError, OperationFailedError
from lapel_contrib.http.requests import target

JSON = "application/json; charset=utf-8"


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
