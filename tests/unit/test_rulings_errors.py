"""Rulings on what an error tells an operator."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.embedded import prepare

import lapel
from lapel.errors import DecryptionError


async def test_an_error_about_a_document_names_the_component(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    async with lapel.open_crypto("dapr.localstorage", name="vault", path=str(folder / "keys")) as crypto:
        sealed = bytearray(await crypto.encrypt(b"text", key_name="key"))
        sealed[-1] ^= 1
        with pytest.raises(DecryptionError, match=r"component 'vault' \(crypto.dapr.localstorage\) decrypt: "):
            await crypto.decrypt(bytes(sealed))
        with pytest.raises(DecryptionError, match=r"component 'vault' \(crypto.dapr.localstorage\) decrypt: "):
            _ = [piece async for piece in crypto.decrypt_stream([bytes(sealed)])]
