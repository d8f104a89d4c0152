"""Encryption and key wrapping."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import pytest

from ...crypto import CryptoProvider
from ...errors import (
    CryptoError,
    DecryptionError,
    InvalidArgumentError,
    InvalidLengthError,
    InvalidNonceError,
    InvalidTagError,
    KeyTypeError,
    NotFoundError,
    UnsupportedAlgorithmError,
)
from ..marks import contract, row
from .base import CryptoBase, is_symmetric, message_for, nonce_size

__all__ = ["CipherTests"]


def _group(provider: CryptoProvider, operation: str, keys: Mapping[str, str], *, symmetric: bool) -> list[str]:
    return [name for name in provider.algorithms.get(operation, ()) if name in keys and is_symmetric(name) is symmetric]


class CipherTests(CryptoBase):
    """What `subtle.encrypt`, `decrypt`, `wrap_key` and `unwrap_key` promise."""

    @row("CR-06", "CR-07", "stricter-107")
    @contract
    async def test_encryption_is_undone_by_exactly_its_own_key_nonce_tag_and_data(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        used = [name for name in provider.algorithms.get("encrypt", ()) if name in keys]
        assert used or not provider.algorithms.get("encrypt")
        for algorithm in used:
            name, message = keys[algorithm], message_for(algorithm)
            sealed = await provider.subtle.encrypt(message, algorithm=algorithm, key_name=name)
            assert sealed.data
            assert sealed.data != message
            common: dict[str, Any] = {"algorithm": algorithm, "key_name": name}
            assert len(sealed.nonce or b"") == nonce_size(algorithm)
            opened = await provider.subtle.decrypt(sealed.data, nonce=sealed.nonce, tag=sealed.tag, **common)
            assert opened == message, algorithm
            with pytest.raises(NotFoundError):
                await provider.subtle.decrypt(
                    sealed.data, algorithm=algorithm, key_name="no-such-key", nonce=sealed.nonce, tag=sealed.tag
                )
            if sealed.tag is not None:
                assert sealed.nonce is not None
                for data, nonce, tag in (
                    (_flip(sealed.data), sealed.nonce, sealed.tag),
                    (sealed.data, _flip(sealed.nonce), sealed.tag),
                    (sealed.data, sealed.nonce, _flip(sealed.tag)),
                    (sealed.data, sealed.nonce, os.urandom(len(sealed.tag))),
                ):
                    with pytest.raises(DecryptionError):
                        await provider.subtle.decrypt(data, nonce=nonce, tag=tag, **common)
                with pytest.raises(DecryptionError):
                    await provider.subtle.decrypt(
                        sealed.data, nonce=sealed.nonce, tag=sealed.tag, associated_data=b"surplus", **common
                    )

    @row("stricter-107")
    @contract
    async def test_associated_data_must_be_the_same(self, provider: CryptoProvider, keys: Mapping[str, str]) -> None:
        for algorithm in ("A256GCM", "C20P"):
            if algorithm not in keys or algorithm not in provider.algorithms.get("encrypt", ()):
                continue
            common: dict[str, Any] = {"algorithm": algorithm, "key_name": keys[algorithm]}
            sealed = await provider.subtle.encrypt(b"text", associated_data=b"order-1", **common)
            rest: dict[str, Any] = {"nonce": sealed.nonce, "tag": sealed.tag}
            assert await provider.subtle.decrypt(sealed.data, associated_data=b"order-1", **rest, **common) == b"text"
            for other in (b"order-2", b"", None):
                with pytest.raises(DecryptionError):
                    await provider.subtle.decrypt(sealed.data, associated_data=other, **rest, **common)

    @row("CR-08", "CR-11")
    @contract
    async def test_a_public_key_is_enough_to_encrypt_and_wrap(
        self, provider: CryptoProvider, public_keys: Mapping[str, str]
    ) -> None:
        for algorithm in _group(provider, "encrypt", public_keys, symmetric=False):
            sealed = await provider.subtle.encrypt(b"text", algorithm=algorithm, key_name=public_keys[algorithm])
            assert len(sealed.data) > 100
        for algorithm in _group(provider, "wrap", public_keys, symmetric=False):
            wrapped = await provider.subtle.wrap_key(
                os.urandom(32), algorithm=algorithm, key_name=public_keys[algorithm]
            )
            assert len(wrapped.data) > 100

    @row("CR-09", "CR-10")
    @contract
    async def test_wrapping_is_undone_by_exactly_its_own_key(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        used = [name for name in provider.algorithms["wrap"] if name in keys]
        assert used
        for algorithm in used:
            material = os.urandom(32)
            common: dict[str, Any] = {"algorithm": algorithm, "key_name": keys[algorithm]}
            wrapped = await provider.subtle.wrap_key(material, **common)
            again = await provider.subtle.unwrap_key(wrapped.data, nonce=wrapped.nonce, tag=wrapped.tag, **common)
            assert again == material, algorithm
            with pytest.raises(NotFoundError):
                await provider.subtle.unwrap_key(
                    wrapped.data, algorithm=algorithm, key_name="foo", nonce=wrapped.nonce, tag=wrapped.tag
                )
            if wrapped.tag is not None or algorithm in ("A128KW", "A192KW", "A256KW"):
                with pytest.raises(DecryptionError):
                    await provider.subtle.unwrap_key(
                        _flip(wrapped.data), nonce=wrapped.nonce, tag=wrapped.tag, **common
                    )

    @row("stricter-116")
    async def test_the_bytes_of_asymmetric_keys_are_wrapped_as_well(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        # PKCS#8 and PKIX structures have odd lengths and are longer than a symmetric key.
        used = [
            name for name in ("A256GCM", "C20PKW", "A256CBC") if name in keys and name in provider.algorithms["wrap"]
        ]
        assert used or not any(is_symmetric(name) for name in provider.algorithms["wrap"] if name in keys)
        for algorithm in used:
            common: dict[str, Any] = {"algorithm": algorithm, "key_name": keys[algorithm]}
            for length in (44, 91, 138, 1217):
                material = os.urandom(length)
                wrapped = await provider.subtle.wrap_key(material, **common)
                again = await provider.subtle.unwrap_key(wrapped.data, nonce=wrapped.nonce, tag=wrapped.tag, **common)
                assert again == material

    @row("stricter-108")
    async def test_nonces_and_tags_of_wrong_length_are_refused(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        for algorithm in _group(provider, "encrypt", keys, symmetric=True):
            size = nonce_size(algorithm)
            if not size:
                continue
            common: dict[str, Any] = {"algorithm": algorithm, "key_name": keys[algorithm]}
            message = message_for(algorithm)
            for length in {0, 1, size - 1, size + 1, 64}:
                with pytest.raises(InvalidNonceError):
                    await provider.subtle.encrypt(message, nonce=bytes(length), **common)
                with pytest.raises(InvalidNonceError):
                    await provider.subtle.decrypt(bytes(32), nonce=bytes(length), tag=bytes(16), **common)
            sealed = await provider.subtle.encrypt(message, **common)
            if sealed.tag is None:
                continue
            for tag in (None, b"", sealed.tag[:-1], sealed.tag + b"\0"):
                with pytest.raises(InvalidTagError):
                    await provider.subtle.decrypt(sealed.data, nonce=sealed.nonce, tag=tag, **common)

    @row("stricter-109")
    async def test_lengths_at_the_edge(self, provider: CryptoProvider, keys: Mapping[str, str]) -> None:
        for algorithm in ("A256GCM", "A256CBC", "C20P"):
            if algorithm in keys and algorithm in provider.algorithms.get("encrypt", ()):
                common: dict[str, Any] = {"algorithm": algorithm, "key_name": keys[algorithm]}
                sealed = await provider.subtle.encrypt(b"", **common)
                assert await provider.subtle.decrypt(sealed.data, nonce=sealed.nonce, tag=sealed.tag, **common) == b""
        if "A256KW" in keys and "A256KW" in provider.algorithms["wrap"]:
            for length in (0, 8, 15, 17):
                with pytest.raises(InvalidLengthError):
                    await provider.subtle.wrap_key(bytes(length), algorithm="A256KW", key_name=keys["A256KW"])
        for algorithm in _group(provider, "encrypt", keys, symmetric=False):
            with pytest.raises(InvalidLengthError):
                await provider.subtle.encrypt(bytes(4096), algorithm=algorithm, key_name=keys[algorithm])

    @row("CR-02", "stricter-112")
    async def test_the_catalogue_is_true_and_everything_else_refused(
        self, provider: CryptoProvider, keys: Mapping[str, str], public_keys: Mapping[str, str]
    ) -> None:
        offered = {name for names in provider.algorithms.values() for name in names}
        assert set(keys) | set(public_keys) <= offered
        any_key = next(iter(keys.values()))
        for algorithm in ("none", "HS256", "ECDH-ES", "A256GCMKW", "a256gcm", "A512GCM", ""):
            assert algorithm not in offered
            for call in (
                provider.subtle.encrypt(b"x", algorithm=algorithm, key_name=any_key),
                provider.subtle.wrap_key(bytes(32), algorithm=algorithm, key_name=any_key),
            ):
                with pytest.raises(UnsupportedAlgorithmError):
                    await call

    @row("stricter-110", "stricter-111")
    async def test_a_key_is_refused_for_what_it_is_not_made_for(
        self, provider: CryptoProvider, keys: Mapping[str, str], public_keys: Mapping[str, str]
    ) -> None:
        for algorithm in _group(provider, "encrypt", public_keys, symmetric=False):
            with pytest.raises(KeyTypeError):
                await provider.subtle.decrypt(bytes(256), algorithm=algorithm, key_name=public_keys[algorithm])
        for algorithm in _group(provider, "wrap", public_keys, symmetric=False):
            with pytest.raises(KeyTypeError):
                await provider.subtle.unwrap_key(bytes(256), algorithm=algorithm, key_name=public_keys[algorithm])
        symmetric = _group(provider, "wrap", keys, symmetric=True)
        asymmetric = _group(provider, "wrap", keys, symmetric=False)
        if symmetric and asymmetric:
            with pytest.raises(KeyTypeError):
                await provider.subtle.wrap_key(bytes(32), algorithm=symmetric[0], key_name=keys[asymmetric[0]])
            with pytest.raises(KeyTypeError):
                await provider.subtle.wrap_key(bytes(32), algorithm=asymmetric[0], key_name=keys[symmetric[0]])

    @row("stricter-118")
    @pytest.mark.parametrize("name", ["", "..", "../k", "a/../../k", "/etc/passwd", "nul\0", "%2e%2e%2fk", "no such"])
    async def test_an_odd_key_name_is_refused(
        self, provider: CryptoProvider, keys: Mapping[str, str], name: str
    ) -> None:
        algorithm = next(one for one in provider.algorithms["wrap"] if one in keys)
        with pytest.raises((InvalidArgumentError, NotFoundError)):
            await provider.subtle.wrap_key(bytes(32), algorithm=algorithm, key_name=name)

    @row("stricter-120")
    async def test_a_hundred_first_uses_of_a_key_and_one_cancelled(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        algorithm = next(one for one in provider.algorithms["wrap"] if one in keys)
        tasks = [
            asyncio.create_task(provider.subtle.wrap_key(bytes(32), algorithm=algorithm, key_name=keys[algorithm]))
            for _ in range(100)
        ]
        await asyncio.sleep(0)
        tasks[0].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [one for one in done[1:] if isinstance(one, BaseException)]

    @row("stricter-113")
    async def test_no_plaintext_is_in_errors_or_reprs(self, provider: CryptoProvider, keys: Mapping[str, str]) -> None:
        canary = b"canary-of-the-plaintext!"
        algorithm = next(one for one in provider.algorithms["wrap"] if one in keys)
        failures: list[str] = [repr(provider), repr(provider.driver)]
        for key_name in (keys[algorithm], "no-such-key"):
            try:
                wrapped = await provider.subtle.wrap_key(canary, algorithm=algorithm, key_name=key_name)
                await provider.subtle.unwrap_key(
                    _flip(wrapped.data), algorithm=algorithm, key_name=key_name, nonce=wrapped.nonce, tag=wrapped.tag
                )
            except (CryptoError, NotFoundError) as exc:
                failures += [repr(exc), str(exc), repr(exc.__cause__), repr(exc.__context__)]
        assert len(failures) > 2
        assert not [text for text in failures if "canary" in text]


def _flip(data: bytes) -> bytes:
    """Return the bytes with one bit of the first changed."""
    return bytes([data[0] ^ 1]) + data[1:]
