"""Key sets given inline and as files, and what their keys may be used for."""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.key_sets import EC_JWK, jwks, made, no_keys, oct_key, use

from lapel.errors import (
    ConfigurationError,
    DecryptionError,
    InvalidTagError,
    KeyTypeError,
    SettingsError,
)
from lapel.testing import row
from lapel_contrib.jwks.settings import JwksSettings
from lapel_contrib.local import algorithms
from lapel_contrib.local.keyring import INLINE_BYTES

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


async def test_what_takes_long_is_done_in_a_thread_associated_data_included(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def noting(work: Any) -> Any:
        def noted(*arguments: Any, **named: Any) -> Any:
            threads.append(threading.current_thread() is threading.main_thread())
            return work(*arguments, **named)

        return noted

    for name in ("encrypt", "decrypt"):
        monkeypatch.setattr(algorithms, name, noting(getattr(algorithms, name)))
    async with made(jwks("key")) as provider:
        for text, data, inline in ((1, 1, True), (INLINE_BYTES, 0, True), (INLINE_BYTES, 1, False)):
            for plain, associated in ((bytes(text), bytes(data)), (bytes(data), bytes(text))):
                threads.clear()
                options: Any = {"algorithm": "A256GCM", "key_name": "key", "associated_data": associated}
                subtle = provider.subtle
                sealed = await subtle.encrypt(plain, **options)
                wrapped = await subtle.wrap_key(plain, **options)
                more: Any = {**options, "nonce": sealed.nonce, "tag": sealed.tag}
                assert await subtle.decrypt(sealed.data, **more) == plain
                more |= {"nonce": wrapped.nonce, "tag": wrapped.tag}
                assert await subtle.unwrap_key(wrapped.data, **more) == plain
                assert threads == [inline] * 4


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
