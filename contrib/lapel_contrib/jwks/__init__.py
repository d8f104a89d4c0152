"""Cryptography with a JSON Web Key Set (RFC 7517)."""

from __future__ import annotations

from lapel.descriptor import Descriptor, Kind
from lapel_contrib.local import CRYPTO as LOCAL_CRYPTO

__all__ = ["CRYPTO"]

CRYPTO = Descriptor(
    kind=Kind.CRYPTO,
    name="dapr.jwks",
    aliases=("jwks",),
    driver="lapel_contrib.jwks.crypto:JwksCrypto",
    settings="lapel_contrib.jwks.settings:JwksSettings",
    summary="Cryptography with the keys of a key set: inline, from a file, or from an HTTP server.",
    capabilities=LOCAL_CRYPTO.capabilities,
    algorithms=LOCAL_CRYPTO.algorithms,
    extra="crypto",
)
