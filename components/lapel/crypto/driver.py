"""The class that authors of crypto drivers subclass."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from ..driver import Driver, SettingsT
from ..errors import UnsupportedAlgorithmError, UnsupportedError
from .types import (
    Ciphertext,
    DecryptRequest,
    EncryptRequest,
    KeyRequest,
    PublicKey,
    SignRequest,
    UnwrapKeyRequest,
    VerifyRequest,
    WrapKeyRequest,
)

__all__ = ["CryptoDriver"]


class CryptoDriver(Driver[SettingsT]):
    """A holder of keys that works with them. Key material never leaves it but as `PublicKey` or wrapped.

    Algorithms come only from `descriptor.algorithms`, which maps `encrypt`, `wrap` and `sign` to names. Raises
    `NotFoundError` for an unknown key, `KeyTypeError` for one that does not fit, `DecryptionError` for everything that
    depends on ciphertext, tag or key material.
    """

    chooses_nonces: ClassVar[bool] = False
    """The backend makes the nonces: requests to encrypt or wrap hold none unless the caller gave one, and the answer
    tells the one used. Elsewhere the front makes a random one and puts it into the request."""

    @abstractmethod
    async def wrap_key(self, request: WrapKeyRequest) -> Ciphertext:
        """Encrypt key material with a key of this provider."""

    @abstractmethod
    async def unwrap_key(self, request: UnwrapKeyRequest) -> bytes:
        """Decrypt key material with a key of this provider."""

    async def get_key(self, request: KeyRequest) -> PublicKey:
        """Return the public part; a symmetric key is `NotFoundError`. Only called with `PUBLIC_KEYS`."""
        raise UnsupportedError("is declared but not implemented", driver=self.descriptor.type, operation="get_key")

    async def encrypt(self, request: EncryptRequest) -> Ciphertext:
        """Encrypt a short message."""
        raise UnsupportedAlgorithmError(f"does not encrypt with {request.algorithm}", driver=self.descriptor.type)

    async def decrypt(self, request: DecryptRequest) -> bytes:
        """Decrypt a short message."""
        raise UnsupportedAlgorithmError(f"does not decrypt with {request.algorithm}", driver=self.descriptor.type)

    async def sign(self, request: SignRequest) -> bytes:
        """Return the signature of a digest. Only called with `SIGNATURES`."""
        raise UnsupportedAlgorithmError(f"does not sign with {request.algorithm}", driver=self.descriptor.type)

    async def verify(self, request: VerifyRequest) -> bool:
        """Tell whether a signature is right; a wrong one is False, not an error. Only called with `SIGNATURES`."""
        raise UnsupportedAlgorithmError(f"does not verify with {request.algorithm}", driver=self.descriptor.type)
