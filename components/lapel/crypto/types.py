"""What goes between an application, `CryptoProvider` and a `CryptoDriver`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = [
    "Bytes",
    "Ciphertext",
    "DecryptRequest",
    "EncryptRequest",
    "KeyRequest",
    "PublicKey",
    "SignRequest",
    "UnwrapKeyRequest",
    "VerifyRequest",
    "WrapKeyRequest",
]


Bytes = bytes | bytearray | memoryview
"""What bytes may come as. The owner of a mutable one must not change it before the call is done with it."""


class KeyRequest(msgspec.Struct, frozen=True):
    """Name a key: `name`, or `name/version` where the provider has versions."""

    key_name: str


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """The public part of an asymmetric key: `jwk` as members of a JSON Web Key, `pem` as PKIX PEM."""

    name: str
    jwk: Mapping[str, Any]
    pem: str


class Ciphertext(msgspec.Struct, frozen=True, kw_only=True):
    """What encryption or key wrapping gives. `tag` is None for algorithms without one; `nonce` is the one used."""

    data: bytes
    tag: bytes | None = None
    nonce: bytes | None = None


class EncryptRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Encrypt a short message. `nonce` is of the algorithm's length, None for algorithms without one."""

    plaintext: bytes
    algorithm: str
    key_name: str
    nonce: bytes | None = None
    associated_data: bytes | None = None

    def __repr__(self) -> str:
        return f"<EncryptRequest {self.algorithm} {self.key_name!r}>"


class DecryptRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Decrypt a short message."""

    ciphertext: bytes
    algorithm: str
    key_name: str
    nonce: bytes | None = None
    tag: bytes | None = None
    associated_data: bytes | None = None


class WrapKeyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Encrypt key material: raw bytes of a symmetric key, PKCS#8 of a private one, PKIX of a public one."""

    key: bytes
    algorithm: str
    key_name: str
    nonce: bytes | None = None
    associated_data: bytes | None = None

    def __repr__(self) -> str:
        return f"<WrapKeyRequest {self.algorithm} {self.key_name!r}>"


class UnwrapKeyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Decrypt key material; the caller knows what kind of key it is."""

    wrapped: bytes
    algorithm: str
    key_name: str
    nonce: bytes | None = None
    tag: bytes | None = None
    associated_data: bytes | None = None


class SignRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Sign `digest`, made by the caller with the algorithm's hash; for EdDSA it is the whole message."""

    digest: bytes
    algorithm: str
    key_name: str

    def __repr__(self) -> str:
        return f"<SignRequest {self.algorithm} {self.key_name!r}>"


class VerifyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Check a signature. ECDSA signatures are ASN.1 DER."""

    digest: bytes
    signature: bytes
    algorithm: str
    key_name: str

    def __repr__(self) -> str:
        return f"<VerifyRequest {self.algorithm} {self.key_name!r}>"
