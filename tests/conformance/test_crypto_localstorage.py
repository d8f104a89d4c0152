"""Cryptography with keys in a folder."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc.jwk import ECKey, RSAKey

from lapel.testing import CryptoSuite

COMPONENTS = Path(__file__).parent / "components"
PKCS8 = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PKIX = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_keys(folder: Path) -> None:
    """Make the keys that the component file names, in all the formats there are."""
    folder.mkdir(mode=0o700)

    def write(name: str, content: bytes | str) -> None:
        file = folder / name
        file.touch(mode=0o600)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    for size in (16, 24, 32, 48, 64):
        write(f"symmetric-{size}", base64.b64encode(os.urandom(size)))
    rsa_key = rsa.generate_private_key(65537, 2048)
    write("rsa.pem", rsa_key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    write("rsa-verify.pem", rsa_key.public_key().public_bytes(*PKIX))
    public = RSAKey.import_key(rsa_key.public_key().public_bytes(*PKIX)).as_dict(private=False)
    write("rsa-public.json", json.dumps({**public, "alg": "RSA-OAEP"}))
    p256 = ec.generate_private_key(ec.SECP256R1())
    write("p256.json", json.dumps(ECKey.import_key(p256.private_bytes(*PKCS8)).as_dict(private=True)))
    write("p256-public.pem", p256.public_key().public_bytes(*PKIX))
    write("p384.pem", ec.generate_private_key(ec.SECP384R1()).private_bytes(*PKCS8))
    write("p521.pem", ec.generate_private_key(ec.SECP521R1()).private_bytes(*PKCS8))
    ed = ed25519.Ed25519PrivateKey.generate()
    write("ed25519.pem", ed.private_bytes(*PKCS8))
    write("ed25519-public.pem", ed.public_key().public_bytes(*PKIX))


class TestLocalStorage(CryptoSuite):
    component = COMPONENTS / "crypto.dapr.localstorage.yaml"

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("crypto")
        write_keys(folder / "keys")
        return folder
