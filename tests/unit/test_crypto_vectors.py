"""Published vectors of Wycheproof and NIST, for every algorithm, through the functions that drivers use."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Literal

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key
from tests.vectors import Source, Vector, vectors

from lapel.crypto.algorithms import ALGORITHMS
from lapel.errors import DecryptionError, InvalidLengthError, InvalidNonceError, InvalidTagError
from lapel.testing import row
from lapel_contrib.local.algorithms import SIGNATURE_ALGORITHMS, decrypt, encrypt, verify
from lapel_contrib.local.keys import KeyMaterial, LocalKey

# Beside their own these have no vectors: the `KW` names of ChaCha20-Poly1305 are the same cipher for keys.
SAME = {"C20PKW": "C20P", "XC20PKW": "XC20P"}
SOURCES: tuple[Source, ...] = ("wycheproof", "nist")
COUNTS = {"wycheproof": 4711, "nist": 1370}


def table(algorithm: str) -> list[Vector]:
    name = SAME.get(algorithm, algorithm)
    return [vector for source in SOURCES for vector in vectors(source).get(name, [])]


@cache
def loaded(der: bytes, private: bool) -> KeyMaterial:
    return load_der_private_key(der, None) if private else load_der_public_key(der)  # type: ignore[return-value]  # RSA, EC, Ed25519


def key_of(vector: Vector, algorithm: str) -> LocalKey:
    kind, private = ALGORITHMS[algorithm].kind, algorithm not in SIGNATURE_ALGORITHMS
    return LocalKey("k", kind, vector.key if kind == "oct" else loaded(vector.key, private), private)


def named(kind: str) -> list[str]:
    return [name for name, info in ALGORITHMS.items() if info.kind == kind and name not in SIGNATURE_ALGORITHMS]


def test_every_algorithm_has_vectors_and_none_were_lost() -> None:
    assert {source: sum(map(len, vectors(source).values())) for source in SOURCES} == COUNTS
    assert {name for source in SOURCES for name in vectors(source)} | set(SAME) == set(ALGORITHMS)


@row("stricter-105")
@pytest.mark.parametrize("wrapping", [False, True], ids=["message", "key"])
@pytest.mark.parametrize("algorithm", named("oct"))
def test_symmetric_algorithms_do_what_the_vectors_say(algorithm: str, wrapping: bool) -> None:
    info = ALGORITHMS[algorithm]
    there: Literal["encrypt", "wrapKey"] = "wrapKey" if wrapping else "encrypt"
    back: Literal["decrypt", "unwrapKey"] = "unwrapKey" if wrapping else "decrypt"
    wrong = []
    for vector in table(algorithm):
        key = key_of(vector, algorithm)
        arguments = (vector.iv, vector.aad) if info.nonce_size else (None, None)
        if info.nonce_size and len(vector.iv) != info.nonce_size:
            # GCM is defined for nonces of any length; JWA and Dapr know one.
            with pytest.raises(InvalidNonceError):
                decrypt(key, algorithm, vector.ct, vector.iv, vector.tag, vector.aad, operation=back)
            continue
        try:
            plain = decrypt(key, algorithm, vector.ct, arguments[0], vector.tag, arguments[1], operation=back)
        except (DecryptionError, InvalidTagError):
            plain = None
        if vector.result == "valid" or (vector.result == "acceptable" and plain is not None):
            sealed = encrypt(key, algorithm, vector.msg, *arguments, operation=there)
            right = plain == vector.msg and sealed == (vector.ct, vector.tag if info.tag_size else None)
        else:
            right = plain is None
        if not right:
            wrong.append(vector.id)
    assert wrong == []


@row("stricter-105")
@pytest.mark.parametrize("algorithm", named("RSA"))
def test_rsa_decrypts_what_the_vectors_say(algorithm: str) -> None:
    wrong = []
    for vector in table(algorithm):
        key = key_of(vector, algorithm)
        try:
            plain = decrypt(key, algorithm, vector.ct, None, None, vector.aad)
        except DecryptionError:
            plain = None
        # A changed ciphertext of RSA1_5 may open to random bytes, which tells an attacker nothing.
        right = plain == vector.msg if vector.result == "valid" else plain is None
        if algorithm == "RSA1_5" and vector.result == "invalid":
            right = plain is None or plain != vector.msg
        if not right:
            wrong.append(vector.id)
    assert wrong == []


@row("stricter-105")
@pytest.mark.parametrize("algorithm", SIGNATURE_ALGORITHMS)
def test_signatures_hold_where_the_vectors_say_so(algorithm: str) -> None:
    wrong = []
    for vector in table(algorithm):
        digest = vector.msg if algorithm == "EdDSA" else hashlib.new(f"sha{algorithm[-3:]}", vector.msg).digest()
        answer = verify(key_of(vector, algorithm), algorithm, digest, vector.sig)
        # Salts of other lengths than the group's are right too: the length is found out.
        expected = vector.result == "valid" or vector.note.startswith("s_len changed")
        if vector.result != "acceptable" and answer is not expected:
            wrong.append(f"{vector.id} {answer}")
    assert wrong == []


def test_keys_to_wrap_of_odd_length_are_refused_and_not_cut() -> None:
    for algorithm in ("A128KW", "A192KW", "A256KW"):
        for vector in table(algorithm):
            if len(vector.msg) < 16 or len(vector.msg) % 8:
                with pytest.raises(InvalidLengthError):
                    encrypt(key_of(vector, algorithm), algorithm, vector.msg)
