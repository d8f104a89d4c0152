"""Public keys and signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ...crypto import CryptoProvider
from ...descriptor import Capability
from ...errors import InvalidLengthError, KeyTypeError, NotFoundError, UnsupportedError
from ..marks import contract, lacks, needs, row
from .base import CryptoBase, digest_of, is_symmetric

__all__ = ["KeyTests"]

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}


class KeyTests(CryptoBase):
    """What `subtle.get_key`, `sign` and `verify` promise."""

    @row("CR-00")
    async def test_there_are_keys_to_test_with(self, provider: CryptoProvider, keys: Mapping[str, str]) -> None:
        for operation in ("wrap", *(["sign"] if Capability.SIGNATURES in provider.capabilities else [])):
            names = provider.algorithms.get(operation, ())
            assert any(name in keys for name in names), f"option `keys` names no key for {operation}"

    @row("CR-03", "CR-04", "stricter-113")
    @needs(Capability.PUBLIC_KEYS)
    @contract
    async def test_only_the_public_part_of_a_key_is_read(
        self, provider: CryptoProvider, keys: Mapping[str, str], public_keys: Mapping[str, str]
    ) -> None:
        names = {keys[name] for name in keys if not is_symmetric(name)} | set(public_keys.values())
        assert names, "options `keys` and `publicKeys` name no asymmetric key"
        for name in names:
            key = await provider.subtle.get_key(name)
            assert key.name == name
            assert key.pem.startswith("-----BEGIN PUBLIC KEY-----")
            assert not PRIVATE_MEMBERS & set(key.jwk)
            assert key.jwk["kty"] in ("RSA", "EC", "OKP")
            if key.jwk["kty"] == "RSA":
                assert key.jwk["n"]
                assert key.jwk["e"]

    @row("CR-05")
    @needs(Capability.PUBLIC_KEYS)
    @contract
    async def test_a_symmetric_key_is_not_handed_out(self, provider: CryptoProvider, keys: Mapping[str, str]) -> None:
        for name in {keys[one] for one in keys if is_symmetric(one)} | {"no-such-key"}:
            with pytest.raises(NotFoundError):
                await provider.subtle.get_key(name)

    @row("CR-05")
    @lacks(Capability.PUBLIC_KEYS)
    async def test_get_key_is_refused_where_it_is_not_declared(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        with pytest.raises(UnsupportedError):
            await provider.subtle.get_key(next(iter(keys.values())))

    @row("CR-12", "stricter-114", "stricter-115")
    @needs(Capability.SIGNATURES)
    @contract
    async def test_a_signature_holds_for_its_own_digest_only(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        for algorithm in provider.algorithms["sign"]:
            if algorithm not in keys:
                continue
            common: dict[str, Any] = {"algorithm": algorithm, "key_name": keys[algorithm]}
            digest = digest_of(algorithm, b"a text to sign")
            signature = await provider.subtle.sign(digest, **common)
            if algorithm.startswith("ES"):
                assert signature[0] == 0x30, "ECDSA signatures are ASN.1 DER sequences"
            assert await provider.subtle.verify(digest, signature, **common) is True
            other = digest_of(algorithm, b"another text")
            assert await provider.subtle.verify(other, signature, **common) is False
            for wrong in (signature[:-1], b"", signature + b"\0", bytes(len(signature))):
                assert await provider.subtle.verify(digest, wrong, **common) is False
            if algorithm != "EdDSA":
                with pytest.raises(InvalidLengthError):
                    await provider.subtle.sign(digest[:-1], **common)
                with pytest.raises(InvalidLengthError):
                    await provider.subtle.verify(digest[:-1], signature, **common)

    @row("CR-12")
    @needs(Capability.SIGNATURES)
    async def test_a_public_key_verifies_and_cannot_sign(
        self, provider: CryptoProvider, public_keys: Mapping[str, str]
    ) -> None:
        for algorithm in provider.algorithms["sign"]:
            if algorithm not in public_keys:
                continue
            common: dict[str, Any] = {"algorithm": algorithm, "key_name": public_keys[algorithm]}
            digest = digest_of(algorithm, b"a text to sign")
            assert await provider.subtle.verify(digest, bytes(64), **common) is False
            with pytest.raises(KeyTypeError):
                await provider.subtle.sign(digest, **common)

    @row("CR-12")
    @lacks(Capability.SIGNATURES)
    async def test_signatures_are_refused_where_they_are_not_declared(
        self, provider: CryptoProvider, keys: Mapping[str, str]
    ) -> None:
        name = next(iter(keys.values()))
        with pytest.raises(UnsupportedError):
            await provider.subtle.sign(bytes(32), algorithm="ES256", key_name=name)
        with pytest.raises(UnsupportedError):
            await provider.subtle.verify(bytes(32), bytes(64), algorithm="ES256", key_name=name)
