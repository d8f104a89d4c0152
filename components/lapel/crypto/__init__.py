"""Cryptography: documents of any length, and single operations on a provider's keys."""

from .algorithms import ALGORITHMS, AlgorithmInfo
from .driver import CryptoDriver
from .provider import CryptoProvider, SubtleCrypto
from .types import (
    Bytes,
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

__all__ = [
    "ALGORITHMS",
    "AlgorithmInfo",
    "Bytes",
    "Ciphertext",
    "CryptoDriver",
    "CryptoProvider",
    "DecryptRequest",
    "EncryptRequest",
    "KeyRequest",
    "PublicKey",
    "SignRequest",
    "SubtleCrypto",
    "UnwrapKeyRequest",
    "VerifyRequest",
    "WrapKeyRequest",
]
