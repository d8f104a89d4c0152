"""RSA private keys: damage is found in all formats, and nothing that takes long is computed to find it."""

from __future__ import annotations

import base64
from math import lcm
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lapel.errors import KeyTypeError
from lapel_contrib.local.keys import LocalKey, parse_jwk, parse_key

KEY = rsa.generate_private_key(65_537, 2_048)
NUMBERS = KEY.private_numbers()
N, E = NUMBERS.public_numbers.n, NUMBERS.public_numbers.e
P, Q, D = NUMBERS.p, NUMBERS.q, NUMBERS.d
FORMATS = {
    "PKCS#8 PEM": (Encoding.PEM, PrivateFormat.PKCS8),
    "PKCS#1 PEM": (Encoding.PEM, PrivateFormat.TraditionalOpenSSL),
    "PKCS#8 DER": (Encoding.DER, PrivateFormat.PKCS8),
    "PKCS#1 DER": (Encoding.DER, PrivateFormat.TraditionalOpenSSL),
}


def jwk(p: int = P, q: int = Q, d: int = D, **changed: int) -> dict[str, Any]:
    numbers = {"n": p * q, "e": E, "d": d, "p": p, "q": q}
    numbers |= {"dp": d % (p - 1), "dq": d % (q - 1), "qi": pow(q, -1, p)} | changed
    return {"kty": "RSA"} | {name: text(number) for name, number in numbers.items()}


def text(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def written(form: str, p: int = P, q: int = Q, d: int = D, **changed: int) -> bytes:
    numbers = {"dmp1": d % (p - 1), "dmq1": d % (q - 1), "iqmp": pow(q, -1, p), "e": E} | changed
    public = rsa.RSAPublicNumbers(numbers.pop("e"), p * q)
    key = rsa.RSAPrivateNumbers(p=p, q=q, d=d, public_numbers=public, **numbers)
    encoding, private = FORMATS[form]
    return key.private_key(unsafe_skip_rsa_key_validation=True).private_bytes(encoding, private, NoEncryption())


def numbers_of(key: LocalKey) -> rsa.RSAPrivateNumbers:
    assert isinstance(key.material, rsa.RSAPrivateKey)
    return key.material.private_numbers()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "changed",
    [{"d": D ^ 4}, {"dmp1": NUMBERS.dmp1 ^ 4}, {"dmq1": NUMBERS.dmq1 ^ 4}, {"iqmp": NUMBERS.iqmp ^ 4}, {"e": 3}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_damaged_key_is_a_typed_error_that_names_it(form: str, changed: dict[str, int]) -> None:
    data = written(form, **changed)
    with pytest.raises(KeyTypeError, match="'mykey' is damaged"):
        parse_key(data, "mykey")
    assert numbers_of(parse_key(written(form), "mykey")) == NUMBERS


@pytest.mark.parametrize("member", ["n", "e", "d", "p", "q", "dp", "dq", "qi"])
def test_a_damaged_jwk_is_a_typed_error_that_names_it(member: str) -> None:
    members = jwk()
    number = int.from_bytes(base64.urlsafe_b64decode(members[member] + "=="))
    with pytest.raises(KeyTypeError, match="'mykey' is") as caught:
        parse_jwk({**members, member: text(number ^ 4)}, "mykey")
    assert str(D) not in repr(caught.value) + repr(caught.value.__context__)
    assert numbers_of(parse_jwk(members, "mykey")) == NUMBERS


@pytest.mark.parametrize(
    "members",
    [
        {"d": 5},
        {"d": None},
        {"d": ""},
        {"d": "!"},
        {"d": text(D + 2)},
        {"d": text(1)},
        {"d": text(1 << 16_384)},
        {"d": text(D), "p": text(P)},
        {"d": text(D), "n": text(1 << 100_000)},
        {"d": text(D), "n": ""},
        {"d": text(D), "e": ""},
        {"d": text(1), "e": text(1)},
        {"d": text(D), "p": text(1), "q": text(N), "dp": "", "dq": "", "qi": ""},
        {"d": text(D), "oth": []},
    ],
)
def test_numbers_that_make_no_key_are_a_typed_error(members: dict[str, Any]) -> None:
    with pytest.raises(KeyTypeError, match="'mykey' is"):
        parse_jwk({"kty": "RSA", "n": text(N), "e": text(E), **members}, "mykey")


@pytest.mark.parametrize("exponent", [3, 65_537])
def test_the_factors_need_not_be_written(exponent: int) -> None:
    numbers = rsa.generate_private_key(exponent, 2_048).private_numbers() if exponent == 3 else NUMBERS
    p, q, n = numbers.p, numbers.q, numbers.public_numbers.n
    for order in ((p - 1) * (q - 1), lcm(p - 1, q - 1)):
        d = pow(exponent, -1, order)
        found = numbers_of(parse_jwk({"kty": "RSA", "n": text(n), "e": text(exponent), "d": text(d)}, "k"))
        assert ({found.p, found.q}, found.d) == ({p, q}, d)


def test_it_is_not_proven_that_the_factors_are_prime() -> None:
    """The proof takes up to hundreds of milliseconds, and in a thread it would hold up the event loop as well."""
    other = rsa.generate_private_key(E, 1_024).private_numbers()
    p, q = other.p * other.q, P
    d = pow(E, -1, lcm(p - 1, q - 1))
    for form in FORMATS:
        assert numbers_of(parse_key(written(form, p, q, d), "k")).p == p
    assert numbers_of(parse_jwk(jwk(p, q, d), "k")).p == p
