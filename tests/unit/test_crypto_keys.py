"""Keys in files: which formats are recognised, which names are refused, and when files are read again."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc.jwk import ECKey, OKPKey, RSAKey

from lapel.errors import (
    ClosedError,
    ConfigurationError,
    InvalidArgumentError,
    KeyTypeError,
    LapelError,
    NotFoundError,
    PermissionDeniedError,
)
from lapel_contrib.local import keyfiles
from lapel_contrib.local.algorithms import decrypt, encrypt, serialize
from lapel_contrib.local.keyfiles import MAX_KEY_FILE, KeyFolder
from lapel_contrib.local.keys import LocalKey, parse_jwk, parse_key

RSA_KEY = rsa.generate_private_key(65_537, 2_048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PLAIN = NoEncryption()
FORMATS: dict[str, tuple[Any, PrivateFormat, str]] = {
    "RSA PKCS#1": (RSA_KEY, PrivateFormat.TraditionalOpenSSL, "RSA"),
    "RSA PKCS#8": (RSA_KEY, PrivateFormat.PKCS8, "RSA"),
    "EC SEC1": (EC_KEY, PrivateFormat.TraditionalOpenSSL, "EC"),
    "EC PKCS#8": (EC_KEY, PrivateFormat.PKCS8, "EC"),
    "Ed25519 PKCS#8": (ED_KEY, PrivateFormat.PKCS8, "OKP"),
}
PUBLIC_FORMATS: dict[str, tuple[Any, PublicFormat, str]] = {
    "RSA PKIX": (RSA_KEY.public_key(), PublicFormat.SubjectPublicKeyInfo, "RSA"),
    "RSA PKCS#1": (RSA_KEY.public_key(), PublicFormat.PKCS1, "RSA"),
    "EC PKIX": (EC_KEY.public_key(), PublicFormat.SubjectPublicKeyInfo, "EC"),
    "Ed25519 PKIX": (ED_KEY.public_key(), PublicFormat.SubjectPublicKeyInfo, "OKP"),
}
SECRET = bytes(range(100, 132))
SECRET_TEXT = base64.b64encode(SECRET).decode()


def url_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(**members: Any) -> dict[str, Any]:
    return {"kty": "oct", "k": url_text(SECRET)} | members


# --- formats


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("name", FORMATS)
def test_private_keys_are_recognised(name: str, encoding: Encoding) -> None:
    private, form, kind = FORMATS[name]
    key = parse_key(private.private_bytes(encoding, form, PLAIN), "k")
    assert (key.kind, key.private, key.name) == (kind, True, "k")
    assert not isinstance(key.material, bytes)
    assert serialize(key) == private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, PLAIN)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("name", PUBLIC_FORMATS)
def test_public_keys_are_recognised(name: str, encoding: Encoding) -> None:
    public, form, kind = PUBLIC_FORMATS[name]
    key = parse_key(public.public_bytes(encoding, form), "k")
    assert (key.kind, key.private) == (kind, False)
    assert key.material == public


@pytest.mark.parametrize(
    ("cls", "private", "kind"), [(RSAKey, RSA_KEY, "RSA"), (ECKey, EC_KEY, "EC"), (OKPKey, ED_KEY, "OKP")]
)
def test_jwks_are_recognised_with_and_without_private_part(cls: Any, private: Any, kind: str) -> None:
    other = cls.import_key(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN))
    for with_private, expected in ((True, private), (False, private.public_key())):
        key = parse_key(json.dumps(other.as_dict(private=with_private)).encode(), "k")
        assert (key.kind, key.private) == (kind, with_private)
        assert serialize(key) == serialize(LocalKey("k", key.kind, expected, with_private))


@pytest.mark.parametrize("length", [16, 24, 32, 48, 64])
def test_symmetric_keys_are_read_as_base64_of_both_alphabets_or_raw(length: int) -> None:
    secret = (b"\xfb\xef\xff" + bytes(range(64)))[:length]
    standard, url_safe = base64.b64encode(secret), base64.urlsafe_b64encode(secret)
    assert b"+" in standard
    assert b"-" in url_safe
    for text in (standard, url_safe):
        for written in (
            text,
            text.rstrip(b"="),
            text + b"\n",
            text.rstrip(b"=") + b"\r\n",
            text[:20] + b"\n" + text[20:],
        ):
            assert parse_key(written, "k").material == secret
    assert parse_key(secret, "k").material == secret


def test_a_text_of_mixed_alphabets_is_raw() -> None:
    assert parse_key(b"+-" * 16, "k").material == b"+-" * 16


def test_a_raw_key_of_letters_and_digits_is_decoded_as_dapr_does() -> None:
    assert len(parse_key(b"abcdefghijklmnopqrstuvwxyz012345", "k").material) == 24  # type: ignore[arg-type]  # symmetric


@pytest.mark.parametrize("length", [16, 24, 32])
def test_a_raw_key_may_begin_like_a_jwk(length: int) -> None:
    secret = b"{" + b"\xff" * (length - 1)
    assert parse_key(secret, "k").material == secret


@pytest.mark.parametrize("length", [16, 24, 32])
def test_a_raw_key_may_begin_like_der(length: int) -> None:
    secret = b"\x30" + bytes([length - 2]) + b"\xff" * (length - 2)
    assert parse_key(secret, "k").material == secret


def test_bytes_that_only_look_like_der_are_a_raw_key() -> None:
    secret = b"\x30\x3e" + b"\xff" * 62
    assert parse_key(secret, "k").material == secret


def test_limits_of_a_jwk_are_kept() -> None:
    key = parse_jwk(jwk(use="enc", key_ops=["encrypt", "decrypt"], alg="A256GCM"), "k")
    assert (key.material, key.use, key.alg) == (SECRET, "enc", "A256GCM")
    assert key.key_ops == frozenset({"encrypt", "decrypt"})
    assert parse_jwk(jwk(), "k").key_ops is None
    with pytest.raises(KeyTypeError, match="A256GCM"):
        encrypt(key, "A256KW", bytes(16))


DSA_KEY = dsa.generate_private_key(1_024)
LOCKED = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
LOCKED_OLD = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"==",
        b"{",
        b'{"kty": "oct"}',
        b'{"kty": "oct", "k": "' + SECRET_TEXT.encode() + b'!"}',
        b'{"kty": "oct", "k": 5}',
        b'{"kty": 5}',
        b'{"kty": ["oct"], "k": "AAAA"}',
        b'{"kty": "unheard of"}',
        b"{}" + b" " * 40,
        b'{"keys": []}' + b" " * 40,
        b'{"kty":' + b"[" * 50_000,
        json.dumps(jwk(use="sig", key_ops=["encrypt"])).encode(),
        json.dumps(jwk(use="other")).encode(),
        json.dumps(jwk(key_ops="encrypt")).encode(),
        json.dumps(jwk(alg=5)).encode(),
        b"-----BEGIN PUBLIC KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        LOCKED,
        LOCKED_OLD,
        DSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN),
    ],
)
def test_what_is_no_key_is_a_typed_error_that_names_the_key(data: bytes) -> None:
    with pytest.raises(KeyTypeError, match="'mykey'") as caught:
        parse_key(data, "mykey")
    assert SECRET_TEXT[:20] not in repr(caught.value) + repr(caught.value.__context__)


@pytest.mark.parametrize("known", ["jwk", "pem", "der"])
def test_a_known_format_is_not_guessed(known: Any) -> None:
    with pytest.raises(KeyTypeError):
        parse_key(SECRET_TEXT.encode(), "k", known)


def test_a_key_shows_its_name_and_kind_only() -> None:
    keys = [parse_key(SECRET, "one"), parse_jwk(jwk(), "two"), LocalKey("three", "RSA", RSA_KEY, True)]
    assert [repr(key) for key in keys] == ["<LocalKey 'one' oct>", "<LocalKey 'two' oct>", "<LocalKey 'three' RSA>"]
    assert [str(key) for key in keys] == [repr(key) for key in keys]


# --- folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "keys"
    root.mkdir()
    write(root / "secret", SECRET_TEXT.encode())
    return root


def write(path: Path, data: bytes, *, mode: int = 0o600, age: float = 60) -> None:
    path.write_bytes(data)
    path.chmod(mode)
    stamp = path.stat().st_mtime - age
    os.utime(path, (stamp, stamp))


async def test_a_key_is_named_like_its_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    write(folder / "sub" / "rsa.pem", RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN))
    write(folder / "sub" / "key.json", json.dumps(jwk()).encode())
    write(folder / "ed.der", ED_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    keys = KeyFolder(folder)
    loaded = [await keys.load(name) for name in ("secret", "sub/rsa.pem", "sub/key.json", "ed.der")]
    assert [(key.name, key.kind) for key in loaded] == [
        ("secret", "oct"),
        ("sub/rsa.pem", "RSA"),
        ("sub/key.json", "oct"),
        ("ed.der", "OKP"),
    ]
    nonce = bytes(12)
    sealed, tag = encrypt(loaded[0], "A256GCM", b"message", nonce)
    assert decrypt(loaded[2], "A256GCM", sealed, nonce, tag) == b"message"
    await keys.aclose()


async def test_the_extension_decides_on_the_format(folder: Path) -> None:
    for name in ("key.json", "key.PEM", "key.der"):
        write(folder / name, SECRET_TEXT.encode())
        with pytest.raises(KeyTypeError, match=name):
            await KeyFolder(folder).load(name)


@pytest.mark.parametrize("name", ["", "..", "../outside", "sub/../secret", "a..b", "/etc/hostname", "nul\0", "\0"])
async def test_names_that_could_leave_the_folder_are_refused(folder: Path, name: str) -> None:
    write(folder.parent / "outside", SECRET)
    with pytest.raises(InvalidArgumentError, match="key name"):
        await KeyFolder(folder).load(name)


@pytest.mark.parametrize("name", [".", "missing", "sub/missing", "secret/below", "sub", "x" * 300, "%2e%2e%2foutside"])
async def test_names_without_a_file_are_not_found(folder: Path, name: str) -> None:
    (folder / "sub").mkdir()
    write(folder.parent / "outside", SECRET)
    with pytest.raises(NotFoundError):
        await KeyFolder(folder).load(name)


async def test_links_may_lead_within_the_folder_only(folder: Path) -> None:
    write(folder.parent / "outside", SECRET)
    (folder / "escape").symlink_to(folder.parent / "outside")
    (folder / "up").symlink_to(folder.parent)
    (folder / "inside").symlink_to("secret")
    (folder / "loop").symlink_to("loop")
    keys = KeyFolder(folder)
    for name in ("escape", "up/outside"):
        with pytest.raises(InvalidArgumentError, match="leads out"):
            await keys.load(name)
    with pytest.raises(NotFoundError):
        await keys.load("loop")
    assert (await keys.load("inside")).material == SECRET


async def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    assert (await KeyFolder(folder.parent / "link").load("secret")).material == SECRET


async def test_pipes_and_huge_files_are_no_keys(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    write(folder / "huge", b"A" * (MAX_KEY_FILE + 1))
    keys = KeyFolder(folder)
    with pytest.raises(NotFoundError):
        await keys.load("pipe")
    with pytest.raises(KeyTypeError, match=str(MAX_KEY_FILE)):
        await keys.load("huge")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
async def test_a_file_that_may_not_be_read_is_a_typed_error(folder: Path) -> None:
    (folder / "secret").chmod(0)
    with pytest.raises(PermissionDeniedError, match="'secret'"):
        await KeyFolder(folder).load("secret")


async def test_check_tells_whether_the_folder_exists(folder: Path) -> None:
    await KeyFolder(folder).check()
    for path in (folder / "missing", folder / "secret"):
        with pytest.raises(ConfigurationError, match="existing folder"):
            await KeyFolder(path).check()


async def test_an_unchanged_file_is_parsed_once_and_a_changed_one_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []

    def counting(data: bytes, name: str, known: Any = None) -> LocalKey:
        parsed.append(name)
        return parse_key(data, name, known)

    monkeypatch.setattr(keyfiles, "parse_key", counting)
    keys = KeyFolder(folder)
    assert await keys.load("secret") is await keys.load("secret")
    assert parsed == ["secret"]

    replacement = folder / "new"
    write(replacement, b"\xff" * 32)
    replacement.replace(folder / "secret")
    assert (await keys.load("secret")).material == b"\xff" * 32

    write(folder / "secret", b"\xfe" * 32)
    assert (await keys.load("secret")).material == b"\xfe" * 32

    (folder / "secret").unlink()
    with pytest.raises(NotFoundError):
        await keys.load("secret")


async def test_a_file_written_just_now_is_read_again_even_with_the_same_stamp(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = keyfiles._Stamp(1, 1, 32, 0, 0)
    monkeypatch.setattr(keyfiles, "_stamp", lambda status: coarse)
    keys = KeyFolder(folder)
    for value in (200, 201):
        write(folder / "secret", bytes([value]) * 32, age=0)
        assert (await keys.load("secret")).material == bytes([value]) * 32


async def test_concurrent_calls_share_one_look_and_a_cancelled_one_disturbs_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, release = [], threading.Event()

    def slow(data: bytes, name: str, known: Any = None) -> LocalKey:
        parsed.append(name)
        release.wait(10)
        return parse_key(data, name, known)

    monkeypatch.setattr(keyfiles, "parse_key", slow)
    keys = KeyFolder(folder)
    calls = [asyncio.create_task(keys.load("secret")) for _ in range(100)]
    while not parsed:
        await asyncio.sleep(0.001)
    calls[0].cancel()
    await asyncio.wait([calls[0]])
    release.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert {id(result) for result in results[1:]} == {id(results[1])}
    assert parsed == ["secret"]


async def test_close_waits_for_the_loads_under_way_and_is_final(folder: Path) -> None:
    keys = KeyFolder(folder)
    call = asyncio.create_task(keys.load("secret"))
    await asyncio.sleep(0)
    await keys.aclose()
    await keys.aclose()
    assert (await call).material == SECRET
    with pytest.raises(ClosedError):
        await keys.load("secret")


async def test_a_failing_load_that_nobody_waits_for_leaves_no_trace(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyFolder(folder)
    call = asyncio.create_task(keys.load("missing"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await keys.aclose()
    assert not caplog.records


@pytest.mark.skipif(os.name != "posix", reason="file modes")
async def test_a_secret_that_others_may_read_is_reported_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder / "open", SECRET, mode=0o640)
    public = EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write(folder / "public.pem", public, mode=0o644)
    keys = KeyFolder(folder)
    with caplog.at_level(logging.WARNING):
        for name in ("open", "public.pem", "secret", "open"):
            await keys.load(name)
        write(folder / "open", SECRET[::-1], mode=0o644)
        await keys.load("open")
    assert [record.getMessage() for record in caplog.records] == [
        "key file 'open' may be read by group or others (mode 0640): make it 0600"
    ]


async def test_errors_of_a_folder_never_hold_the_material(folder: Path) -> None:
    write(folder / "broken.json", b'{"kty":"oct","k":"' + SECRET_TEXT.encode() + b'",}')
    with pytest.raises(LapelError) as caught:
        await KeyFolder(folder).load("broken.json")
    seen: BaseException | None = caught.value
    while seen is not None:
        assert SECRET_TEXT[:16] not in repr(seen)
        seen = seen.__cause__ or seen.__context__
