"""Key operations on local keys, by JWA name.

Whatever is wrong with the algorithm's name, the key's kind, size or permitted use, and the length of nonce and tag is
raised with its own type before the key is used. Whatever depends on ciphertext, tag or key bytes is one
`DecryptionError` with one text. The functions compute in the calling thread; calls may overlap.

Nonces come from the caller and must never repeat under one key: a repeated one breaks GCM and ChaCha20-Poly1305.
`A*CBC` and `A*CBC-NOPAD` do not authenticate, so a changed ciphertext may decrypt to something else.

`RSA1_5` exists for old data. A ciphertext that was changed, or made for another key, gives random bytes instead of an
error, as a defence against padding oracles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc.errors import JoseError
from joserfc.jwk import import_key

from lapel.crypto.algorithms import ALGORITHMS, AlgorithmInfo, KeyOperation
from lapel.errors import (
    DecryptionError,
    InvalidArgumentError,
    InvalidLengthError,
    InvalidNonceError,
    InvalidTagError,
    KeyTypeError,
    NotFoundError,
    UnsupportedAlgorithmError,
)

from .keys import LocalKey, PrivateKey, PublicKey
from .symmetric import Cbc, CbcHmac, Gcm, KeyWrap, OpenError, Poly1305, SymmetricCipher, XPoly1305

__all__ = [
    "ENCRYPTION_ALGORITHMS",
    "SIGNATURE_ALGORITHMS",
    "decrypt",
    "encrypt",
    "public_jwk",
    "public_pem",
    "serialize",
    "sign",
    "verify",
]

_FAILED: Final = "decryption failed: wrong key, nonce, tag or associated data, or the ciphertext was changed"


_SIGNING: Final[frozenset[KeyOperation]] = frozenset({"sign", "verify"})
_PUBLIC: Final[frozenset[KeyOperation]] = frozenset({"encrypt", "wrapKey", "verify"})

_HASHES: Final[Mapping[str, Callable[[], hashes.HashAlgorithm]]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}


_CIPHERS: Final[Mapping[str, SymmetricCipher]] = {
    **{f"A{bits}CBC": Cbc(padded=True) for bits in (128, 192, 256)},
    **{f"A{bits}CBC-NOPAD": Cbc(padded=False) for bits in (128, 192, 256)},
    **{f"A{bits}GCM": Gcm() for bits in (128, 192, 256)},
    **{f"A{bits}CBC-HS{bits * 2}": CbcHmac(f"sha{bits * 2}") for bits in (128, 192, 256)},
    **{f"A{bits}KW": KeyWrap() for bits in (128, 192, 256)},
    **{f"C20P{suffix}": Poly1305() for suffix in ("", "KW")},
    **{f"XC20P{suffix}": XPoly1305() for suffix in ("", "KW")},
}

ENCRYPTION_ALGORITHMS: Final = tuple(name for name, info in ALGORITHMS.items() if "encrypt" in info.operations)
"""Names that `encrypt` and `decrypt` take, for messages and for keys."""

SIGNATURE_ALGORITHMS: Final = tuple(name for name, info in ALGORITHMS.items() if "sign" in info.operations)
"""Names that `sign` and `verify` take."""


def encrypt(
    key: LocalKey,
    algorithm: str,
    plaintext: bytes,
    nonce: bytes | None = None,
    associated_data: bytes | None = None,
    *,
    operation: Literal["encrypt", "wrapKey"] = "encrypt",
) -> tuple[bytes, bytes | None]:
    """Return ciphertext and tag; the tag is None for algorithms without one.

    RSA uses the public part of the key and takes associated data as OAEP label. A nonce is ignored where the
    algorithm has none. `operation` is what the key must permit.

    Raises `UnsupportedAlgorithmError`, `KeyTypeError`, `InvalidNonceError`, `InvalidLengthError` when the plaintext
    does not fit, and `InvalidArgumentError` for associated data that the algorithm would not protect.
    """
    info = _prepare(key, algorithm, operation, nonce, associated_data)
    if info.kind == "RSA":
        return _encrypt_rsa(key, algorithm, plaintext, associated_data), None
    return _CIPHERS[algorithm].seal(_secret(key), plaintext, nonce or b"", associated_data or b"")


def decrypt(
    key: LocalKey,
    algorithm: str,
    ciphertext: bytes,
    nonce: bytes | None = None,
    tag: bytes | None = None,
    associated_data: bytes | None = None,
    *,
    operation: Literal["decrypt", "unwrapKey"] = "decrypt",
) -> bytes:
    """Return the plaintext.

    Nonce and tag are ignored where the algorithm has none. Raises the errors of `encrypt`, `InvalidTagError` for a tag
    of the wrong length, and `DecryptionError` for everything that depends on ciphertext, tag or key bytes.
    """
    info = _prepare(key, algorithm, operation, nonce, associated_data)
    if info.tag_size and len(tag or b"") != info.tag_size:
        raise InvalidTagError(f"{algorithm} needs a tag of {info.tag_size} bytes, got {len(tag or b'')}")
    try:
        if info.kind == "RSA":
            return _decrypt_rsa(key, algorithm, ciphertext, associated_data)
        cipher = _CIPHERS[algorithm]
        return cipher.open(_secret(key), ciphertext, nonce or b"", tag or b"", associated_data or b"")
    except OpenError:
        raise DecryptionError(_FAILED) from None


def sign(key: LocalKey, algorithm: str, digest: bytes) -> bytes:
    """Return the signature of a digest; `EdDSA` takes the whole message instead.

    ECDSA signatures are ASN.1 DER, on any curve; PSS salts are as long as the key allows. Raises
    `UnsupportedAlgorithmError`, `KeyTypeError`, and `InvalidLengthError` for a digest of another hash.
    """
    info = _prepare(key, algorithm, "sign")
    _check_digest(info, digest)
    material = key.material
    try:
        if isinstance(material, rsa.RSAPrivateKey):
            pad = _signature_padding(algorithm, signing=True)
            return material.sign(digest, pad, Prehashed(_hash(algorithm)))
        if isinstance(material, ec.EllipticCurvePrivateKey):
            return material.sign(digest, ec.ECDSA(Prehashed(_hash(algorithm))))
        if isinstance(material, ed25519.Ed25519PrivateKey):
            return material.sign(digest)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyTypeError(f"key {key.name!r} is too small for {algorithm}") from None
    raise KeyTypeError(f"{algorithm} needs an Ed25519 key, key {key.name!r} is of another curve")


def verify(key: LocalKey, algorithm: str, digest: bytes, signature: bytes) -> bool:
    """Tell whether the signature was made for this digest (`EdDSA`: message) with the private part of this key.

    Whatever is wrong with the signature itself, its length included, is False. Raises what `sign` raises.
    """
    info = _prepare(key, algorithm, "verify")
    _check_digest(info, digest)
    material = _public(key)
    try:
        if isinstance(material, rsa.RSAPublicKey):
            pad = _signature_padding(algorithm, signing=False)
            material.verify(signature, digest, pad, Prehashed(_hash(algorithm)))
        elif isinstance(material, ec.EllipticCurvePublicKey):
            material.verify(signature, digest, ec.ECDSA(Prehashed(_hash(algorithm))))
        elif isinstance(material, ed25519.Ed25519PublicKey):
            material.verify(signature, digest)
        else:
            raise KeyTypeError(f"{algorithm} needs an Ed25519 key, key {key.name!r} is of another curve")
    except (InvalidSignature, ValueError):
        return False
    return True


def public_jwk(key: LocalKey) -> dict[str, str]:
    """Return the public part as a JWK without limits or key id.

    Raises `NotFoundError` for a symmetric key, which has none, and `KeyTypeError` for a curve that JWK cannot name.
    """
    pem = public_pem(key).encode()
    try:
        members = import_key(pem, key.kind).as_dict(private=False)
        return {name: str(value) for name, value in members.items()}
    except (JoseError, ValueError, KeyError):
        raise KeyTypeError(f"key {key.name!r} is on a curve that has no name as JWK: ask for PEM") from None


def public_pem(key: LocalKey) -> str:
    """Return the public part as PEM (`PUBLIC KEY`). Raises `NotFoundError` for a symmetric key, which has none."""
    if isinstance(key.material, bytes):
        raise NotFoundError(f"key {key.name!r} is symmetric: it has no public part")
    return _public(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def serialize(key: LocalKey) -> bytes:
    """Return the key as it is wrapped: a symmetric one raw, a private one PKCS#8 DER, a public one PKIX DER.

    The result of the first two is secret.
    """
    material = key.material
    if isinstance(material, bytes):
        return material
    if isinstance(material, PrivateKey):
        return material.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _prepare(
    key: LocalKey,
    algorithm: str,
    operation: KeyOperation,
    nonce: bytes | None = None,
    associated_data: bytes | None = None,
) -> AlgorithmInfo:
    info = ALGORITHMS.get(algorithm)
    if info is None or operation not in info.operations:
        names = SIGNATURE_ALGORITHMS if operation in _SIGNING else ENCRYPTION_ALGORITHMS
        raise UnsupportedAlgorithmError(f"{algorithm!r} cannot {operation}: use one of {', '.join(names)}")
    if key.kind != info.kind:
        raise KeyTypeError(f"{algorithm} needs a key of kind {info.kind}, key {key.name!r} is {key.kind}")
    if isinstance(key.material, bytes) and len(key.material) != info.key_size:
        raise KeyTypeError(
            f"{algorithm} needs a key of {info.key_size} bytes, key {key.name!r} has {len(key.material)};"
            " a raw key that happens to be valid base64 is decoded, so store keys as base64"
        )
    if not key.private and operation not in _PUBLIC:
        raise KeyTypeError(f"key {key.name!r} is public: it cannot {operation}")
    key.allow(operation, algorithm)
    if info.nonce_size and len(nonce or b"") != info.nonce_size:
        raise InvalidNonceError(f"{algorithm} needs a nonce of {info.nonce_size} bytes, got {len(nonce or b'')}")
    if associated_data and not info.associated_data:
        raise InvalidArgumentError(f"{algorithm} does not protect associated data: pass none, or use another algorithm")
    return info


def _check_digest(info: AlgorithmInfo, digest: bytes) -> None:
    if info.digest_size and len(digest) != info.digest_size:
        raise InvalidLengthError(f"{info.name} signs a digest of {info.digest_size} bytes, got {len(digest)}")


def _encrypt_rsa(key: LocalKey, algorithm: str, plaintext: bytes, label: bytes | None) -> bytes:
    material = _public(key)
    if not isinstance(material, rsa.RSAPublicKey):
        raise KeyTypeError(f"{algorithm} needs a key of kind RSA")
    pad, overhead = _encryption_padding(algorithm, label)
    longest = (material.key_size + 7) // 8 - overhead
    if longest < 0:
        raise KeyTypeError(f"key {key.name!r} is too small for {algorithm}")
    if len(plaintext) > longest:
        raise InvalidLengthError(f"{algorithm} with key {key.name!r} takes at most {longest} bytes")
    try:
        return material.encrypt(plaintext, pad)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyTypeError(f"key {key.name!r} does not fit {algorithm}") from None


def _decrypt_rsa(key: LocalKey, algorithm: str, ciphertext: bytes, label: bytes | None) -> bytes:
    material = key.material
    if not isinstance(material, rsa.RSAPrivateKey):
        raise KeyTypeError(f"{algorithm} needs a private key of kind RSA")
    try:
        return material.decrypt(ciphertext, _encryption_padding(algorithm, label)[0])
    except (ValueError, UnsupportedAlgorithm):
        raise OpenError from None


def _encryption_padding(algorithm: str, label: bytes | None) -> tuple[AsymmetricPadding, int]:
    """Return the padding and the bytes that it takes away from the key's size."""
    if algorithm == "RSA1_5":
        return padding.PKCS1v15(), 11
    digest = hashes.SHA1() if algorithm == "RSA-OAEP" else _hash(algorithm)  # noqa: S303  # RSA-OAEP is defined so
    return padding.OAEP(padding.MGF1(digest), digest, label or None), 2 * digest.digest_size + 2


def _signature_padding(algorithm: str, *, signing: bool) -> AsymmetricPadding:
    if algorithm.startswith("PS"):
        salt_length = padding.PSS.MAX_LENGTH if signing else padding.PSS.AUTO
        return padding.PSS(padding.MGF1(_hash(algorithm)), salt_length)
    return padding.PKCS1v15()


def _hash(algorithm: str) -> hashes.HashAlgorithm:
    return _HASHES[algorithm[-3:]]()


def _secret(key: LocalKey) -> bytes:
    if not isinstance(key.material, bytes):
        raise KeyTypeError(f"key {key.name!r} is not symmetric")
    return key.material


def _public(key: LocalKey) -> PublicKey:
    material = key.material
    if isinstance(material, bytes):
        raise KeyTypeError(f"key {key.name!r} is symmetric: it has no public part")
    return material.public_key() if isinstance(material, PrivateKey) else material
