"""Cryptography with keys that lie as files in a folder."""

from __future__ import annotations

from . import CRYPTO
from .keyfiles import KeyFolder
from .keyring import KeyringCrypto
from .settings import LocalCryptoSettings

__all__ = ["LocalCrypto"]


class LocalCrypto(KeyringCrypto[LocalCryptoSettings]):
    """crypto.dapr.localstorage: a key's name is its file's path inside the folder; a replaced file is read anew.

    JWK, PEM, DER, base64 and raw keys are recognised as Dapr does it. RSA and large inputs run in worker threads. A
    secret key that group or others may read brings a warning when the component opens.
    """

    descriptor = CRYPTO

    async def open(self) -> None:
        """Check that the folder exists."""
        folder = KeyFolder(self.settings.path, self.context.logger)
        self._keys = folder
        await folder.open()
