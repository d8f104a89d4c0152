"""Crypto drivers that hold their keys in memory: everything but where the keys come from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from lapel.crypto import (
    Ciphertext,
    CryptoDriver,
    DecryptRequest,
    EncryptRequest,
    KeyRequest,
    PublicKey,
    SignRequest,
    UnwrapKeyRequest,
    VerifyRequest,
    WrapKeyRequest,
)
from lapel.driver import SettingsT

from . import algorithms
from .keys import LocalKey

__all__ = ["INLINE_BYTES", "KeySource", "KeyringCrypto"]

T = TypeVar("T")

INLINE_BYTES = 65_536
"""Input up to this size, associated data included, is worked on in place: a change of threads would take longer."""


class KeySource(Protocol):
    """Where a driver gets its keys from. Calls may overlap."""

    async def load(self, name: str) -> LocalKey:
        """Return a key. Raises `NotFoundError`, `KeyTypeError` for one that cannot be read, and what fails."""
        ...

    async def check(self) -> None:
        """Raise when the keys cannot be had as they are now."""
        ...

    async def aclose(self) -> None:
        """Forget the keys. May be called again."""
        ...


class KeyringCrypto(CryptoDriver[SettingsT]):
    """Base of the drivers that compute in this process. `open` of a subclass sets `_keys`.

    RSA and large inputs run in worker threads.
    """

    _keys: KeySource

    async def close(self) -> None:
        """Forget the keys."""
        if hasattr(self, "_keys"):
            await self._keys.aclose()

    async def ping(self) -> None:
        """See that the keys can still be had."""
        await self._keys.check()

    async def get_key(self, request: KeyRequest) -> PublicKey:
        """Return the public part as JWK and PEM."""
        key = await self._keys.load(request.key_name)
        return PublicKey(name=request.key_name, jwk=algorithms.public_jwk(key), pem=algorithms.public_pem(key))

    async def encrypt(self, request: EncryptRequest) -> Ciphertext:
        """Encrypt a short message."""
        key = await self._keys.load(request.key_name)
        data, tag = await _work(
            request.algorithm,
            len(request.plaintext) + len(request.associated_data or b""),
            lambda: algorithms.encrypt(
                key, request.algorithm, request.plaintext, request.nonce, request.associated_data
            ),
        )
        return Ciphertext(data=data, tag=tag)

    async def decrypt(self, request: DecryptRequest) -> bytes:
        """Decrypt a short message."""
        key = await self._keys.load(request.key_name)
        return await _work(
            request.algorithm,
            len(request.ciphertext) + len(request.associated_data or b""),
            lambda: algorithms.decrypt(
                key, request.algorithm, request.ciphertext, request.nonce, request.tag, request.associated_data
            ),
        )

    async def wrap_key(self, request: WrapKeyRequest) -> Ciphertext:
        """Encrypt key material."""
        key = await self._keys.load(request.key_name)
        data, tag = await _work(
            request.algorithm,
            len(request.key) + len(request.associated_data or b""),
            lambda: algorithms.encrypt(
                key, request.algorithm, request.key, request.nonce, request.associated_data, operation="wrapKey"
            ),
        )
        return Ciphertext(data=data, tag=tag)

    async def unwrap_key(self, request: UnwrapKeyRequest) -> bytes:
        """Decrypt key material."""
        key = await self._keys.load(request.key_name)
        return await _work(
            request.algorithm,
            len(request.wrapped) + len(request.associated_data or b""),
            lambda: algorithms.decrypt(
                key,
                request.algorithm,
                request.wrapped,
                request.nonce,
                request.tag,
                request.associated_data,
                operation="unwrapKey",
            ),
        )

    async def sign(self, request: SignRequest) -> bytes:
        """Sign a digest."""
        key = await self._keys.load(request.key_name)
        return await _work(
            request.algorithm, len(request.digest), lambda: algorithms.sign(key, request.algorithm, request.digest)
        )

    async def verify(self, request: VerifyRequest) -> bool:
        """Check a signature."""
        key = await self._keys.load(request.key_name)
        return await _work(
            request.algorithm,
            len(request.digest),
            lambda: algorithms.verify(key, request.algorithm, request.digest, request.signature),
        )


async def _work(algorithm: str, size: int, work: Callable[[], T]) -> T:
    """Run in place what is over in microseconds, the rest (private RSA keys take a millisecond) in a thread."""
    if size <= INLINE_BYTES and not algorithm.startswith(("RS", "PS")):
        return work()
    return await asyncio.to_thread(work)
