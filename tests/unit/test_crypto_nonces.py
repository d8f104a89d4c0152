"""Who makes the nonce of an encryption: the front, or a backend that lets nobody else."""

from __future__ import annotations

import os

import pytest

from lapel.crypto import Ciphertext, CryptoDriver, CryptoProvider, EncryptRequest, UnwrapKeyRequest, WrapKeyRequest
from lapel.descriptor import Descriptor, Kind
from lapel.driver import DriverContext
from lapel.settings import Settings

CHOSEN = b"by backend12"


class Nothing(Settings):
    """No fields."""


class Front(CryptoDriver[Nothing]):
    """Answers with the nonce that it was sent."""

    descriptor = Descriptor(
        kind=Kind.CRYPTO,
        name="echo",
        driver=f"{__name__}:Front",
        settings=f"{__name__}:Nothing",
        summary="Echo.",
        algorithms={"encrypt": ("A256GCM", "RSA-OAEP"), "wrap": ("A256GCM",)},
    )

    async def open(self) -> None:
        self.sent: list[bytes | None] = []

    async def close(self) -> None:
        pass

    async def encrypt(self, request: EncryptRequest) -> Ciphertext:
        self.sent.append(request.nonce)
        return Ciphertext(data=b"sealed", tag=bytes(16))

    async def wrap_key(self, request: WrapKeyRequest) -> Ciphertext:
        self.sent.append(request.nonce)
        return Ciphertext(data=b"sealed", tag=bytes(16))

    async def unwrap_key(self, request: UnwrapKeyRequest) -> bytes:
        return b""


class Chooser(Front):
    """Makes its own nonces."""

    chooses_nonces = True

    async def encrypt(self, request: EncryptRequest) -> Ciphertext:
        self.sent.append(request.nonce)
        return Ciphertext(data=b"sealed", tag=bytes(16), nonce=CHOSEN)

    async def wrap_key(self, request: WrapKeyRequest) -> Ciphertext:
        self.sent.append(request.nonce)
        return Ciphertext(data=b"sealed", tag=bytes(16), nonce=CHOSEN)


@pytest.mark.parametrize("operation", ["encrypt", "wrap_key"])
async def test_the_front_makes_a_nonce_and_returns_it(operation: str) -> None:
    driver = Front(Nothing(), DriverContext(component="keys"))
    async with CryptoProvider(driver) as provider:
        call = getattr(provider.subtle, operation)
        sealed = await call(b"text", algorithm="A256GCM", key_name="key")
        assert driver.sent == [sealed.nonce]
        assert len(sealed.nonce) == 12
        given = os.urandom(12)
        assert (await call(b"text", algorithm="A256GCM", key_name="key", nonce=given)).nonce == given


@pytest.mark.parametrize("operation", ["encrypt", "wrap_key"])
async def test_a_backend_that_chooses_is_sent_none_and_its_own_is_returned(operation: str) -> None:
    driver = Chooser(Nothing(), DriverContext(component="keys"))
    async with CryptoProvider(driver) as provider:
        call = getattr(provider.subtle, operation)
        sealed = await call(b"text", algorithm="A256GCM", key_name="key")
        assert sealed.nonce == CHOSEN
        await call(b"text", algorithm="A256GCM", key_name="key", nonce=b"by caller")
        assert driver.sent == [None, b"by caller"], "what to say to a caller's nonce is the driver's decision"
