"""RSA private keys, checked without a proof that their factors are prime.

`cryptography` would prove it for each key that it loads. That takes 40 ms for 2048 bits and 260 ms for 4096, and it
keeps the interpreter's lock meanwhile, so that even in a thread it would hold up the event loop. What happens to stored
keys is damage, and damage shows in numbers that do not belong together.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from fractions import Fraction
from math import isqrt
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

__all__ = ["PRIVATE_MEMBERS", "belongs_together", "from_members"]

PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi"})
"""Members of a JWK of kind RSA that are secret."""

_LARGEST_DIVISOR: Final = 2**64
_MOST_BITS: Final = 16_384
"""Bits of the largest modulus that OpenSSL works with."""


def belongs_together(key: rsa.RSAPrivateKey) -> bool:
    """Tell whether the numbers of a key are those of one and the same key. Takes microseconds."""
    numbers = key.private_numbers()
    n, e = numbers.public_numbers.n, numbers.public_numbers.e
    p, q, d = numbers.p, numbers.q, numbers.d
    # Both odd, and neither of them 1.
    if not (p & q & 1 and min(p, q) > 1 and p != q and p * q == n):
        return False
    if e < 3 or e * d % (p - 1) != 1 or e * d % (q - 1) != 1:
        return False
    return (
        numbers.dmp1 == d % (p - 1) and numbers.dmq1 == d % (q - 1) and numbers.iqmp < p and numbers.iqmp * q % p == 1
    )


def from_members(members: Mapping[str, Any]) -> rsa.RSAPrivateKey:
    """Return the private key that the members of a JWK describe: all of them, or `n`, `e` and `d` alone.

    Whether they belong together is for `belongs_together` to tell. Raises `ValueError`, `KeyError` or `TypeError` when
    some are missing or are no numbers; the errors hold none of them.
    """
    n, e, d = (_number(members[name]) for name in ("n", "e", "d"))
    if max(n, e, d).bit_length() > _MOST_BITS:
        raise ValueError("the key is too large")
    if PRIVATE_MEMBERS.isdisjoint(members.keys() - {"d"}):
        p, q = _factors(n, e, d)
        dp, dq, qi = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    else:
        p, q, dp, dq, qi = (_number(members[name]) for name in ("p", "q", "dp", "dq", "qi"))
    numbers = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, rsa.RSAPublicNumbers(e, n))
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def _number(text: str) -> int:
    padded = text + "=" * (-len(text) % 4)
    return int.from_bytes(b64decode(padded.translate({0x2D: "+", 0x5F: "/"}), validate=True))


def _factors(n: int, e: int, d: int) -> tuple[int, int]:
    """Return the factors of n. The library's own way to them is tens to hundreds of milliseconds of arithmetic.

    (p - 1)(q - 1) = (ed - 1) * divisor / multiple, with both of them small. As it is also n but for the half of its
    digits, the two are the fraction with a small divisor that is closest to (ed - 1) / n. Sum and product of the
    factors then give a quadratic equation.
    """
    ratio = Fraction(e * d - 1, n).limit_denominator(_LARGEST_DIVISOR) if n else Fraction(0)
    if ratio <= 0:
        raise ValueError("the private exponent does not belong to the modulus")
    total = n + 1 - (e * d - 1) * ratio.denominator // ratio.numerator
    p = (total + isqrt(total * total - 4 * n)) // 2
    if total - p < 2 or p * (total - p) != n:
        raise ValueError("the private exponent does not belong to the modulus")
    return p, total - p
