"""Drivers on HashiCorp Vault, or on what speaks its API, such as OpenBao."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind

__all__ = ["CRYPTO", "SECRETS"]

SECRETS = Descriptor(
    kind=Kind.SECRETSTORES,
    name="hashicorp.vault",
    driver="lapel_contrib.vault.secretstore:VaultSecretStore",
    settings="lapel_contrib.vault.settings:VaultSecretsSettings",
    summary="Secrets from the key/value engine of Vault, version 2 or 1.",
    capabilities=Capability.BULK_SECRETS | Capability.MULTIPLE_KEY_VALUES_PER_SECRET | Capability.SECRET_VERSIONS,
    extra="vault",
)

# What the transit engine does as JSON Web Algorithms has it. It has no AES key wrap and no AES-CBC, its RSA-OAEP takes
# SHA-256 only, and RSA1_5 would tell a wrong padding from a wrong key.
_ENCRYPTION = ("A128GCM", "A256GCM", "C20P", "RSA-OAEP-256")

CRYPTO = Descriptor(
    kind=Kind.CRYPTO,
    name="hashicorp.vault",
    driver="lapel_contrib.vault.crypto:VaultCrypto",
    settings="lapel_contrib.vault.settings:VaultCryptoSettings",
    summary="Cryptography in the transit engine of Vault, with keys that never leave it.",
    capabilities=Capability.DOCUMENTS | Capability.PUBLIC_KEYS | Capability.SIGNATURES,
    algorithms={
        "encrypt": _ENCRYPTION,
        "wrap": _ENCRYPTION,
        "sign": (*(f"{family}{bits}" for family in ("ES", "PS", "RS") for bits in (256, 384, 512)), "EdDSA"),
    },
    extra="vault",
)
