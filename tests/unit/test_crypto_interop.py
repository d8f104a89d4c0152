"""Known answers of the standards, and other implementations in both directions."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from joserfc import jwe, jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from tests.unit.keys_at_hand import (
    MESSAGE,
    digest_for,
    key_for,
    local,
    nonce_for,
)

from lapel.testing import row
from lapel_contrib.local.algorithms import (
    SIGNATURE_ALGORITHMS,
    decrypt,
    encrypt,
    public_jwk,
    serialize,
    sign,
    verify,
)
from lapel_contrib.local.symmetric import hchacha20

KERCKHOFFS = (
    b"A cipher system must not be required to be secret, and it must be able to fall into the hands of the enemy"
    b" without inconvenience"
).hex()
SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would"
    b" be it."
).hex()
PRINCIPLE = b"The second principle of Auguste Kerckhoffs".hex()
COUNT = bytes(range(256)).hex()

# Source, algorithm, key, nonce, associated data, plaintext, ciphertext, tag.
KNOWN_ANSWERS = [
    (
        "RFC 3394, 4.1", "A128KW", COUNT[:32], "", "", "00112233445566778899aabbccddeeff",
        "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5", "",
    ),
    (
        "RFC 3394, 4.2", "A192KW", COUNT[:48], "", "", "00112233445566778899aabbccddeeff",
        "96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d", "",
    ),
    (
        "RFC 3394, 4.6", "A256KW", COUNT[:64], "", "",
        "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
        "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21", "",
    ),
    (
        "SP 800-38A, F.2.5", "A256CBC-NOPAD", "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        COUNT[:32], "", "6bc1bee22e409f96e93d7e117393172a", "f58c4c04d6e5f1ba779eabfb5f7bfbd6", "",
    ),
    (
        "GCM specification, case 14", "A256GCM", "00" * 32, "00" * 12, "", "00" * 16,
        "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    (
        "RFC 7518, B.1", "A128CBC-HS256", COUNT[:64], "1af38c2dc2b96ffdd86694092341bc04", PRINCIPLE, KERCKHOFFS,
        (
            "c80edfa32ddf39d5ef00c0b468834279a2e46a1b8049f792f76bfe54b903a9c9a94ac9b47ad2655c5f10f9aef71427e2fc6f"
            "9b3f399a221489f16362c703233609d45ac69864e3321cf82935ac4096c86e133314c54019e8ca7980dfa4b9cf1b384c486f"
            "3a54c51078158ee5d79de59fbd34d848b3d69550a67646344427ade54b8851ffb598f7f80074b9473c82e2db"
        ),
        "652c3fa36b0a7c5b3219fab3a30bc1c4",
    ),
    ("RFC 7518, B.2", "A192CBC-HS384", COUNT[:96], "1af38c2dc2b96ffdd86694092341bc04", PRINCIPLE, KERCKHOFFS, None,
     "8490ac0e58949bfe51875d733f93ac2075168039ccc733d7"),
    ("RFC 7518, B.3", "A256CBC-HS512", COUNT[:128], "1af38c2dc2b96ffdd86694092341bc04", PRINCIPLE, KERCKHOFFS, None,
     "4dd3b4c088a7f45c216839645b2012bf2e6269a8c56a816dbc1b267761955bc5"),
    (
        "RFC 8439, 2.8.2", "C20P", COUNT[256:320], "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7", SUNSCREEN,
        (
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71"
            "de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def0"
            "8e4b7a9de576d26586cec64b6116"
        ),
        "1ae10b594f09e26a7e902ecbd0600691",
    ),
    (
        "draft-irtf-cfrg-xchacha, A.3.1", "XC20P", COUNT[256:320], COUNT[128:176], "50515253c0c1c2c3c4c5c6c7",
        SUNSCREEN,
        (
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64"
            "c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c"
            "97637da9768812f615c68b13b52e"
        ),
        "c0875924c1c7987947deafd8780acf49",
    ),
]  # fmt: skip


@row("stricter-105")
@pytest.mark.parametrize("case", KNOWN_ANSWERS, ids=lambda case: case[0])
def test_published_answers_come_out(case: tuple[str, ...]) -> None:
    _, algorithm, *rest = case
    expected = rest[4]
    key, nonce, associated, plain, _, expected_tag = (bytes.fromhex(text or "") for text in rest)
    ciphertext, tag = encrypt(local(key), algorithm, plain, nonce, associated)
    assert (tag or b"") == expected_tag
    if expected is not None:
        assert ciphertext.hex() == expected
    assert decrypt(local(key), algorithm, ciphertext, nonce, expected_tag, associated) == plain


def test_the_subkey_of_xchacha20_is_the_published_one() -> None:
    """draft-irtf-cfrg-xchacha, section 2.2.1."""
    subkey = hchacha20(bytes(range(32)), bytes.fromhex("000000090000004a0000000031415927"))
    assert subkey.hex() == "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"


def test_the_published_ed25519_signature_comes_out() -> None:
    """RFC 8032, 7.1, test 2."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    key = local(ed25519.Ed25519PrivateKey.from_private_bytes(seed), "OKP")
    assert sign(key, "EdDSA", b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


# --- another implementation, both directions

CEK_WRAPPING = ["A128KW", "A192KW", "A256KW", "RSA-OAEP", "RSA-OAEP-256"]
CONTENT = ["A128GCM", "A192GCM", "A256GCM", "A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512"]


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def url_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@row("stricter-106")
@pytest.mark.parametrize("wrapping", CEK_WRAPPING)
@pytest.mark.parametrize("content", CONTENT)
def test_jwe_of_another_implementation_is_readable_and_the_other_way_round(wrapping: str, content: str) -> None:
    key = key_for(wrapping)
    other = OctKey.import_key(serialize(key)) if key.kind == "oct" else RSAKey.import_key(public_and_private_pem())
    names = [wrapping, content]
    made = jwe.encrypt_compact({"alg": wrapping, "enc": content}, MESSAGE, other, algorithms=names)
    header, wrapped, nonce, sealed, tag = made.split(".")
    content_key = local(decrypt(key, wrapping, unpadded(wrapped), operation="unwrapKey"))
    opened = decrypt(content_key, content, unpadded(sealed), unpadded(nonce), unpadded(tag), header.encode())
    assert opened == MESSAGE

    own_nonce = nonce_for(content)
    own_wrapped, _ = encrypt(key, wrapping, serialize(content_key), operation="wrapKey")
    own_sealed, own_tag = encrypt(content_key, content, MESSAGE, own_nonce, header.encode())
    parts = [url_text(part) for part in (own_wrapped, own_nonce, own_sealed, own_tag or b"")]
    assert jwe.decrypt_compact(".".join([header, *parts]), other, algorithms=names).plaintext == MESSAGE


def public_and_private_pem() -> bytes:
    der = serialize(key_for("RSA-OAEP"))
    return b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END PRIVATE KEY-----\n"


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize("algorithm", SIGNATURE_ALGORITHMS)
def test_jws_of_another_implementation_verifies_and_the_other_way_round(algorithm: str) -> None:
    key = key_for(algorithm)
    pem = b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(serialize(key)) + b"-----END PRIVATE KEY-----\n"
    classes: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    other = classes[key.kind].import_key(pem)
    made = jws.serialize_compact({"alg": algorithm}, MESSAGE, other, algorithms=[algorithm])
    signed, _, signature = made.rpartition(".")
    raw = unpadded(signature)
    if key.kind == "EC":
        half = len(raw) // 2
        raw = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
    digest = digest_for(algorithm, signed.encode())
    assert verify(key, algorithm, digest, raw) is True

    own = sign(key, algorithm, digest)
    if key.kind == "EC":
        size = {"ES256": 32, "ES384": 48, "ES512": 66}[algorithm]
        own = b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(own))
    if algorithm.startswith("PS"):
        return  # JWS fixes the salt's length to the digest's; here it is as long as the key allows.
    assert jws.deserialize_compact(f"{signed}.{url_text(own)}", other, algorithms=[algorithm]).payload == MESSAGE


def test_the_public_jwk_is_readable_by_another_implementation() -> None:
    key = key_for("RS256")
    signed = jws.serialize_compact({"alg": "RS256"}, MESSAGE, RSAKey.import_key(public_and_private_pem()))
    other = RSAKey.import_key(json.loads(json.dumps(public_jwk(key))))
    assert jws.deserialize_compact(signed, other).payload == MESSAGE


@pytest.mark.parametrize("algorithm", ["PS256", "PS384", "PS512"])
def test_salts_of_pss_are_as_long_as_the_key_allows(algorithm: str) -> None:
    key, digest = key_for(algorithm), digest_for(algorithm)
    material = key.material
    assert isinstance(material, rsa.RSAPrivateKey)
    sha = {"PS256": hashes.SHA256(), "PS384": hashes.SHA384(), "PS512": hashes.SHA512()}[algorithm]
    longest = material.key_size // 8 - 2 - len(digest)
    pad = padding.PSS(padding.MGF1(sha), longest)
    material.public_key().verify(sign(key, algorithm, digest), digest, pad, Prehashed(sha))
