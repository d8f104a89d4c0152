"""Operations on local keys: known answers, other implementations, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key, load_pem_public_key
from joserfc import jwe, jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from lapel.crypto.algorithms import ALGORITHMS, KeyKind
from lapel.errors import (
    DecryptionError,
    InvalidArgumentError,
    InvalidLengthError,
    InvalidNonceError,
    InvalidTagError,
    KeyTypeError,
    NotFoundError,
    UnsupportedAlgorithmError,
)
from lapel.testing import row
from lapel_contrib.local.algorithms import (
    ENCRYPTION_ALGORITHMS,
    SIGNATURE_ALGORITHMS,
    decrypt,
    encrypt,
    public_jwk,
    public_pem,
    serialize,
    sign,
    verify,
)
from lapel_contrib.local.keys import KeyMaterial, LocalKey
from lapel_contrib.local.symmetric import hchacha20

RSA_KEY = rsa.generate_private_key(65_537, 2_048)
OTHER_RSA_KEY = rsa.generate_private_key(65_537, 2_048)
EC_KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}
ED_KEY = ed25519.Ed25519PrivateKey.generate()

SYMMETRIC = [name for name in ENCRYPTION_ALGORITHMS if ALGORITHMS[name].kind == "oct"]
RSA_ENCRYPTION = [name for name in ENCRYPTION_ALGORITHMS if ALGORITHMS[name].kind == "RSA"]
TAGGED = [name for name in SYMMETRIC if ALGORITHMS[name].tag_size]
MESSAGE = bytes(range(48))


def local(material: KeyMaterial, kind: KeyKind | None = None, **limits: Any) -> LocalKey:
    found: KeyKind = "oct" if isinstance(material, bytes) else "RSA"
    private = isinstance(material, bytes) or hasattr(material, "private_bytes")
    return LocalKey(name="mykey", kind=kind or found, material=material, private=private, **limits)


def key_for(algorithm: str, **limits: Any) -> LocalKey:
    info = ALGORITHMS[algorithm]
    if info.kind == "oct":
        return local(bytes(range(info.key_size or 0)), **limits)
    if info.kind == "EC":
        return local(EC_KEYS[algorithm], "EC", **limits)
    return local(RSA_KEY, **limits) if info.kind == "RSA" else local(ED_KEY, "OKP", **limits)


def public_of(key: LocalKey) -> LocalKey:
    assert isinstance(key.material, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
    return local(key.material.public_key(), key.kind)


def nonce_for(algorithm: str) -> bytes:
    return os.urandom(ALGORITHMS[algorithm].nonce_size)


def digest_for(algorithm: str, message: bytes = b"message") -> bytes:
    return message if algorithm == "EdDSA" else hashlib.new(f"sha{algorithm[-3:]}", message).digest()


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


# --- encryption


@pytest.mark.parametrize("algorithm", ENCRYPTION_ALGORITHMS)
def test_every_encryption_algorithm_works_there_and_back(algorithm: str) -> None:
    key, nonce = key_for(algorithm), nonce_for(algorithm)
    associated = b"context" if ALGORITHMS[algorithm].associated_data else None
    for operation, back in (("encrypt", "decrypt"), ("wrapKey", "unwrapKey")):
        sealed, tag = encrypt(key, algorithm, MESSAGE, nonce, associated, operation=operation)  # type: ignore[arg-type]  # from a table
        assert MESSAGE not in sealed
        assert len(tag or b"") == ALGORITHMS[algorithm].tag_size
        assert decrypt(key, algorithm, sealed, nonce, tag, associated, operation=back) == MESSAGE  # type: ignore[arg-type]  # from a table


@pytest.mark.parametrize("algorithm", [name for name in ENCRYPTION_ALGORITHMS if not name.endswith(("GCM", "P", "KW"))])
def test_lengths_that_are_no_multiple_of_a_block_fit_only_padded_algorithms(algorithm: str) -> None:
    key, nonce = key_for(algorithm), nonce_for(algorithm)
    for length in (0, 1, 15, 17, 26):
        if length and algorithm.endswith("NOPAD"):
            with pytest.raises(InvalidLengthError):
                encrypt(key, algorithm, bytes(length), nonce)
        else:
            sealed, tag = encrypt(key, algorithm, bytes(length), nonce)
            assert decrypt(key, algorithm, sealed, nonce, tag) == bytes(length)


@pytest.mark.parametrize("algorithm", TAGGED)
def test_only_exactly_what_was_sealed_opens(algorithm: str) -> None:
    key, nonce = key_for(algorithm), nonce_for(algorithm)
    sealed, tag = encrypt(key, algorithm, MESSAGE, nonce, b"context")
    assert tag is not None
    other = local(os.urandom(ALGORITHMS[algorithm].key_size or 0))
    attempts: list[tuple[LocalKey, bytes, bytes, bytes, bytes | None]] = [
        (other, sealed, nonce, tag, b"context"),
        (key, sealed[:-1], nonce, tag, b"context"),
        (key, sealed + b"\0", nonce, tag, b"context"),
        (key, b"", nonce, tag, b"context"),
        (key, sealed, nonce, tag, None),
        (key, sealed, nonce, tag, b"contexT"),
        (key, sealed, nonce, tag, b"context "),
    ]
    for part, whole in enumerate((sealed, nonce, tag)):
        for at in range(len(whole)):
            parts = [sealed, nonce, tag]
            parts[part] = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            attempts.append((key, parts[0], parts[1], parts[2], b"context"))
    texts = set()
    for attempt in attempts:
        used, data, number, code, associated = attempt
        with pytest.raises(DecryptionError) as caught:
            decrypt(used, algorithm, data, number, code, associated)
        texts.add(str(caught.value))
    assert len(texts) == 1
    assert decrypt(key, algorithm, sealed, nonce, tag, b"context") == MESSAGE


@pytest.mark.parametrize("algorithm", ["A128KW", "A192KW", "A256KW"])
def test_a_changed_wrapped_key_does_not_unwrap(algorithm: str) -> None:
    sealed, _ = encrypt(key_for(algorithm), algorithm, MESSAGE)
    for bad in (b"", b"x", sealed[:-8], sealed[:-1], sealed + bytes(8), sealed[:-1] + bytes([sealed[-1] ^ 1])):
        with pytest.raises(DecryptionError):
            decrypt(key_for(algorithm), algorithm, bad)
    for length in (0, 8, 15, 17, 31):
        with pytest.raises(InvalidLengthError):
            encrypt(key_for(algorithm), algorithm, bytes(length))


@pytest.mark.parametrize("algorithm", ["A256CBC", "A256CBC-NOPAD"])
def test_cbc_refuses_ciphertext_that_is_not_whole_blocks(algorithm: str) -> None:
    for length in (1, 15, 17):
        with pytest.raises(DecryptionError):
            decrypt(key_for(algorithm), algorithm, bytes(length), bytes(16))


@pytest.mark.parametrize("algorithm", [name for name in SYMMETRIC if ALGORITHMS[name].nonce_size])
def test_nonces_and_tags_of_every_other_length_are_typed_errors(algorithm: str) -> None:
    key, info = key_for(algorithm), ALGORITHMS[algorithm]
    for length in set(range(40)) - {info.nonce_size}:
        with pytest.raises(InvalidNonceError):
            encrypt(key, algorithm, MESSAGE, bytes(length))
        with pytest.raises(InvalidNonceError):
            decrypt(key, algorithm, MESSAGE, bytes(length), bytes(info.tag_size))
    for length in set(range(40)) - {info.tag_size}:
        with pytest.raises(InvalidTagError if info.tag_size else DecryptionError):
            decrypt(key, algorithm, b"x", bytes(info.nonce_size), bytes(length))


@pytest.mark.parametrize("algorithm", SYMMETRIC)
def test_symmetric_algorithms_take_keys_of_one_size(algorithm: str) -> None:
    for size in {0, 8, 16, 24, 32, 48, 64, 65} - {ALGORITHMS[algorithm].key_size}:
        with pytest.raises(KeyTypeError):
            encrypt(local(bytes(size)), algorithm, MESSAGE, nonce_for(algorithm))


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if not ALGORITHMS[name].associated_data])
def test_associated_data_that_would_not_be_protected_is_refused(algorithm: str) -> None:
    if algorithm in ENCRYPTION_ALGORITHMS:
        with pytest.raises(InvalidArgumentError):
            encrypt(key_for(algorithm), algorithm, MESSAGE, nonce_for(algorithm), b"context")


@pytest.mark.parametrize("algorithm", RSA_ENCRYPTION)
def test_rsa_encrypts_with_the_public_part_and_decrypts_with_the_private_one(algorithm: str) -> None:
    key = key_for(algorithm)
    sealed, tag = encrypt(public_of(key), algorithm, MESSAGE)
    assert tag is None
    assert decrypt(key, algorithm, sealed) == MESSAGE
    with pytest.raises(KeyTypeError):
        decrypt(public_of(key), algorithm, sealed)


@pytest.mark.parametrize("algorithm", RSA_ENCRYPTION)
def test_rsa_takes_as_much_as_fits_the_key(algorithm: str) -> None:
    overhead = {"RSA1_5": 11, "RSA-OAEP": 42, "RSA-OAEP-256": 66, "RSA-OAEP-384": 98, "RSA-OAEP-512": 130}[algorithm]
    key, longest = key_for(algorithm), bytes(256 - overhead)
    assert decrypt(key, algorithm, encrypt(key, algorithm, longest)[0]) == longest
    assert decrypt(key, algorithm, encrypt(key, algorithm, b"")[0]) == b""
    with pytest.raises(InvalidLengthError):
        encrypt(key, algorithm, longest + b"x")


@pytest.mark.parametrize("algorithm", [name for name in RSA_ENCRYPTION if name != "RSA1_5"])
def test_oaep_refuses_every_other_ciphertext_label_and_key_in_one_way(algorithm: str) -> None:
    key = key_for(algorithm)
    sealed, _ = encrypt(key, algorithm, MESSAGE, None, b"label")
    assert decrypt(key, algorithm, sealed, None, None, b"label") == MESSAGE
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    attempts = [(key, changed, b"label"), (key, sealed[:-1], b"label"), (key, b"", b"label"), (key, sealed, b"")]
    attempts += [(key, sealed, b"labeL"), (local(OTHER_RSA_KEY), sealed, b"label"), (key, b"\xff" * 256, b"label")]
    texts = set()
    for used, data, label in attempts:
        with pytest.raises(DecryptionError) as caught:
            decrypt(used, algorithm, data, None, None, label)
        texts.add(str(caught.value))
    assert len(texts) == 1


def test_rsa1_5_tells_nothing_about_the_padding_of_a_changed_ciphertext() -> None:
    key = key_for("RSA1_5")
    sealed, _ = encrypt(key, "RSA1_5", MESSAGE)
    try:
        plain = decrypt(key, "RSA1_5", sealed[:-1] + bytes([sealed[-1] ^ 1]))
    except DecryptionError:
        return
    assert plain != MESSAGE


# --- signatures


@pytest.mark.parametrize("algorithm", SIGNATURE_ALGORITHMS)
def test_a_signature_holds_for_its_digest_only(algorithm: str) -> None:
    key, digest = key_for(algorithm), digest_for(algorithm)
    signature = sign(key, algorithm, digest)
    assert verify(key, algorithm, digest, signature) is True
    assert verify(public_of(key), algorithm, digest, signature) is True
    assert verify(key, algorithm, digest_for(algorithm, b"another"), signature) is False
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(len(signature)), b"\x30" + bytes(5), bytes(10_000)):
        assert verify(key, algorithm, digest, wrong) is False
    changed = signature[:-1] + bytes([signature[-1] ^ 1])
    assert verify(key, algorithm, digest, changed) is False


def test_a_signature_of_another_key_is_false() -> None:
    signature = sign(local(OTHER_RSA_KEY), "PS256", digest_for("PS256"))
    assert verify(key_for("PS256"), "PS256", digest_for("PS256"), signature) is False
    assert verify(local(OTHER_RSA_KEY), "RS256", digest_for("PS256"), signature) is False


@pytest.mark.parametrize("algorithm", [name for name in SIGNATURE_ALGORITHMS if name != "EdDSA"])
def test_a_digest_of_another_hash_is_a_typed_error(algorithm: str) -> None:
    for length in {0, 20, 32, 48, 64, 65} - {ALGORITHMS[algorithm].digest_size}:
        with pytest.raises(InvalidLengthError):
            sign(key_for(algorithm), algorithm, bytes(length))
        with pytest.raises(InvalidLengthError):
            verify(key_for(algorithm), algorithm, bytes(length), b"signature")


@pytest.mark.parametrize("algorithm", SIGNATURE_ALGORITHMS)
def test_signing_needs_the_private_part(algorithm: str) -> None:
    with pytest.raises(KeyTypeError, match="public"):
        sign(public_of(key_for(algorithm)), algorithm, digest_for(algorithm))


def test_ecdsa_works_on_any_curve_with_any_hash() -> None:
    key = local(EC_KEYS["ES512"], "EC")
    assert verify(key, "ES256", digest_for("ES256"), sign(key, "ES256", digest_for("ES256"))) is True


def test_eddsa_takes_ed25519_only() -> None:
    key = local(ed448.Ed448PrivateKey.generate(), "OKP")
    with pytest.raises(KeyTypeError, match="Ed25519"):
        sign(key, "EdDSA", b"x")
    with pytest.raises(KeyTypeError, match="Ed25519"):
        verify(key, "EdDSA", b"x", b"y")


# --- refusals


@pytest.mark.parametrize(
    "name",
    ["", "a256gcm", "A256GCMKW", "ECDH-ES", "ECDH-ES+A256KW", "HS256", "HS512", "none", "RSA-OAEP-1", "ES256K"],
)
def test_names_that_are_not_advertised_are_unsupported(name: str) -> None:
    key = local(bytes(32))
    with pytest.raises(UnsupportedAlgorithmError):
        encrypt(key, name, MESSAGE)
    with pytest.raises(UnsupportedAlgorithmError):
        decrypt(key, name, MESSAGE)
    with pytest.raises(UnsupportedAlgorithmError):
        sign(key, name, MESSAGE)
    with pytest.raises(UnsupportedAlgorithmError):
        verify(key, name, MESSAGE, b"")


def test_an_algorithm_does_only_what_it_is_for() -> None:
    with pytest.raises(UnsupportedAlgorithmError):
        encrypt(key_for("PS256"), "PS256", MESSAGE)
    with pytest.raises(UnsupportedAlgorithmError):
        sign(key_for("RSA-OAEP"), "RSA-OAEP", MESSAGE)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_of_another_kind_is_a_type_error(algorithm: str) -> None:
    kind = ALGORITHMS[algorithm].kind
    others = {"oct": local(bytes(32)), "RSA": local(RSA_KEY), "EC": local(EC_KEYS["ES256"], "EC")}
    others["OKP"] = local(ED_KEY, "OKP")
    for other in (key for name, key in others.items() if name != kind):
        with pytest.raises(KeyTypeError):
            if algorithm in SIGNATURE_ALGORITHMS:
                sign(other, algorithm, digest_for(algorithm))
            else:
                encrypt(other, algorithm, MESSAGE, nonce_for(algorithm))


@pytest.mark.parametrize("alg", [None, "A256GCM", "A256KW"])
@pytest.mark.parametrize("use", [None, "enc", "sig"])
@pytest.mark.parametrize("key_ops", [None, [], ["encrypt"], ["wrapKey", "decrypt"]])
@pytest.mark.parametrize("operation", ["encrypt", "wrapKey"])
def test_limits_of_a_key_are_kept(alg: str | None, use: str | None, key_ops: list[str] | None, operation: str) -> None:
    limits = frozenset(key_ops) if key_ops is not None else None
    key = key_for("A256GCM", alg=alg, use=use, key_ops=limits)
    allowed = alg in (None, "A256GCM") and use in (None, "enc") and (limits is None or operation in limits)
    if allowed:
        assert encrypt(key, "A256GCM", MESSAGE, bytes(12), operation=operation)  # type: ignore[arg-type]  # from a table
    else:
        with pytest.raises(KeyTypeError):
            encrypt(key, "A256GCM", MESSAGE, bytes(12), operation=operation)  # type: ignore[arg-type]  # from a table


def test_limits_hold_for_signatures_and_for_opening_too() -> None:
    digest = digest_for("PS256")
    signature = sign(key_for("PS256", use="sig", key_ops=frozenset({"sign"})), "PS256", digest)
    with pytest.raises(KeyTypeError):
        verify(key_for("PS256", key_ops=frozenset({"sign"})), "PS256", digest, signature)
    with pytest.raises(KeyTypeError):
        sign(key_for("PS256", use="enc"), "PS256", digest)
    with pytest.raises(KeyTypeError):
        decrypt(key_for("A256KW", key_ops=frozenset({"decrypt"})), "A256KW", bytes(40), operation="unwrapKey")


def test_a_key_that_is_too_small_is_a_type_error() -> None:
    small = local(rsa.generate_private_key(65_537, 1_024))
    with pytest.raises(KeyTypeError):
        encrypt(small, "RSA-OAEP-512", b"")


def test_errors_never_hold_key_or_plaintext() -> None:
    canary = b"canary-canary-canary-canary-cana"
    key = local(canary)
    texts = [repr(key), str(key)]
    for algorithm in ALGORITHMS:
        try:
            encrypt(key, algorithm, canary + b"x")
        except (InvalidArgumentError, KeyTypeError, UnsupportedAlgorithmError) as exc:
            texts += [repr(exc), str(exc), repr(exc.__context__)]
    with pytest.raises(DecryptionError) as caught:
        decrypt(key, "A256GCM", canary, bytes(12), bytes(16))
    texts += [repr(caught.value), repr(caught.value.__context__)]
    assert not any("canary" in text or canary.hex() in text for text in texts)


# --- public parts and key serialisation


@pytest.mark.parametrize(
    ("algorithm", "members"), [("PS256", "kty n e"), ("ES256", "kty crv x y"), ("EdDSA", "kty crv x")]
)
def test_the_public_part_has_no_private_member(algorithm: str, members: str) -> None:
    for part in (key_for(algorithm), public_of(key_for(algorithm))):
        assert set(public_jwk(part)) == set(members.split())
        loaded = load_pem_public_key(public_pem(part).encode())
        assert isinstance(loaded, type(public_of(part).material) if part.private else type(part.material))


def test_a_symmetric_key_has_no_public_part() -> None:
    for export in (public_jwk, public_pem):
        with pytest.raises(NotFoundError):
            export(local(bytes(32)))


def test_a_curve_without_jwk_name_still_has_pem() -> None:
    key = local(ec.generate_private_key(ec.SECP224R1()), "EC")
    assert public_pem(key).startswith("-----BEGIN PUBLIC KEY-----")
    with pytest.raises(KeyTypeError, match="PEM"):
        public_jwk(key)


def test_keys_are_serialised_as_wrapping_expects() -> None:
    assert serialize(local(b"raw" * 8)) == b"raw" * 8
    for key in (key_for("PS256"), key_for("ES256"), key_for("EdDSA")):
        assert public_pem(key) == public_pem(
            local(load_der_private_key(serialize(key), None), key.kind)  # type: ignore[arg-type]  # one of these kinds
        )
        assert load_der_public_key(serialize(public_of(key))) == public_of(key).material


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
