"""The drivers on Vault: secrets in both versions of the key/value engine, and the transit engine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.backends.vault import TRANSIT, VaultBackend, VaultRefusal

from lapel.testing import CryptoSuite, SecretStoreSuite
from lapel.testing.subject import Subject, read_components

COMPONENTS = Path(__file__).parent / "components"
PREFIX = "conformance-"
TYPES = (
    *("aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "rsa-2048", "rsa-3072", "rsa-4096"),
    *("ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519"),
)


class OnVault:
    """Takes a component file and replaces the fields that say where the server is."""

    component: ClassVar[Path]
    _subject: ClassVar[Subject | None] = None

    @pytest.fixture
    def subject(self, vault_server: VaultBackend, folder: Path) -> Subject:
        """Return the component under test, the same object each time."""
        cls = type(self)
        if cls._subject is None:
            ((manifest, pins),) = read_components(cls.component, folder)
            cls._subject = Subject.from_manifest(manifest, pins).variant(vault_server.properties)
        assert cls._subject is not None
        return cls._subject


class WithSecrets(OnVault):
    @pytest.fixture(autouse=True)
    def seed(self, writer: object) -> None:
        """Have the secrets there that every test of the suite expects."""


class TestSecrets(WithSecrets, SecretStoreSuite):
    component = COMPONENTS / "secretstores.hashicorp.vault.yaml"


class TestSecretsOfVersionOne(WithSecrets, SecretStoreSuite):
    component = COMPONENTS / "secretstores.hashicorp.vault-v1.yaml"


class TestCrypto(OnVault, CryptoSuite):
    component = COMPONENTS / "crypto.hashicorp.vault.yaml"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _made(cls, vault_server: VaultBackend) -> None:
        for kind in TYPES:
            vault_server.call("POST", f"{TRANSIT}/keys/{PREFIX}{kind}", {"type": kind})
        public = rsa.generate_private_key(65537, 2048).public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        with suppress(VaultRefusal):  # It is there, in a server that outlives this run.
            vault_server.call("POST", f"{TRANSIT}/keys/{PREFIX}public/import", {"type": "rsa-2048", "public_key": pem})
