"""What the tests of crypto providers have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, cast

import pytest

from ...component import Component
from ...crypto import CryptoDriver, CryptoProvider
from ...descriptor import Capability, Kind
from ..harness import ComponentHooks, Operations
from ..subject import Subject

__all__ = ["CryptoBase", "digest_of", "is_symmetric", "message_for", "nonce_size"]


class CryptoBase(ComponentHooks):
    """Fixtures and hooks of the crypto suite.

    The options `keys` and `publicKeys` map algorithm names to the names of keys that the backend has: symmetric or
    private ones, and such as have only their public part.
    """

    kind = Kind.CRYPTO
    front = CryptoProvider
    options: ClassVar[Mapping[str, Any]] = {**ComponentHooks.options, "keys": {}, "publicKeys": {}}
    driver_base = CryptoDriver
    methods = {  # noqa: RUF012  # declared as a ClassVar by the base class
        Capability.PUBLIC_KEYS: ("get_key",),
        Capability.SIGNATURES: ("sign", "verify"),
    }

    @pytest.fixture
    def provider(self, opened: Component[Any]) -> CryptoProvider:
        """Return an open provider."""
        return cast("CryptoProvider", opened)

    @pytest.fixture
    def keys(self, subject: Subject) -> Mapping[str, str]:
        """Return the private and symmetric keys by algorithm."""
        return cast("Mapping[str, str]", self.option(subject, "keys"))

    @pytest.fixture
    def public_keys(self, subject: Subject) -> Mapping[str, str]:
        """Return the public keys by algorithm."""
        return cast("Mapping[str, str]", self.option(subject, "publicKeys"))

    async def exercise(self, component: Component[Any], payload: str) -> None:
        """Wrap and unwrap key material made of the payload."""
        provider = cast("CryptoProvider", component)
        algorithm, key_name = self._wrapping(provider)
        key = hashlib.sha256(payload.encode()).digest()
        wrapped = await provider.subtle.wrap_key(key, algorithm=algorithm, key_name=key_name)
        again = await provider.subtle.unwrap_key(
            wrapped.data, algorithm=algorithm, key_name=key_name, nonce=wrapped.nonce, tag=wrapped.tag
        )
        assert again == key

    def operations(self, component: Component[Any], payload: str) -> Operations:
        """Return all operations that the provider offers."""
        provider = cast("CryptoProvider", component)
        algorithm, key_name = self._wrapping(provider)
        subtle = provider.subtle
        key = hashlib.sha256(payload.encode()).digest()
        offered: dict[str, Callable[[], Awaitable[object]]] = {
            "wrap_key": lambda: subtle.wrap_key(key, algorithm=algorithm, key_name=key_name),
        }
        if Capability.DOCUMENTS in provider.capabilities and algorithm == "A256KW":
            offered["encrypt"] = lambda: provider.encrypt(payload.encode(), key_name=key_name, algorithm=algorithm)
        signing = [name for name in provider.algorithms.get("sign", ()) if name in self._keys]
        if Capability.SIGNATURES in provider.capabilities and signing:
            offered["sign"] = lambda: subtle.sign(
                digest_of(signing[0], payload.encode()), algorithm=signing[0], key_name=self._keys[signing[0]]
            )
        return offered

    @pytest.fixture(autouse=True)
    def _configured(self, keys: Mapping[str, str]) -> None:
        # `exercise` and `operations` are hooks without fixtures, and need to know the keys as well.
        self._keys = keys

    def _wrapping(self, provider: CryptoProvider) -> tuple[str, str]:
        for algorithm in ("A256KW", *provider.algorithms.get("wrap", ())):
            if algorithm in self._keys:
                return algorithm, self._keys[algorithm]
        pytest.fail("the Conformance document needs the option `keys` with a key for a wrapping algorithm")


def digest_of(algorithm: str, message: bytes) -> bytes:
    """Return what is signed for a message: its digest by the algorithm's hash, for EdDSA the message itself."""
    return message if algorithm == "EdDSA" else hashlib.new(f"sha{algorithm[-3:]}", message).digest()


def is_symmetric(algorithm: str) -> bool:
    """Tell whether the algorithm takes a symmetric key."""
    return not algorithm.startswith(("RSA", "ES", "PS", "RS", "EdDSA", "ECDH"))


def nonce_size(algorithm: str) -> int:
    """Return the bytes of the algorithm's nonce, 0 for none. Source: RFC 7518, RFC 8439."""
    if not is_symmetric(algorithm) or (algorithm.endswith("KW") and algorithm.startswith("A")):
        return 0
    if algorithm.startswith("XC20P"):
        return 24
    return 16 if "CBC" in algorithm else 12


def message_for(algorithm: str) -> bytes:
    """Return a message that the algorithm takes: whole blocks where it does not pad."""
    if algorithm.endswith("-NOPAD") or (algorithm.startswith("A") and algorithm.endswith("KW")):
        return os.urandom(32)
    return b"twenty-six bytes, unevenly"
