"""Documents in Dapr's scheme version 1."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from ...crypto import CryptoProvider
from ...descriptor import Capability
from ...errors import (
    DecryptionError,
    InvalidArgumentError,
    NotFoundError,
    UnsupportedAlgorithmError,
    UnsupportedError,
)
from ..marks import contract, lacks, needs, row
from .base import CryptoBase

__all__ = ["DocumentTests"]

SEGMENT = 65_536
WRAPPING = ("A256KW", "RSA-OAEP-256")


def _algorithms(provider: CryptoProvider, keys: Mapping[str, str]) -> list[str]:
    found = [name for name in WRAPPING if name in keys and name in provider.algorithms["wrap"]]
    assert found, f"option `keys` has none of {', '.join(WRAPPING)}"
    return found


class DocumentTests(CryptoBase):
    """What `encrypt` and `decrypt` promise."""

    @row("CR-06", "CR-09")
    @needs(Capability.DOCUMENTS)
    @contract
    @pytest.mark.parametrize("cipher", ["AES-GCM", "CHACHA20-POLY1305"])
    async def test_a_document_comes_back(self, provider: CryptoProvider, keys: Mapping[str, str], cipher: str) -> None:
        for algorithm in _algorithms(provider, keys):
            for size in (0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT):
                text = os.urandom(size)
                document = await provider.encrypt(text, key_name=keys[algorithm], algorithm=algorithm, cipher=cipher)
                assert document.startswith(b"dapr.io/enc/v1\n")
                manifest = json.loads(document.split(b"\n")[1])
                assert manifest["k"] == keys[algorithm]
                assert len(base64.b64decode(manifest["np"])) == 7
                assert await provider.decrypt(document) == text
                assert await provider.decrypt(document, key_name=keys[algorithm]) == text

    @row("stricter-107")
    @needs(Capability.DOCUMENTS)
    async def test_a_changed_or_cut_document_is_one_and_the_same_error(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        algorithm = _algorithms(provider, keys)[0]
        document = await provider.encrypt(bytes(2 * SEGMENT + 5), key_name=keys[algorithm], algorithm=algorithm)
        start = len(document) - (2 * (SEGMENT + 16) + 21)
        first = document[start : start + SEGMENT + 16]
        second = document[start + SEGMENT + 16 : start + 2 * (SEGMENT + 16)]
        head, tail = document[:start], document[start + 2 * (SEGMENT + 16) :]
        mac = head.rstrip(b"\n").rpartition(b"\n")[2]
        wrong = [
            document[:-1],
            document + b"\0",
            head + first + second,
            head + second + first + tail,
            head + first[:-1] + bytes([first[-1] ^ 1]) + second + tail,
            document.replace(mac, base64.b64encode(bytes(32))),
        ]
        errors = set()
        for changed in wrong:
            with pytest.raises(DecryptionError) as raised:
                await provider.decrypt(changed)
            errors.add(raised.value.message)
        assert len(errors) == 1, errors

    @row("stricter-117")
    @needs(Capability.DOCUMENTS)
    async def test_the_key_name_may_be_left_out_or_replaced(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        algorithm = _algorithms(provider, keys)[0]
        common: dict[str, Any] = {"key_name": keys[algorithm], "algorithm": algorithm}
        silent = await provider.encrypt(b"text", omit_key_name=True, **common)
        assert b'"k"' not in silent
        with pytest.raises(InvalidArgumentError):
            await provider.decrypt(silent)
        assert await provider.decrypt(silent, key_name=keys[algorithm]) == b"text"
        other = await provider.encrypt(b"text", decryption_key_name="other", **common)
        assert json.loads(other.split(b"\n")[1])["k"] == "other"
        # Whoever sends documents must not find out which names keys have.
        with pytest.raises(DecryptionError):
            await provider.decrypt(other)
        with pytest.raises(NotFoundError):
            await provider.decrypt(other, key_name="other")
        assert await provider.decrypt(other, key_name=keys[algorithm]) == b"text"

    @row("stricter-112")
    @needs(Capability.DOCUMENTS)
    async def test_unknown_names_are_refused(self, provider: CryptoProvider, keys: Mapping[str, str]) -> None:
        algorithm = _algorithms(provider, keys)[0]
        with pytest.raises(UnsupportedAlgorithmError):
            await provider.encrypt(b"text", key_name=keys[algorithm], algorithm="A256GCM")
        with pytest.raises((UnsupportedAlgorithmError, InvalidArgumentError)):
            await provider.encrypt(b"text", key_name=keys[algorithm], algorithm=algorithm, cipher="ROT13")
        with pytest.raises(NotFoundError):
            await provider.encrypt(b"text", key_name="no-such-key", algorithm=algorithm)

    @row("stricter-121")
    @needs(Capability.DOCUMENTS)
    async def test_a_stream_comes_back_and_lets_others_have_their_turn(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        algorithm = _algorithms(provider, keys)[0]
        text = os.urandom(4 * 1024 * 1024 + 7)
        turns = 0

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(text), 100_000):
                yield text[start : start + 100_000]

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counter = asyncio.create_task(count())
        try:
            sealed = provider.encrypt_stream(chunks(), key_name=keys[algorithm], algorithm=algorithm)
            plain = b"".join([piece async for piece in provider.decrypt_stream(sealed)])
        finally:
            counter.cancel()
        assert plain == text
        assert turns >= 2 * len(text) // (1024 * 1024)

    @row("stricter-112")
    @lacks(Capability.DOCUMENTS)
    async def test_documents_are_refused_where_they_are_not_declared(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        with pytest.raises(UnsupportedError):
            await provider.encrypt(b"text", key_name=next(iter(keys.values())))
        with pytest.raises(UnsupportedError):
            await provider.decrypt(b"dapr.io/enc/v1\n")
