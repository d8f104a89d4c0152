"""Key sets: where they come from, when they are fetched again, and what a broken one does."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey
from tests.unit.test_binding_http import Answer, Request, Server, issue, raw, running, text

from lapel.crypto import CryptoProvider
from lapel.driver import DriverContext
from lapel.errors import (
    ClosedError,
    ConfigurationError,
    DecryptionError,
    InvalidTagError,
    KeyTypeError,
    LapelError,
    NotFoundError,
    PermissionDeniedError,
    SettingsError,
    ThrottledError,
    UnavailableError,
)
from lapel.testing import row
from lapel_contrib.jwks import source
from lapel_contrib.jwks.crypto import JwksCrypto
from lapel_contrib.jwks.keyset import MAX_SET_BYTES
from lapel_contrib.jwks.settings import JwksSettings

MATERIAL = bytes(range(60, 92))
EC_JWK = ECKey.import_key(
    ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
).as_dict(private=True)
INTERVAL = 600.0

# The first use of a settings class looks for plugins of pydantic on the disk, which no event loop should wait for.
JwksSettings.parse({"jwks": "{}"})


def oct_key(kid: str | None, material: bytes = MATERIAL, **members: Any) -> dict[str, Any]:
    name = {} if kid is None else {"kid": kid}
    return {"kty": "oct", "k": base64.urlsafe_b64encode(material).decode().rstrip("="), **name, **members}


def jwks(*keys: str | dict[str, Any]) -> str:
    return json.dumps({"keys": [oct_key(key) if isinstance(key, str) else key for key in keys]})


def served(*keys: str | dict[str, Any]) -> Answer:
    return text("200 OK", jwks(*keys).encode())


@asynccontextmanager
async def made(value: str, **fields: str) -> AsyncIterator[CryptoProvider]:
    settings = JwksSettings.parse({"jwks": value, **fields})
    async with CryptoProvider(JwksCrypto(settings, DriverContext(component="keys"))) as provider:
        yield provider


async def use(provider: CryptoProvider, name: str) -> bytes:
    """Use a key; the answer tells keys apart."""
    sealed = await provider.subtle.encrypt(b"x", algorithm="A256GCM", key_name=name, nonce=bytes(12))
    return sealed.data


async def no_keys(provider: CryptoProvider, name: str) -> None:
    with pytest.raises(NotFoundError):
        await use(provider, name)


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


# where the set comes from


@pytest.mark.parametrize(
    "encode",
    [
        lambda data: data,
        lambda data: f"\n  {data}\n",
        lambda data: base64.b64encode(data.encode()).decode(),
        lambda data: base64.urlsafe_b64encode(data.encode()).decode().rstrip("="),
        lambda data: "\n".join(
            [base64.b64encode(data.encode()).decode()[:40], base64.b64encode(data.encode()).decode()[40:]]
        ),
    ],
    ids=["JSON", "JSON with space", "base64", "URL-safe base64", "wrapped base64"],
)
async def test_a_set_is_taken_inline(encode: Any) -> None:
    async with made(encode(jwks("first", "second~~~???"))) as provider:
        assert await use(provider, "first") == await use(provider, "second~~~???")
        await no_keys(provider, "third")


async def test_a_single_key_is_a_set_of_one() -> None:
    async with made(json.dumps(oct_key("only"))) as provider:
        assert await use(provider, "only")


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "set.json"
    file.touch(mode=0o600)
    file.write_text(jwks("old"))
    async with made(str(file)) as provider:
        await no_keys(provider, "new")
        file.write_text(jwks("new"))
        assert await use(provider, "new")
        await no_keys(provider, "old")
        file.write_text("{garbage")
        assert await use(provider, "new")
        assert "the last good version stays in use" in caplog.text
        assert not (await provider.health()).ok
        file.write_text(jwks("newest"))
        assert await use(provider, "newest")
        assert (await provider.health()).ok


async def test_a_file_of_private_keys_that_others_can_read_brings_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "set.json"
    file.write_text(jwks("key"))
    file.chmod(0o644)
    async with made(str(file)):
        assert "may be read by group or others" in caplog.text
    caplog.clear()
    public = {name: value for name, value in EC_JWK.items() if name != "d"}
    file.write_text(jwks({**public, "kid": "public"}))
    async with made(str(file)):
        assert caplog.text == ""


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (jwks("twin", "twin"), "'twin' twice"),
        (jwks("good", oct_key(None)), "no kid for key 2 of 2"),
        (jwks(oct_key("x") | {"kid": 7}), "no kid for key 1 of 1"),
        (jwks(oct_key("")), "no kid"),
        (jwks({"kty": "quantum", "kid": "odd"}), "'odd' is not a JWK"),
        (jwks(oct_key("late", exp="soon")), "'late' has an exp that is not a number"),
        (jwks(oct_key("late", nbf=True)), "'late' has an nbf that is not a number"),
        (jwks(oct_key("late", exp=10**400)), "'late' has an exp that is not a number"),
        (jwks(), "holds no keys"),
        ('{"keys": "none"}', 'a list of "keys"'),
        ('{"keys": [1]}', "no kid for key 1"),
        ("{not json", "is not valid JSON"),
        ("{" + '"a":[' * 100_000, "is not valid JSON"),
        (base64.b64encode(b"[1]").decode(), "no base64 of JSON"),
        ("/no/such/file.json", "no existing file"),
        ("a\0b", "no existing file"),
        ("x" * 5000, "no existing file"),
    ],
)
async def test_a_set_that_cannot_be_used_is_refused_at_open(value: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        async with made(value):
            pass
    assert value not in str(caught.value)
    assert oct_key("x")["k"] not in repr(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)


@pytest.mark.parametrize("url", ["http://", "https://host:port/x", "https://host/#part", "https://ho st/"])
def test_a_url_that_no_request_can_go_to_is_refused_before_open(url: str) -> None:
    with pytest.raises(SettingsError, match="jwks"):
        JwksSettings.parse({"jwks": url})


def test_the_set_is_never_shown() -> None:
    settings = JwksSettings.parse({"jwks": jwks("key")})
    assert oct_key("key")["k"] not in repr(settings) + str(settings)


def test_durations_too_short_mean_the_default() -> None:
    settings = JwksSettings.parse({"jwks": "{}", "requestTimeout": "999us", "minRefreshInterval": "999ms"})
    assert (settings.fetch_seconds, settings.interval_seconds) == (30.0, 600.0)
    settings = JwksSettings.parse({"jwks": "{}", "requestTimeout": "1ms", "minRefreshInterval": "1"})
    assert (settings.fetch_seconds, settings.interval_seconds) == (0.001, 1.0)


# what a key may be used for


@row("stricter-119")
@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"exp": 1_000_000_000}, "since 2001-09-09T01:46:40"),
        ({"nbf": 32_503_680_000.5}, "before 3000-01-01T00:00:00"),
        ({"nbf": 999_999_999_999}, "after 1970|before"),
    ],
)
async def test_a_key_outside_its_time_makes_nothing_new_and_reads_what_is_old(
    members: dict[str, Any], says: str
) -> None:
    keys = [oct_key("now"), oct_key("then", **members), {**EC_JWK, "kid": "signer"}]
    keys += [{**EC_JWK, "kid": "old-signer", **members}]
    async with made(jwks(*keys)) as provider:
        subtle = provider.subtle
        with pytest.raises(KeyTypeError, match=says):
            await subtle.encrypt(b"x", algorithm="A256GCM", key_name="then")
        with pytest.raises(KeyTypeError, match=says):
            await subtle.wrap_key(bytes(32), algorithm="A256KW", key_name="then")
        with pytest.raises(KeyTypeError, match=says):
            await subtle.sign(bytes(32), algorithm="ES256", key_name="old-signer")
        with pytest.raises(KeyTypeError, match=says):
            await provider.encrypt(b"x", key_name="then")
        sealed = await subtle.encrypt(b"x", algorithm="A256GCM", key_name="now")
        plain = await subtle.decrypt(
            sealed.data, algorithm="A256GCM", key_name="then", nonce=sealed.nonce, tag=sealed.tag
        )
        assert plain == b"x"
        wrapped = await subtle.wrap_key(bytes(32), algorithm="A256KW", key_name="now")
        assert await subtle.unwrap_key(wrapped.data, algorithm="A256KW", key_name="then") == bytes(32)
        signature = await subtle.sign(bytes(32), algorithm="ES256", key_name="signer")
        assert await subtle.verify(bytes(32), signature, algorithm="ES256", key_name="old-signer")
        document = await provider.encrypt(b"text", key_name="now", decryption_key_name="then")
        assert await provider.decrypt(document) == b"text"


async def test_a_key_within_its_time_works() -> None:
    async with made(jwks(oct_key("key", nbf=time.time() - 60, exp=int(time.time()) + 600))) as provider:
        assert await use(provider, "key")


async def test_use_key_ops_and_alg_are_respected() -> None:
    keys = [
        oct_key("signs", use="sig"),
        oct_key("opens", key_ops=["decrypt"]),
        oct_key("wraps", alg="A256KW"),
    ]
    async with made(jwks(*keys)) as provider:
        for name in ("signs", "opens", "wraps"):
            with pytest.raises(KeyTypeError, match=name):
                await use(provider, name)
        assert await provider.decrypt(await provider.encrypt(b"x", key_name="wraps")) == b"x"
        with pytest.raises((DecryptionError, InvalidTagError)):
            await provider.subtle.decrypt(b"x", algorithm="A256GCM", key_name="opens", nonce=bytes(12), tag=bytes(16))


# a set on a server


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
    "a kid twice": (served("old", "old"), "'old' twice"),
    "no kid": (served("old", oct_key(None)), "no kid for key 2"),
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
