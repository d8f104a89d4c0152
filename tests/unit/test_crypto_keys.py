"""Which formats of keys are recognised, and what a key shows of itself."""

from __future__ import annotations

import base64
import json
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

from lapel.errors import KeyTypeError
from lapel_contrib.local.algorithms import encrypt, serialize
from lapel_contrib.local.keys import LocalKey, holds_secret, parse_jwk, parse_key

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
DSA_KEY = dsa.generate_private_key(1_024)
LOCKED = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
LOCKED_OLD = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret"))
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


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_the_look_of_a_key_tells_whether_it_is_secret(encoding: Encoding) -> None:
    for private, form, _ in FORMATS.values():
        assert holds_secret(private.private_bytes(encoding, form, PLAIN))
    for public, public_form, _ in PUBLIC_FORMATS.values():
        assert not holds_secret(public.public_bytes(encoding, public_form))


@pytest.mark.parametrize("data", [SECRET, SECRET_TEXT.encode(), json.dumps(jwk()).encode(), b"\x30\x3e" + b"\xff" * 62])
def test_the_look_of_a_symmetric_key_tells_that_it_is_secret(data: bytes) -> None:
    assert holds_secret(data)
    assert parse_key(data, "k").private


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (b"", None),
        (b"==", None),
        (b"{}" + b" " * 40, None),
        (b"{" * 40, None),
        (b"[1]", "jwk"),
        (SECRET_TEXT.encode(), "jwk"),
        (SECRET_TEXT.encode(), "pem"),
        (SECRET_TEXT.encode(), "der"),
        (b"\x30\x81\x01\x02", "der"),
        (LOCKED, None),
        (LOCKED_OLD, None),
    ],
)
def test_what_is_no_key_that_can_be_read_is_no_secret(data: bytes, known: Any) -> None:
    assert not holds_secret(data, known)


@pytest.mark.parametrize("write", [base64.b64encode, base64.urlsafe_b64encode, lambda data: url_text(data).encode()])
def test_the_numbers_of_a_jwk_may_be_of_any_base64(write: Any) -> None:
    secret = b"\xfb\xef\xff" + bytes(29)
    assert parse_jwk(jwk(k=write(secret).decode()), "k").material == secret
    for cls, private in ((RSAKey, RSA_KEY), (ECKey, EC_KEY), (OKPKey, ED_KEY)):
        plain = cls.import_key(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN)).as_dict(private=True)
        written = {
            name: write(base64.urlsafe_b64decode(f"{value}==")).decode() if name not in ("kty", "crv") else value
            for name, value in plain.items()
        }
        key = parse_jwk(written, "k")
        assert serialize(key) == private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, PLAIN)
        public = {name: value for name, value in written.items() if name in ("kty", "crv", "n", "e", "x", "y")}
        assert parse_jwk(public, "k").material == private.public_key()


def test_an_empty_alg_is_no_limit() -> None:
    assert parse_jwk(jwk(alg=""), "k").alg is None


def test_limits_of_a_jwk_are_kept() -> None:
    key = parse_jwk(jwk(use="enc", key_ops=["encrypt", "decrypt"], alg="A256GCM"), "k")
    assert (key.material, key.use, key.alg) == (SECRET, "enc", "A256GCM")
    assert key.key_ops == frozenset({"encrypt", "decrypt"})
    assert parse_jwk(jwk(), "k").key_ops is None
    with pytest.raises(KeyTypeError, match="A256GCM"):
        encrypt(key, "A256KW", bytes(16))


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
