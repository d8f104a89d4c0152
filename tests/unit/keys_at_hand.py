"""One key for each algorithm, and what to use it on."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from lapel.crypto.algorithms import ALGORITHMS, KeyKind
from lapel_contrib.local.algorithms import (
    ENCRYPTION_ALGORITHMS,
)
from lapel_contrib.local.keys import KeyMaterial, LocalKey

RSA_KEY = rsa.generate_private_key(65_537, 2_048)
OTHER_RSA_KEY = rsa.generate_private_key(65_537, 2_048)
EC_KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}
ED_KEY = ed25519.Ed25519PrivateKey.generate()

SYMMETRIC = [name for name in ENCRYPTION_ALGORITHMS if ALGORITHMS[name].kind == "oct"]
RSA_ENCRYPTION = [name for name in ENCRYPTION_ALGORITHMS if ALGORITHMS[name].kind == "RSA"]
TAGGED = [name for name in SYMMETRIC if ALGORITHMS[name].tag_size]
MESSAGE = bytes(range(48))


def local(material: KeyMaterial, kind: KeyKind | None = None, **limits: Any) -> LocalKey:
    found: KeyKind = "oct" if isinstance(material, bytes) else "RSA"
    private = isinstance(material, bytes) or hasattr(material, "private_bytes")
    return LocalKey(name="mykey", kind=kind or found, material=material, private=private, **limits)


def key_for(algorithm: str, **limits: Any) -> LocalKey:
    info = ALGORITHMS[algorithm]
    if info.kind == "oct":
        return local(bytes(range(info.key_size or 0)), **limits)
    if info.kind == "EC":
        return local(EC_KEYS[algorithm], "EC", **limits)
    return local(RSA_KEY, **limits) if info.kind == "RSA" else local(ED_KEY, "OKP", **limits)


def public_of(key: LocalKey) -> LocalKey:
    assert isinstance(key.material, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
    return local(key.material.public_key(), key.kind)


def nonce_for(algorithm: str) -> bytes:
    return os.urandom(ALGORITHMS[algorithm].nonce_size)


def digest_for(algorithm: str, message: bytes = b"message") -> bytes:
    return message if algorithm == "EdDSA" else hashlib.new(f"sha{algorithm[-3:]}", message).digest()
