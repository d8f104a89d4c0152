"""What the HTTP binding does when calls go wrong: the outcome is told honestly, no secret leaks, and it works on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from tests.unit.binding_http_support import Request, Server, long_reply, made, raw, running, text
from tests.unit.binding_http_support import binding as binding
from tests.unit.binding_http_support import server as server

from lapel.bindings import OutputBinding
from lapel.errors import (
    DeadlineExceededError,
    LapelError,
    OutcomeUnknownError,
    OutcomeUnknownTimeoutError,
    SettingsError,
    UnavailableError,
)
from lapel.testing import row
from lapel_contrib.http.binding import HttpBinding
from lapel_contrib.http.settings import HttpSettings


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
