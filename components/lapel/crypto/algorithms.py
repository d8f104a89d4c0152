"""What each algorithm does and which keys fit it, by JWA name. Data alone; needs no SDK.

Sources: RFC 7518 (AES, RSA, EC), RFC 8037 (EdDSA), RFC 8439 and draft-irtf-cfrg-xchacha (ChaCha20-Poly1305), RFC 3394
(AES key wrap). A driver offers those of its descriptor's `algorithms`, and may offer others that are not listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["ALGORITHMS", "AlgorithmInfo", "KeyKind", "KeyOperation"]

KeyKind = Literal["oct", "RSA", "EC", "OKP"]
"""The kinds of RFC 7518 and RFC 8037; `oct` is symmetric."""

KeyOperation = Literal["encrypt", "decrypt", "wrapKey", "unwrapKey", "sign", "verify"]
"""What may be done with a key, in the words of `key_ops` (RFC 7517)."""


@dataclass(frozen=True, slots=True)
class AlgorithmInfo:
    """What one algorithm does and needs.

    Sizes are bytes. `key_size` is None where the key's kind decides; `nonce_size` and `tag_size` are 0 for an algorithm
    that takes none; `digest_size` is 0 unless it signs a digest. `associated_data` tells whether it protects any.
    """

    name: str
    kind: KeyKind
    operations: frozenset[KeyOperation]
    key_size: int | None = None
    nonce_size: int = 0
    tag_size: int = 0
    digest_size: int = 0
    associated_data: bool = False

    @property
    def key(self) -> str:
        """Say in words which keys fit."""
        if self.kind == "oct":
            return f"symmetric, {self.key_size} bytes"
        if self.kind == "EC":
            return "EC, any curve"
        return "RSA" if self.kind == "RSA" else "Ed25519"


_ENCRYPTING: Final[frozenset[KeyOperation]] = frozenset({"encrypt", "decrypt", "wrapKey", "unwrapKey"})
_SIGNING: Final[frozenset[KeyOperation]] = frozenset({"sign", "verify"})


def _symmetric(name: str, key: int, nonce: int = 0, tag: int = 0) -> AlgorithmInfo:
    return AlgorithmInfo(name, "oct", _ENCRYPTING, key, nonce, tag, associated_data=tag > 0)


def _all() -> list[AlgorithmInfo]:
    table = []
    for bits in (128, 192, 256):
        size = bits // 8
        table += [
            _symmetric(f"A{bits}CBC", size, 16),
            _symmetric(f"A{bits}CBC-NOPAD", size, 16),
            _symmetric(f"A{bits}GCM", size, 12, 16),
            _symmetric(f"A{bits}CBC-HS{bits * 2}", size * 2, 16, size),
            _symmetric(f"A{bits}KW", size),
        ]
    for suffix in ("", "KW"):
        table += [_symmetric(f"C20P{suffix}", 32, 12, 16), _symmetric(f"XC20P{suffix}", 32, 24, 16)]
    table.append(AlgorithmInfo("RSA1_5", "RSA", _ENCRYPTING))
    for suffix in ("", "-256", "-384", "-512"):
        table.append(AlgorithmInfo(f"RSA-OAEP{suffix}", "RSA", _ENCRYPTING, associated_data=True))
    kinds: tuple[tuple[str, KeyKind], ...] = (("ES", "EC"), ("PS", "RSA"), ("RS", "RSA"))
    for family, kind in kinds:
        for bits in (256, 384, 512):
            table.append(AlgorithmInfo(f"{family}{bits}", kind, _SIGNING, digest_size=bits // 8))
    table.append(AlgorithmInfo("EdDSA", "OKP", _SIGNING))
    return table


ALGORITHMS: Final[Mapping[str, AlgorithmInfo]] = MappingProxyType({info.name: info for info in _all()})
"""Every algorithm by its case-sensitive name."""
