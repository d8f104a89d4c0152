"""Symmetric ciphers on raw key bytes. Sizes of key, nonce and tag are checked by the caller."""

from __future__ import annotations

import hmac
import struct
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.padding import PKCS7

from lapel.errors import InvalidLengthError

__all__ = ["Cbc", "CbcHmac", "Gcm", "KeyWrap", "OpenError", "Poly1305", "SymmetricCipher", "XPoly1305", "hchacha20"]

_BLOCK: Final = 16
_LONGEST: Final = 2**31 - 1 - _BLOCK


class OpenError(Exception):
    """The input does not open with this key, nonce, tag and associated data. Never leaves this package."""


class SymmetricCipher(Protocol):
    """One family of ciphers."""

    def seal(self, key: bytes, data: bytes, nonce: bytes, associated_data: bytes) -> tuple[bytes, bytes | None]:
        """Return ciphertext and tag; the tag is None for a cipher without one. Raises `InvalidLengthError`."""
        ...

    def open(self, key: bytes, data: bytes, nonce: bytes, tag: bytes, associated_data: bytes) -> bytes:
        """Return the plaintext. Raises `OpenError` for every cause."""
        ...


class Cbc:
    """AES-CBC, not authenticated; with `padded`, PKCS#7 padding."""

    def __init__(self, *, padded: bool) -> None:
        self._padded = padded

    def seal(self, key: bytes, data: bytes, nonce: bytes, associated_data: bytes) -> tuple[bytes, bytes | None]:
        """Encrypt; without padding the data must be whole blocks."""
        _check_longest(data)
        if self._padded:
            padder = PKCS7(_BLOCK * 8).padder()
            data = padder.update(data) + padder.finalize()
        elif len(data) % _BLOCK:
            raise InvalidLengthError(f"without padding the input must be a multiple of {_BLOCK} bytes, not {len(data)}")
        encryptor = Cipher(algorithms.AES(key), modes.CBC(nonce)).encryptor()
        return encryptor.update(data) + encryptor.finalize(), None

    def open(self, key: bytes, data: bytes, nonce: bytes, tag: bytes, associated_data: bytes) -> bytes:
        """Decrypt; the tag is not looked at."""
        try:
            decryptor = Cipher(algorithms.AES(key), modes.CBC(nonce)).decryptor()
            plain = decryptor.update(data) + decryptor.finalize()
            if self._padded:
                unpadder = PKCS7(_BLOCK * 8).unpadder()
                plain = unpadder.update(plain) + unpadder.finalize()
        except (ValueError, OverflowError):
            raise OpenError from None
        return plain


class CbcHmac:
    """AES-CBC with HMAC (RFC 7518, 5.2): the first half of the key authenticates, the second half encrypts."""

    def __init__(self, digest: str) -> None:
        self._digest = digest
        self._cbc = Cbc(padded=True)

    def seal(self, key: bytes, data: bytes, nonce: bytes, associated_data: bytes) -> tuple[bytes, bytes | None]:
        """Encrypt, then authenticate associated data, nonce and ciphertext."""
        half = len(key) // 2
        sealed, _ = self._cbc.seal(key[half:], data, nonce, b"")
        return sealed, self._tag(key[:half], sealed, nonce, associated_data)

    def open(self, key: bytes, data: bytes, nonce: bytes, tag: bytes, associated_data: bytes) -> bytes:
        """Decrypt only what the tag authenticates."""
        half = len(key) // 2
        if not hmac.compare_digest(self._tag(key[:half], data, nonce, associated_data), tag):
            raise OpenError
        return self._cbc.open(key[half:], data, nonce, b"", b"")

    def _tag(self, key: bytes, sealed: bytes, nonce: bytes, associated_data: bytes) -> bytes:
        code = hmac.new(key, associated_data, self._digest)
        code.update(nonce)
        code.update(sealed)
        code.update((len(associated_data) * 8).to_bytes(8, "big"))
        return code.digest()[: len(key)]


class _Aead:
    """A cipher of the library whose output ends with a tag of 16 bytes."""

    def _cipher(self, key: bytes, nonce: bytes) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
        raise NotImplementedError

    def seal(self, key: bytes, data: bytes, nonce: bytes, associated_data: bytes) -> tuple[bytes, bytes | None]:
        """Encrypt and authenticate."""
        _check_longest(data)
        cipher, nonce = self._cipher(key, nonce)
        sealed = cipher.encrypt(nonce, data, associated_data)
        return sealed[:-_BLOCK], sealed[-_BLOCK:]

    def open(self, key: bytes, data: bytes, nonce: bytes, tag: bytes, associated_data: bytes) -> bytes:
        """Authenticate and decrypt."""
        cipher, nonce = self._cipher(key, nonce)
        try:
            return cipher.decrypt(nonce, data + tag, associated_data)
        except (InvalidTag, OverflowError):
            raise OpenError from None


class Gcm(_Aead):
    """AES-GCM."""

    def _cipher(self, key: bytes, nonce: bytes) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
        return AESGCM(key), nonce


class Poly1305(_Aead):
    """ChaCha20-Poly1305 (RFC 8439)."""

    def _cipher(self, key: bytes, nonce: bytes) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
        return ChaCha20Poly1305(key), nonce


class XPoly1305(_Aead):
    """XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha): a subkey from the first 16 bytes of the nonce."""

    def _cipher(self, key: bytes, nonce: bytes) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
        return ChaCha20Poly1305(hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]


class KeyWrap:
    """AES key wrap with the default initial value (RFC 3394)."""

    def seal(self, key: bytes, data: bytes, nonce: bytes, associated_data: bytes) -> tuple[bytes, bytes | None]:
        """Wrap at least 16 bytes, a multiple of 8."""
        if len(data) < 16 or len(data) % 8:
            raise InvalidLengthError(f"AES key wrap takes a multiple of 8 and at least 16 bytes, not {len(data)}")
        return aes_key_wrap(key, data), None

    def open(self, key: bytes, data: bytes, nonce: bytes, tag: bytes, associated_data: bytes) -> bytes:
        """Unwrap; the tag is not looked at."""
        try:
            return aes_key_unwrap(key, data)
        except (InvalidUnwrap, ValueError):
            raise OpenError from None


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Derive the 32-byte subkey of XChaCha20 from a 32-byte key and 16 bytes of nonce.

    HChaCha20 is the ChaCha20 block function without its last step, which adds the initial state. The library has only
    the whole function, so that addition is undone for the eight words that make the subkey.
    """
    stream = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    words = struct.unpack("<16I", stream)
    initial = struct.unpack("<8I", b"expand 32-byte k" + nonce)
    mixed = words[:4] + words[12:]
    return struct.pack("<8I", *((a - b) & 0xFFFFFFFF for a, b in zip(mixed, initial, strict=True)))


def _check_longest(data: bytes) -> None:
    if len(data) > _LONGEST:
        raise InvalidLengthError(f"one call takes at most {_LONGEST} bytes: encrypt a document instead")
