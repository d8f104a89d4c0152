"""What Dapr's own code made can be read: results of every algorithm, documents, and the samples of its format."""

from __future__ import annotations

import hashlib

import pytest
from tests.unit.documents_by_hand import cut
from tests.vectors import Vector, vectors

from lapel.crypto.algorithms import ALGORITHMS
from lapel.crypto.scheme import decrypt_bytes, decrypt_stream
from lapel_contrib.local.algorithms import SIGNATURE_ALGORITHMS, decrypt, encrypt, verify
from lapel_contrib.local.keys import parse_key

TABLES = vectors("dapr")
DOCUMENTS = TABLES["document"]
# Dapr lists them and refuses every call.
REFUSED_THERE = {"A128CBC-NOPAD", "A192CBC-NOPAD", "A256CBC-NOPAD"}


def test_there_are_results_of_every_algorithm_that_works_in_dapr() -> None:
    assert set(TABLES) == set(ALGORITHMS) - REFUSED_THERE | {"document"}
    assert sum(map(len, TABLES.values())) == 103


@pytest.mark.parametrize("algorithm", sorted(set(TABLES) - {"document"}))
def test_what_dapr_made_can_be_read(algorithm: str) -> None:
    for vector in TABLES[algorithm]:
        key = parse_key(vector.key, "key")
        if algorithm in SIGNATURE_ALGORITHMS:
            digest = vector.msg if algorithm == "EdDSA" else hashlib.new(f"sha{algorithm[-3:]}", vector.msg).digest()
            assert verify(key, algorithm, digest, vector.sig)
            continue
        assert decrypt(key, algorithm, vector.ct, vector.iv, vector.tag, vector.aad) == vector.msg
        if ALGORITHMS[algorithm].kind == "oct":
            ciphertext, tag = encrypt(key, algorithm, vector.msg, vector.iv, vector.aad)
            assert (ciphertext, tag or b"") == (vector.ct, vector.tag)


@pytest.mark.parametrize("vector", DOCUMENTS, ids=lambda vector: vector.id)
async def test_documents_of_dapr_can_be_read(vector: Vector) -> None:
    async def unwrap(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        assert key_name == "mykey"
        if not vector.key:
            return wrapped  # The samples' keys are not wrapped.
        return decrypt(parse_key(vector.key, key_name), algorithm, wrapped, operation="unwrapKey")

    name = "mykey" if b'"k":' not in vector.ct else None
    assert await decrypt_bytes(vector.ct, unwrap=unwrap, key_name=name) == vector.msg
    pieces = [piece async for piece in decrypt_stream(cut(vector.ct, 1_000), unwrap=unwrap, key_name=name)]
    assert b"".join(pieces) == vector.msg
