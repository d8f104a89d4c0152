"""Drivers that work on this machine: files and environment variables."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind

__all__ = ["BINDING", "CONFIGURATION", "CRYPTO", "ENV_SECRETS", "FILE_SECRETS"]

ENV_SECRETS = Descriptor(
    kind=Kind.SECRETSTORES,
    name="local.env",
    driver="lapel_contrib.local.env_secrets:EnvSecretStore",
    settings="lapel_contrib.local.settings:EnvSecretsSettings",
    summary="Secrets from the environment variables of this process.",
    capabilities=Capability.BULK_SECRETS,
)

FILE_SECRETS = Descriptor(
    kind=Kind.SECRETSTORES,
    name="local.file",
    driver="lapel_contrib.local.file_secrets:FileSecretStore",
    settings="lapel_contrib.local.settings:FileSecretsSettings",
    summary="Secrets from a JSON file, read again when it changes.",
    capabilities=Capability.BULK_SECRETS | Capability.MULTIPLE_KEY_VALUES_PER_SECRET,
)

CONFIGURATION = Descriptor(
    kind=Kind.CONFIGURATION,
    name="local.file",
    driver="lapel_contrib.local.configuration:FileConfiguration",
    settings="lapel_contrib.local.settings:FileConfigurationSettings",
    summary="Configuration from a YAML or JSON file that is watched for changes.",
    capabilities=Capability.WATCH,
    extra="watch",
)

_BITS = (128, 192, 256)
_ENCRYPTION = (
    *(f"A{bits}{mode}" for mode in ("CBC", "CBC-NOPAD", "GCM", "KW") for bits in _BITS),
    *(f"A{bits}CBC-HS{bits * 2}" for bits in _BITS),
    *("C20P", "C20PKW", "XC20P", "XC20PKW"),
    *("RSA1_5", "RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512"),
)

CRYPTO = Descriptor(
    kind=Kind.CRYPTO,
    name="dapr.localstorage",
    aliases=("localstorage",),
    driver="lapel_contrib.local.crypto:LocalCrypto",
    settings="lapel_contrib.local.settings:LocalCryptoSettings",
    summary="Cryptography with keys from a folder of files.",
    capabilities=Capability.DOCUMENTS | Capability.PUBLIC_KEYS | Capability.SIGNATURES,
    algorithms={
        "encrypt": _ENCRYPTION,
        "wrap": _ENCRYPTION,
        "sign": (*(f"{family}{bits}" for family in ("ES", "PS", "RS") for bits in (256, 384, 512)), "EdDSA"),
    },
    extra="crypto",
)

BINDING = Descriptor(
    kind=Kind.BINDINGS,
    name="localstorage",
    driver="lapel_contrib.local.binding:LocalStorageBinding",
    settings="lapel_contrib.local.settings:LocalStorageSettings",
    summary="Files below one folder, written whole or not at all.",
    capabilities=Capability.OUTPUT,
    operations=("create", "get", "list", "delete"),
)
