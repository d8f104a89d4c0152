"""Cryptography with the keys of a key set."""

from __future__ import annotations

from lapel_contrib.local.keyring import KeyringCrypto

from . import CRYPTO
from .settings import JwksSettings
from .source import open_keys

__all__ = ["JwksCrypto"]


class JwksCrypto(KeyringCrypto[JwksSettings]):
    """crypto.dapr.jwks: a key's name is its `kid`.

    A set that is given inline or as a file must have one for each key and no two alike. In a set from a URL a key
    without one is left out and the first of those alike counts, both with a warning, so that one key does not stop the
    refresh.

    A file is read again when it changes. A URL is fetched again when a key is used and `minRefreshInterval` has passed;
    until then an unknown key is `NotFoundError`. What cannot be read or fetched leaves the last good set in use, and
    makes the component unhealthy. A key outside its `nbf` and `exp` does not encrypt, wrap and sign any more.
    """

    descriptor = CRYPTO

    async def open(self) -> None:
        """Read or fetch the key set."""
        self._keys = await open_keys(self.settings, self.context.logger)
