"""Keys as they lie in files: JWK, PEM, DER, base64 or raw bytes.

The format is recognised as Dapr does it: JWK when the data begins with `{` and has none of the lengths 16, 24 and 32;
PEM when it begins with `-----`; else a symmetric key, as base64, as base64 with the URL-safe alphabet, or raw. Beyond
Dapr, a complete DER structure is recognised before that last step.

Trap, kept for compatibility: a raw key made of letters and digits is valid base64 and gets decoded, so 32 such
characters are a key of 24 bytes. Store symmetric keys as base64.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from joserfc import jwk
from joserfc.errors import JoseError

from lapel.crypto.algorithms import KeyKind, KeyOperation
from lapel.errors import KeyTypeError

from . import rsa_keys

__all__ = ["KeyFormat", "KeyMaterial", "LocalKey", "holds_secret", "parse_jwk", "parse_key"]

KeyFormat = Literal["jwk", "pem", "der"]
"""A format that is known beforehand, for example from the file's extension."""

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | x25519.X25519PrivateKey
    | x448.X448PrivateKey
)
PublicKey = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | ed448.Ed448PublicKey
    | x25519.X25519PublicKey
    | x448.X448PublicKey
)
KeyMaterial = bytes | PrivateKey | PublicKey
"""Bytes of a symmetric key, or a key object of `cryptography`."""

_SIGNING: Final = frozenset({"sign", "verify"})
_RENEWING: Final = frozenset({"encrypt", "wrapKey", "sign"})
_FAR: Final = 1e15
"""Seconds that are certainly no date any more."""
_AES_LENGTHS: Final = frozenset({16, 24, 32})
_NUMBERS: Final = ("k", "n", "e", "d", "p", "q", "dp", "dq", "qi", "x", "y")
"""Members of a JWK that are bytes or numbers in base64."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class LocalKey:
    """A key in memory and the limits that its JWK puts on it.

    `private` is True for a symmetric key and for one with its private part. `use`, `key_ops` and `alg` are None when
    the key has no such limit. `not_before` and `expires` are seconds since 1970; what was made with a key within its
    time can be decrypted and verified for ever. `repr` and `str` show name and kind, never the material.
    """

    name: str
    kind: KeyKind
    material: KeyMaterial
    private: bool
    use: str | None = None
    key_ops: frozenset[str] | None = None
    alg: str | None = None
    not_before: float | None = None
    expires: float | None = None

    def __repr__(self) -> str:
        return f"<LocalKey {self.name!r} {self.kind}>"

    def allow(self, operation: KeyOperation, algorithm: str) -> None:
        """Raise `KeyTypeError` when the key's `use`, `key_ops`, `alg` or time forbids the operation."""
        if self.alg is not None and self.alg != algorithm:
            raise KeyTypeError(f"key {self.name!r} is made for algorithm {self.alg}, not for {algorithm}")
        needed = "sig" if operation in _SIGNING else "enc"
        if self.use is not None and self.use != needed:
            raise KeyTypeError(f"key {self.name!r} may not be used to {operation}: its use is {self.use!r}")
        if self.key_ops is not None and operation not in self.key_ops:
            allowed = ", ".join(sorted(self.key_ops)) or "nothing"
            raise KeyTypeError(f"key {self.name!r} may not be used to {operation}: its key_ops allow {allowed}")
        if operation in _RENEWING:
            self._check_time(operation)

    def _check_time(self, operation: KeyOperation) -> None:
        if self.not_before is None and self.expires is None:
            return
        now = time.time()
        if self.not_before is not None and now < self.not_before:
            start = _time_text(self.not_before)
            raise KeyTypeError(f"key {self.name!r} may not be used to {operation} before {start} (its nbf)")
        if self.expires is not None and now >= self.expires:
            end = _time_text(self.expires)
            raise KeyTypeError(f"key {self.name!r} may not be used to {operation} since {end} (its exp)")


def parse_key(data: bytes, name: str, known: KeyFormat | None = None) -> LocalKey:
    """Return the key that `data` holds; `known` skips the recognition.

    Raises `KeyTypeError` naming the key when the data is empty, encrypted, damaged, of a kind that is not supported, or
    not of its format. The error never holds any of the data.
    """
    if not data:
        raise KeyTypeError(f"key {name!r} is empty")
    known = known or _format_of(data)
    if known == "jwk":
        return _parse_json(data, name)
    if known == "pem":
        return _parse_pem(data, name)
    if known == "der" or _looks_like_der(data):
        key = _parse_der(data, name)
        if key is not None:
            return key
        if known == "der":
            raise KeyTypeError(f"key {name!r} is not readable DER: expected PKCS#8, PKCS#1, SEC1 or a public key")
    material = _decode_base64(data)
    if not material:
        raise KeyTypeError(f"key {name!r} is empty")
    return LocalKey(name=name, kind="oct", material=material, private=True)


def holds_secret(data: bytes, known: KeyFormat | None = None) -> bool:
    """Tell from the look of it whether the data is a symmetric or private key, without parsing it as one.

    Answers as `private` of the key that `parse_key` would return, and may be True where it would raise. Raw bytes that
    begin like a public key in DER are taken for one.
    """
    known = known or _format_of(data)
    if known == "jwk":
        members = _members(data)
        return members is not None and not members.keys().isdisjoint(("d", "k"))
    if known == "pem":
        return b"PRIVATE KEY-----" in data and not _is_locked(data)
    if _looks_like_der(data):
        # A private key begins with its version, an INTEGER of one byte; a public one with its algorithm, a SEQUENCE, or
        # with its modulus. What begins otherwise is none of them, but raw bytes.
        start = 2 if data[1] < 0x80 else data[1] - 0x7E
        tag, length = data[start : start + 1], data[start + 1 : start + 2]
        return tag != b"\x30" and (tag != b"\x02" or length == b"\x01")
    return known != "der" and bool(_decode_base64(data))


def parse_jwk(members: Mapping[str, Any], name: str) -> LocalKey:
    """Return the key that a JWK describes, with its `use`, `key_ops`, `alg`, `nbf` and `exp` as limits.

    As in Dapr, numbers may be in base64 of either alphabet, padded or not, and an empty `alg` is none. Raises
    `KeyTypeError` naming the key when it is not a JWK of kind oct, RSA, EC or OKP, a member is missing or wrong, or its
    limits contradict each other. The error never holds a member's value.
    """
    use: Any
    key_ops: Any
    alg: Any
    members = {member: _url_safe(value) if member in _NUMBERS else value for member, value in members.items()}
    try:
        private = rsa_keys.from_members(members) if members.get("kty") == "RSA" and "d" in members else None
        hidden = rsa_keys.PRIVATE_MEMBERS if private is not None else frozenset()
        key = jwk.import_key({member: value for member, value in members.items() if member not in hidden})
        material: object = key.raw_value if isinstance(key, jwk.OctKey) else key.private_key or key.public_key
        material = private or material
        use, key_ops, alg = key.get("use"), key.get("key_ops"), key.get("alg")
    # A JWK is foreign input: the parser meets lists for texts and numbers for keys.
    except (JoseError, ValueError, TypeError, AttributeError, KeyError, UnsupportedAlgorithm):
        material, use, key_ops, alg = None, None, None, None
    well_formed = isinstance(key_ops, list | None) and isinstance(use, str | None) and isinstance(alg, str | None)
    if material is None or not well_formed:
        raise KeyTypeError(
            f"key {name!r} is not a JWK that can be read: expected kty oct, RSA, EC or OKP with all members of"
            " that kind, and use and key_ops that do not contradict each other"
        )
    return _make(
        material,
        name,
        use=use,
        key_ops=frozenset(map(str, key_ops)) if key_ops is not None else None,
        alg=alg or None,
        not_before=_seconds(members, "nbf", name),
        expires=_seconds(members, "exp", name),
    )


def _seconds(members: Mapping[str, Any], member: str, name: str) -> float | None:
    value = members.get(member)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_FAR < value < _FAR:
        raise KeyTypeError(f"key {name!r} has an {member} that is not a number of seconds since 1970")
    return value


def _time_text(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s after 1970"


def _format_of(data: bytes) -> KeyFormat | None:
    if data[:1] == b"{" and len(data) not in _AES_LENGTHS:
        return "jwk"
    return "pem" if data[:5] == b"-----" else None


def _members(data: bytes) -> dict[str, Any] | None:
    try:
        members = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return members if isinstance(members, dict) else None


def _url_safe(value: object) -> object:
    return value.translate({0x2B: "-", 0x2F: "_"}).rstrip("=") if isinstance(value, str) else value


def _is_locked(data: bytes) -> bool:
    return b"BEGIN ENCRYPTED" in data or b"4,ENCRYPTED" in data


def _parse_json(data: bytes, name: str) -> LocalKey:
    members = _members(data)
    if members is None:
        raise KeyTypeError(f"key {name!r} is not a JSON object, as a JWK must be")
    if "keys" in members and "kty" not in members:
        raise KeyTypeError(f"key {name!r} is a set of keys (JWKS): store each key in a file of its own")
    return parse_jwk(members, name)


def _parse_pem(data: bytes, name: str) -> LocalKey:
    private = b"PRIVATE KEY-----" in data
    if _is_locked(data):
        raise KeyTypeError(f"key {name!r} is protected by a password, which is not supported: store it decrypted")
    try:
        material: object = (
            load_pem_private_key(data, None, unsafe_skip_rsa_key_validation=True)
            if private
            else load_pem_public_key(data)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        material = None
    if material is None:
        raise KeyTypeError(
            f"key {name!r} is not readable PEM: expected a private key (PKCS#8, PKCS#1, SEC1) or a public key"
        )
    return _make(material, name)


def _parse_der(data: bytes, name: str) -> LocalKey | None:
    try:
        return _make(load_der_private_key(data, None, unsafe_skip_rsa_key_validation=True), name)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    try:
        return _make(load_der_public_key(data), name)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _looks_like_der(data: bytes) -> bool:
    """Tell whether the data is one SEQUENCE whose stated length is the data's."""
    if len(data) < 4 or data[0] != 0x30 or len(data) in _AES_LENGTHS:
        return False
    if data[1] < 0x80:
        return len(data) == 2 + data[1]
    width = data[1] - 0x80
    return 1 <= width <= 2 and len(data) == 2 + width + int.from_bytes(data[2 : 2 + width], "big")


def _decode_base64(data: bytes) -> bytes:
    text = data.translate(None, b"\r\n").rstrip(b"=")
    padded = text + b"=" * (-len(text) % 4)
    url_safe = b"+" not in text and b"/" not in text
    try:
        return b64decode(padded.translate(bytes.maketrans(b"-_", b"+/")) if url_safe else padded, validate=True)
    except ValueError:
        return data


def _make(
    material: object,
    name: str,
    *,
    use: str | None = None,
    key_ops: frozenset[str] | None = None,
    alg: str | None = None,
    not_before: float | None = None,
    expires: float | None = None,
) -> LocalKey:
    kind: KeyKind
    if isinstance(material, rsa.RSAPrivateKey) and not rsa_keys.belongs_together(material):
        raise KeyTypeError(f"key {name!r} is damaged: its numbers are not those of one RSA key; restore it from a copy")
    match material:
        case bytes():
            kind = "oct"
        case rsa.RSAPrivateKey() | rsa.RSAPublicKey():
            kind = "RSA"
        case ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey():
            kind = "EC"
        case (
            ed25519.Ed25519PrivateKey()
            | ed25519.Ed25519PublicKey()
            | ed448.Ed448PrivateKey()
            | ed448.Ed448PublicKey()
            | x25519.X25519PrivateKey()
            | x25519.X25519PublicKey()
            | x448.X448PrivateKey()
            | x448.X448PublicKey()
        ):
            kind = "OKP"
        case _:
            raise KeyTypeError(f"key {name!r} is of a kind that is not supported: expected RSA, EC or OKP")
    private = isinstance(material, bytes | PrivateKey)
    return LocalKey(
        name=name,
        kind=kind,
        material=material,
        private=private,
        use=use,
        key_ops=key_ops,
        alg=alg,
        not_before=not_before,
        expires=expires,
    )
