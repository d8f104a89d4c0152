"""Operations on local keys: what works, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key, load_pem_public_key
from tests.unit.keys_at_hand import (
    EC_KEYS,
    ED_KEY,
    MESSAGE,
    OTHER_RSA_KEY,
    RSA_ENCRYPTION,
    RSA_KEY,
    SYMMETRIC,
    TAGGED,
    digest_for,
    key_for,
    local,
    nonce_for,
    public_of,
)

from lapel.cli import main
from lapel.cli.describe import algorithm_facts
from lapel.crypto.algorithms import ALGORITHMS
from lapel.descriptor import Descriptor
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
from lapel_contrib.jwks import CRYPTO as JWKS_CRYPTO
from lapel_contrib.local import CRYPTO as LOCAL_CRYPTO
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
from lapel_contrib.local.keys import LocalKey

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


# --- the catalogue


@pytest.mark.parametrize("descriptor", [LOCAL_CRYPTO, JWKS_CRYPTO], ids=lambda descriptor: descriptor.name)
def test_the_catalogue_lists_what_works_and_nothing_else(descriptor: Descriptor) -> None:
    assert set(descriptor.algorithms) == {"encrypt", "wrap", "sign"}
    assert set(descriptor.algorithms["encrypt"]) == set(ENCRYPTION_ALGORITHMS)
    assert set(descriptor.algorithms["wrap"]) == set(ENCRYPTION_ALGORITHMS)
    assert set(descriptor.algorithms["sign"]) == set(SIGNATURE_ALGORITHMS)


def test_the_catalogue_says_which_keys_fit(capsys: pytest.CaptureFixture[str]) -> None:
    facts = algorithm_facts(LOCAL_CRYPTO)
    assert set(facts) == set(ALGORITHMS)
    assert facts["A192CBC-HS384"] == (["encrypt", "wrap"], "symmetric, 48 bytes", "16", "24")
    assert facts["RSA-OAEP"] == (["encrypt", "wrap"], "RSA", "", "")
    assert facts["ES512"] == (["sign"], "EC, any curve", "", "")
    with pytest.raises(SystemExit):
        main(["describe", "crypto.dapr.localstorage", "--json"])
    assert json.loads(capsys.readouterr().out)["algorithmKeys"] == {name: info.key for name, info in ALGORITHMS.items()}


def test_an_algorithm_that_only_its_driver_knows_is_listed_without_a_key() -> None:
    own = replace(LOCAL_CRYPTO, algorithms={"sign": ("ML-DSA-65",)})
    assert algorithm_facts(own) == {"ML-DSA-65": (["sign"], "", "", "")}
