"""Key sets to test with."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey
from tests.unit.binding_http_support import Answer, text

from lapel.crypto import CryptoProvider
from lapel.driver import DriverContext
from lapel.errors import (
    NotFoundError,
)
from lapel_contrib.jwks.crypto import JwksCrypto
from lapel_contrib.jwks.settings import JwksSettings

MATERIAL = bytes(range(60, 92))
EC_JWK = ECKey.import_key(
    ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
).as_dict(private=True)
INTERVAL = 600.0

# The first use of a settings class looks for plugins of pydantic on the disk, which no event loop should wait for.
JwksSettings.parse({"jwks": "{}"})


def oct_key(kid: str | None, material: bytes = MATERIAL, **members: Any) -> dict[str, Any]:
    name = {} if kid is None else {"kid": kid}
    return {"kty": "oct", "k": base64.urlsafe_b64encode(material).decode().rstrip("="), **name, **members}


def jwks(*keys: str | dict[str, Any]) -> str:
    return json.dumps({"keys": [oct_key(key) if isinstance(key, str) else key for key in keys]})


def served(*keys: str | dict[str, Any]) -> Answer:
    return text("200 OK", jwks(*keys).encode())


@asynccontextmanager
async def made(value: str, **fields: str) -> AsyncIterator[CryptoProvider]:
    settings = JwksSettings.parse({"jwks": value, **fields})
    async with CryptoProvider(JwksCrypto(settings, DriverContext(component="keys"))) as provider:
        yield provider


async def use(provider: CryptoProvider, name: str) -> bytes:
    """Use a key; the answer tells keys apart."""
    sealed = await provider.subtle.encrypt(b"x", algorithm="A256GCM", key_name=name, nonce=bytes(12))
    return sealed.data


async def no_keys(provider: CryptoProvider, name: str) -> None:
    with pytest.raises(NotFoundError):
        await use(provider, name)
