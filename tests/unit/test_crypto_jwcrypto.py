"""jwcrypto, a second independent implementation, reads what is made here, and the other way round."""

from __future__ import annotations

import json

import pytest
from jwcrypto import jwe, jwk, jws  # type: ignore[import-untyped]  # it has no types
from jwcrypto.common import base64url_decode, base64url_encode  # type: ignore[import-untyped]  # it has no types
from tests.unit.keys_at_hand import MESSAGE, digest_for, key_for, local, nonce_for

from lapel.testing import row
from lapel_contrib.local.algorithms import (
    SIGNATURE_ALGORITHMS,
    decrypt,
    encrypt,
    public_jwk,
    public_pem,
    serialize,
    sign,
    verify,
)
from lapel_contrib.local.keys import LocalKey, parse_key

WRAPPING = ["A128KW", "A192KW", "A256KW", "RSA1_5", "RSA-OAEP", "RSA-OAEP-256"]
CONTENT = ["A128GCM", "A192GCM", "A256GCM", "A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512"]
CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


def foreign(key: LocalKey) -> jwk.JWK:
    """Return the key as one of jwcrypto."""
    if isinstance(key.material, bytes):
        return jwk.JWK(kty="oct", k=base64url_encode(key.material))
    return jwk.JWK.from_pyca(key.material)


@row("stricter-106")
@pytest.mark.parametrize("wrapping", WRAPPING)
@pytest.mark.parametrize("content", CONTENT)
def test_what_jwcrypto_encrypts_is_readable_and_the_other_way_round(wrapping: str, content: str) -> None:
    key = key_for(wrapping)
    names = [wrapping, content]
    theirs = jwe.JWE(MESSAGE, json.dumps({"alg": wrapping, "enc": content}), algs=names)
    theirs.add_recipient(foreign(key))
    header, wrapped, nonce, sealed, tag = theirs.serialize(compact=True).split(".")
    content_key = local(decrypt(key, wrapping, base64url_decode(wrapped), operation="unwrapKey"))
    data, iv, code = (base64url_decode(part) for part in (sealed, nonce, tag))
    assert decrypt(content_key, content, data, iv, code, header.encode()) == MESSAGE

    own_nonce = nonce_for(content)
    own_wrapped, _ = encrypt(key, wrapping, serialize(content_key), operation="wrapKey")
    own_sealed, own_tag = encrypt(content_key, content, MESSAGE, own_nonce, header.encode())
    own = [base64url_encode(part) for part in (own_wrapped, own_nonce, own_sealed, own_tag or b"")]
    opened = jwe.JWE(algs=names)
    opened.deserialize(".".join([header, *own]), foreign(key))
    assert opened.payload == MESSAGE


@row("stricter-106")
@pytest.mark.parametrize("algorithm", [name for name in SIGNATURE_ALGORITHMS if not name.startswith("ES")])
def test_what_jwcrypto_signs_verifies_and_the_other_way_round(algorithm: str) -> None:
    key = key_for(algorithm)
    theirs = jws.JWS(MESSAGE)
    theirs.allowed_algs = [algorithm]
    theirs.add_signature(foreign(key), None, json.dumps({"alg": algorithm}))
    signed, _, signature = theirs.serialize(compact=True).rpartition(".")
    digest = digest_for(algorithm, signed.encode())
    assert verify(key, algorithm, digest, base64url_decode(signature))
    if algorithm.startswith("PS"):
        return  # JWS fixes the length of the salt to that of the digest; here it is as long as the key allows.
    own = jws.JWS()
    own.allowed_algs = [algorithm]
    own.deserialize(f"{signed}.{base64url_encode(sign(key, algorithm, digest))}", foreign(key))
    assert own.payload == MESSAGE


@pytest.mark.parametrize(
    "made",
    [("oct", {"size": 256}), ("RSA", {"size": 2048}), ("OKP", {"crv": "Ed25519"})]
    + [("EC", {"crv": curve}) for curve in CURVES.values()],
    ids=str,
)
@pytest.mark.parametrize("private", [True, False])
def test_keys_of_jwcrypto_are_the_same_keys_here(made: tuple[str, dict[str, object]], private: bool) -> None:
    kind, options = made
    theirs = jwk.JWK.generate(kty=kind, **options)
    if kind == "oct":
        key = parse_key(theirs.export().encode(), "key")
        assert key.material == base64url_decode(theirs.export(as_dict=True)["k"])
        return
    texts = [theirs.export() if private else theirs.export_public(), theirs.export_to_pem(private, None).decode()]
    for text in texts:
        key = parse_key(text.encode(), "key")
        assert (key.kind, key.private) == (kind, private)
        assert jwk.JWK(**public_jwk(key)).thumbprint() == theirs.thumbprint()
        assert jwk.JWK.from_pem(public_pem(key).encode()).thumbprint() == theirs.thumbprint()
