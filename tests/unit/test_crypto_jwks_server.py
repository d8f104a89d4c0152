"""Key sets on a server: when they are fetched again, and what a broken one does."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.binding_http_support import Answer, Request, Server, issue, raw, running, text
from tests.unit.key_sets import INTERVAL, MATERIAL, made, no_keys, oct_key, served, use

from lapel.driver import DriverContext
from lapel.errors import (
    ClosedError,
    ConfigurationError,
    KeyTypeError,
    LapelError,
    NotFoundError,
    PermissionDeniedError,
    ThrottledError,
    UnavailableError,
)
from lapel.testing import row
from lapel_contrib.jwks import source
from lapel_contrib.jwks.crypto import JwksCrypto
from lapel_contrib.jwks.keyset import MAX_SET_BYTES
from lapel_contrib.jwks.settings import JwksSettings


class Clock:
    """The time that key sets go by."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(source, "monotonic", clock)
    return clock


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running() as server:
        yield server


@row("stricter-119")
async def test_a_rotated_key_is_there_after_the_interval_and_not_before(server: Server, clock: Clock) -> None:
    server.answers = [served("old"), served("new", oct_key("old", MATERIAL[::-1]))]
    async with made(server.url) as provider:
        before = await use(provider, "old")
        clock.now += INTERVAL - 1
        with pytest.raises(NotFoundError, match=r"not fetched again for 1 s"):
            await use(provider, "new")
        assert len(server.requests) == 1
        clock.now += 1
        assert await use(provider, "new")
        assert await use(provider, "old") != before
        for _ in range(3):
            await no_keys(provider, "unknown")
        assert len(server.requests) == 2
        assert "application/jwk-set+json" in server.requests[0].headers["accept"]


@row("stricter-119")
async def test_a_withdrawn_key_is_gone_after_the_interval(server: Server, clock: Clock) -> None:
    server.answers = [served("stays", "goes"), served("stays")]
    async with made(server.url, minRefreshInterval="20s") as provider:
        assert await use(provider, "goes")
        clock.now += 20
        await no_keys(provider, "goes")


OUTAGES: dict[str, tuple[Answer, str]] = {
    "no answer": (raw(b""), "cannot fetch"),
    "an error": (text("503 Unavailable"), "status 503"),
    "forbidden": (text("403 Forbidden"), "status 403"),
    "too many": (text("429 Slow"), "status 429"),
    "gone": (text("404 Not Found"), "status 404"),
    "garbage": (text("200 OK", b"<html>"), "not valid JSON"),
    "not UTF-8": (text("200 OK", b'{"keys": "\xff"}'), "not valid JSON"),
    "not HTTP": (raw(b"SSH-2.0-x\r\n\r\n"), "cannot fetch"),
    "half a set": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"), "cannot fetch"),
    "another document": (text("200 OK", b"[]"), "not a key set"),
    "too long": (text("200 OK", b" " * (MAX_SET_BYTES + 1)), "more than the 1048576 bytes"),
    "endless redirects": (text("302 Found", Location="/again"), "redirects more than 5 times"),
    "a strange redirect": (text("302 Found", Location="file:///etc/passwd"), "no http or https URL"),
}


@row("stricter-119")
@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_failed_refresh_keeps_the_last_good_set(
    server: Server, clock: Clock, caplog: pytest.LogCaptureFixture, outage: str
) -> None:
    answer, says = OUTAGES[outage]
    server.answers = [served("old")]
    async with made(server.url) as provider:
        server.answers = [answer]
        clock.now += INTERVAL
        assert await use(provider, "old")
        (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert says in record.getMessage()
        assert "the last good key set stays in use" in record.getMessage()
        tries = len(server.requests)
        with pytest.raises(UnavailableError, match="not in the last good key set"):
            await use(provider, "new")
        health = await provider.health()
        assert not health.ok
        assert says in (health.reason or "")
        assert len(server.requests) == tries
        server.answers = [served("new")]
        clock.now += INTERVAL
        assert await use(provider, "new")
        assert (await provider.health()).ok


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_failed_first_fetch_fails_the_opening(server: Server, outage: str) -> None:
    answer, says = OUTAGES[outage]
    server.answers = [answer]
    kinds: dict[str, type[LapelError]] = {
        "no answer": UnavailableError,
        "an error": UnavailableError,
        "forbidden": PermissionDeniedError,
        "too many": ThrottledError,
        "gone": ConfigurationError,
        "garbage": ConfigurationError,
    }
    with pytest.raises(kinds.get(outage, LapelError), match=says):
        async with made(f"{server.url}/s3cret-path?token=s3cret"):
            pass


async def test_the_url_and_its_credentials_stay_secret_and_go_to_its_own_host_only(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running() as other:
        other.answers = [served("key")]
        server.answers = [text("307 Temporary Redirect", Location=f"{other.url}/keys"), text("500 Broken")]
        url = server.url.replace("http://", "http://user:s3cret@") + "/?token=s3cret"
        async with made(url) as provider:
            assert await use(provider, "key")
        assert server.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"user:s3cret").decode()
        assert "authorization" not in other.requests[0].headers
        with pytest.raises(UnavailableError, match="status 500") as caught:
            async with made(url):
                pass
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "s3cret" not in caplog.text


async def test_a_fetch_ends_at_its_timeout(server: Server) -> None:
    server.answers = [raw(b"HTTP/1.1 200 OK\r\n", hang=True)]
    with pytest.raises(UnavailableError, match=r"within 0.05 s \(requestTimeout\)"):
        async with made(server.url, requestTimeout="50ms"):
            pass


async def test_keys_of_unknown_kinds_are_left_out_with_a_warning(
    server: Server, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [served("good", {"kty": "quantum", "kid": "odd"})]
    async with made(server.url) as provider:
        assert await use(provider, "good")
        with pytest.raises(KeyTypeError, match="'odd' is not a JWK that can be read"):
            await use(provider, "odd")
        clock.now += INTERVAL
        assert await use(provider, "good")
        assert caplog.text.count("'odd'") == 1


async def test_a_key_that_cannot_be_chosen_leaves_the_others_in_use(
    server: Server, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    flawed: list[str | dict[str, Any]] = ["good", oct_key(None), oct_key("x") | {"kid": 7}, oct_key("")]
    flawed += ["twin", oct_key("twin", MATERIAL[::-1])]
    flawed += [{"kty": "quantum", "kid": "odd"}, "odd", {"kty": "quantum", "kid": "odd"}]
    server.answers = [served("good"), served(*flawed), served(*flawed, "new")]
    async with made(server.url) as provider:
        clock.now += INTERVAL
        assert await use(provider, "good") == await use(provider, "twin") == await use(provider, "odd")
        assert (await provider.health()).ok
        clock.now += INTERVAL
        assert await use(provider, "new")
    messages = [text.partition(" has ")[2] for text in caplog.messages]
    assert messages == [
        "no kid for 3 of 9 keys, which are left out; keys are chosen by it",
        "the kid 'twin' more than once; of keys with one kid the first counts",
        "no kid for 3 of 10 keys, which are left out; keys are chosen by it",
    ]


class Gate:
    """An answer that waits until it is let go."""

    def __init__(self, then: Answer) -> None:
        self.opened = asyncio.Event()
        self.then = then

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        await self.opened.wait()
        await self.then(request, writer)


@row("stricter-120")
async def test_a_hundred_callers_share_one_fetch_and_a_cancelled_one_harms_nobody(server: Server, clock: Clock) -> None:
    server.answers = [served("old")]
    async with made(server.url) as provider:
        gate = Gate(served("new"))
        server.answers = [gate]
        server.arrived.clear()
        clock.now += INTERVAL
        callers = [asyncio.create_task(use(provider, "new")) for _ in range(100)]
        await server.arrived.wait()
        callers[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await callers[0]
        gate.opened.set()
        assert len(set(await asyncio.gather(*callers[1:]))) == 1
        assert len(server.requests) == 2


async def test_a_known_key_does_not_wait_for_a_server_that_hangs(
    server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "PATIENCE", 0.01)
    server.answers = [served("old")]
    async with made(server.url) as provider:
        server.answers = [Gate(served("new"))]
        clock.now += INTERVAL
        assert await use(provider, "old")
        clock.now += 1
        assert await use(provider, "old")
        assert len(server.requests) == 2


async def test_closing_ends_a_fetch_under_way(server: Server, clock: Clock) -> None:
    server.answers = [served("old")]
    driver = JwksCrypto(JwksSettings.parse({"jwks": server.url}), DriverContext(component="keys"))
    await driver.open()
    server.answers = [Gate(served("new"))]
    server.arrived.clear()
    clock.now += INTERVAL
    waiting = asyncio.create_task(driver._keys.load("new"))
    await server.arrived.wait()
    await driver.close()
    with pytest.raises(ClosedError):
        await waiting
    with pytest.raises(ClosedError):
        await driver._keys.load("old")


async def test_the_server_s_certificate_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key, authority = issue("authority", None)
    _, _, identity = issue("server", (certificate, key))
    (tmp_path / "server.pem").write_text(identity.certificate + identity.key)
    (tmp_path / "authority.pem").write_text(authority.certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem")
    async with running(tls=context) as server:
        server.answers = [served("key")]
        with pytest.raises(ConfigurationError, match=r"certificate of 127.0.0.1:\d+ is not trusted"):
            async with made(server.url):
                pass
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        async with made(server.url) as provider:
            assert await use(provider, "key")
            async with running() as plain:
                plain.answers = [served("key")]
                server.answers = [text("302 Found", Location=plain.url)]
                with pytest.raises(ConfigurationError, match="from https to http"):
                    async with made(server.url):
                        pass
                assert plain.requests == []
