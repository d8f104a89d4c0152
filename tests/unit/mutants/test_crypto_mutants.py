"""Wrong crypto providers: each is killed by the row it names, while the right one passes that row."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lapel.crypto import (
    Ciphertext,
    DecryptRequest,
    EncryptRequest,
    KeyRequest,
    PublicKey,
    UnwrapKeyRequest,
    VerifyRequest,
    WrapKeyRequest,
)
from lapel.errors import DecryptionError
from lapel.testing import CryptoSuite, Mutant, Pins, assert_killed, judge
from lapel.testing.report import ComponentReport
from lapel_contrib.local.crypto import LocalCrypto
from lapel_contrib.local.settings import LocalCryptoSettings

PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
KEYS = {
    "A256KW": "symmetric",
    "A256GCM": "symmetric",
    "RSA-OAEP": "rsa.pem",
    "ES256": "p256.pem",
}


class ForgetsAssociatedData(LocalCrypto):
    async def encrypt(self, request: EncryptRequest) -> Ciphertext:
        return await super().encrypt(msgspec.structs.replace(request, associated_data=None))

    async def decrypt(self, request: DecryptRequest) -> bytes:
        return await super().decrypt(msgspec.structs.replace(request, associated_data=None))


class BelievesEverySignature(LocalCrypto):
    async def verify(self, request: VerifyRequest) -> bool:
        await super().verify(request)
        return True


class RaisesForAWrongSignature(LocalCrypto):
    async def verify(self, request: VerifyRequest) -> bool:
        if not await super().verify(request):
            raise DecryptionError("wrong signature")
        return True


class GivesPrivatePartsAway(LocalCrypto):
    async def get_key(self, request: KeyRequest) -> PublicKey:
        key = await super().get_key(request)
        return PublicKey(name=key.name, jwk={**key.jwk, "d": "secret"}, pem=key.pem)


class GivesSymmetricKeysAway(LocalCrypto):
    async def get_key(self, request: KeyRequest) -> PublicKey:
        if request.key_name == "symmetric":
            return PublicKey(name="symmetric", jwk={"kty": "oct"}, pem="")
        return await super().get_key(request)


class WrapsNothing(LocalCrypto):
    async def wrap_key(self, request: WrapKeyRequest) -> Ciphertext:
        await super().wrap_key(request)
        return Ciphertext(data=request.key)

    async def unwrap_key(self, request: UnwrapKeyRequest) -> bytes:
        await self._keys.load(request.key_name)
        return request.wrapped


class TakesAnyKeyForAnUnknownOne(LocalCrypto):
    async def wrap_key(self, request: WrapKeyRequest) -> Ciphertext:
        name = request.key_name if (self.settings.path / request.key_name).is_file() else "symmetric"
        return await super().wrap_key(msgspec.structs.replace(request, key_name=name))


# The module's fixture runs many suites, and locks expire in real time.
pytestmark = pytest.mark.timeout(300)

MUTANTS = [
    Mutant(ForgetsAssociatedData, "stricter-107"),
    Mutant(BelievesEverySignature, "CR-12"),
    Mutant(RaisesForAWrongSignature, "CR-12"),
    Mutant(GivesPrivatePartsAway, "CR-04"),
    Mutant(GivesSymmetricKeysAway, "CR-05"),
    Mutant(WrapsNothing, "CR-09"),
    Mutant(TakesAnyKeyForAnUnknownOne, "stricter-112"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ComponentReport]:
    folder = tmp_path_factory.mktemp("keys")

    def write(name: str, content: bytes) -> None:
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(content)

    write("symmetric", base64.b64encode(os.urandom(32)))
    write("rsa.pem", rsa.generate_private_key(65537, 2048).private_bytes(*PEM))
    write("p256.pem", ec.generate_private_key(ec.SECP256R1()).private_bytes(*PEM))
    settings = LocalCryptoSettings(path=Path(folder))
    return judge(CryptoSuite, LocalCrypto, settings, MUTANTS, pins=Pins(options={"keys": KEYS}))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_the_suite_kills_a_wrong_provider(outcomes: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(outcomes, mutant)
