"""Cryptography with the keys of a key set."""

from __future__ import annotations

from lapel_contrib.local.keyring import KeyringCrypto

from . import CRYPTO
from .settings import JwksSettings
from .source import open_keys

__all__ = ["JwksCrypto"]


class JwksCrypto(KeyringCrypto[JwksSettings]):
    """crypto.dapr.jwks: a key's name is its `kid`.

    A file is read again when it changes. A URL is fetched again when a key is used and `minRefreshInterval` has passed;
    until then an unknown key is `NotFoundError`. What cannot be read or fetched leaves the last good set in use, and
    makes the component unhealthy. A key outside its `nbf` and `exp` does not encrypt, wrap and sign any more.
    """

    descriptor = CRYPTO

    async def open(self) -> None:
        """Read or fetch the key set."""
        self._keys = await open_keys(self.settings, self.context.logger)
