"""What the transit engine makes and takes is what JSON Web Algorithms say, checked with `cryptography`."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from joserfc.jwk import OctKey, import_key
from tests.backends.vault import TRANSIT, VaultBackend

from lapel.crypto import CryptoProvider
from lapel.driver import DriverContext
from lapel.errors import (
    DecryptionError,
    InvalidArgumentError,
    InvalidLengthError,
    InvalidNonceError,
    KeyTypeError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedAlgorithmError,
)
from lapel_contrib.vault.crypto import VaultCrypto
from lapel_contrib.vault.settings import VaultCryptoSettings

MESSAGE = b"twenty-six bytes, unevenly"
HASHES: dict[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
AEADS: dict[str, tuple[str, Any]] = {
    "A128GCM": ("aes128-gcm96", AESGCM),
    "A256GCM": ("aes256-gcm96", AESGCM),
    "C20P": ("chacha20-poly1305", ChaCha20Poly1305),
}
CURVES = {"ES256": "ecdsa-p256", "ES384": "ecdsa-p384", "ES512": "ecdsa-p521"}
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class Keys:
    """Makes keys that can be exported, so that others can check what was done with them."""

    def __init__(self, backend: VaultBackend) -> None:
        self.backend = backend

    def make(self, kind: str, **options: Any) -> str:
        """Make a key, and return its name."""
        name = f"k-{uuid.uuid4().hex[:12]}"
        self.backend.call("POST", f"{TRANSIT}/keys/{name}", {"type": kind, "exportable": True, **options})
        return name

    def rotate(self, name: str) -> None:
        """Add a version."""
        self.backend.call("POST", f"{TRANSIT}/keys/{name}/rotate")

    def configure(self, name: str, **options: Any) -> None:
        """Change settings of a key."""
        self.backend.call("POST", f"{TRANSIT}/keys/{name}/config", options)

    def exported(self, name: str, kind: str = "encryption-key", version: int = 1) -> str:
        """Return a version of the key itself: base64 of a symmetric one, else PEM."""
        reply = self.backend.call("GET", f"{TRANSIT}/export/{kind}/{name}")
        text: str = reply["data"]["keys"][str(version)]
        return text

    def secret(self, name: str, version: int = 1) -> bytes:
        """Return a version of a symmetric key."""
        return base64.b64decode(self.exported(name, version=version))

    def private(self, name: str, kind: str = "signing-key", version: int = 1) -> Any:
        """Return a version of an asymmetric key."""
        return load_pem_private_key(self.exported(name, kind, version).encode(), None)


@pytest.fixture
def keys(vault_server: VaultBackend) -> Keys:
    return Keys(vault_server)


@pytest.fixture
async def provider(vault_server: VaultBackend) -> AsyncIterator[CryptoProvider]:
    async with provider_on(vault_server) as provider:
        yield provider


def provider_on(backend: VaultBackend, **fields: str) -> CryptoProvider:
    settings = VaultCryptoSettings.parse({**backend.properties, **fields}, component="transit")
    return CryptoProvider(VaultCrypto(settings, DriverContext(component="transit")))


def hash_of(algorithm: str) -> hashes.HashAlgorithm:
    return HASHES[algorithm[-3:]]()


def digest_of(algorithm: str, message: bytes = MESSAGE) -> bytes:
    return hashlib.new(f"sha{algorithm[-3:]}", message).digest()


# encryption


@pytest.mark.parametrize("algorithm", AEADS)
@pytest.mark.parametrize("associated", [None, b"order-1"])
@pytest.mark.parametrize("message", [MESSAGE, b"", bytes(100_000)])
async def test_others_with_the_key_read_what_vault_encrypted_and_vault_what_they_did(
    provider: CryptoProvider, keys: Keys, algorithm: str, associated: bytes | None, message: bytes
) -> None:
    kind, aead = AEADS[algorithm]
    name = keys.make(kind)
    cipher = aead(keys.secret(name))
    common: dict[str, Any] = {"algorithm": algorithm, "key_name": name, "associated_data": associated}
    sealed = await provider.subtle.encrypt(message, **common)
    assert sealed.nonce is not None
    assert sealed.tag is not None
    assert (len(sealed.nonce), len(sealed.tag), len(sealed.data)) == (12, 16, len(message))
    assert cipher.decrypt(sealed.nonce, sealed.data + sealed.tag, associated) == message
    nonce = os.urandom(12)
    theirs = cipher.encrypt(nonce, message, associated)
    opened = await provider.subtle.decrypt(theirs[:-16], nonce=nonce, tag=theirs[-16:], **common)
    assert opened == message


async def test_a_nonce_of_the_caller_is_refused_because_vault_chooses(provider: CryptoProvider, keys: Keys) -> None:
    name = keys.make("aes256-gcm96")
    with pytest.raises(InvalidNonceError, match="leave it out"):
        await provider.subtle.encrypt(MESSAGE, algorithm="A256GCM", key_name=name, nonce=bytes(12))


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
async def test_rsa_oaep_256_is_that_of_others(provider: CryptoProvider, keys: Keys, bits: int) -> None:
    name = keys.make(f"rsa-{bits}")
    private = keys.private(name, "encryption-key")
    material = os.urandom(32)
    common: dict[str, Any] = {"algorithm": "RSA-OAEP-256", "key_name": name}
    wrapped = await provider.subtle.wrap_key(material, **common)
    assert (wrapped.nonce, wrapped.tag) == (None, None)
    assert private.decrypt(wrapped.data, OAEP) == material
    theirs = private.public_key().encrypt(material, OAEP)
    assert await provider.subtle.unwrap_key(theirs, **common) == material
    longest = bits // 8 - 66
    full = await provider.subtle.wrap_key(bytes(longest), **common)
    assert await provider.subtle.unwrap_key(full.data, **common) == bytes(longest)
    with pytest.raises(InvalidLengthError, match=str(longest)):
        await provider.subtle.wrap_key(bytes(longest + 1), **common)
    with pytest.raises(InvalidArgumentError, match="label"):
        await provider.subtle.wrap_key(material, associated_data=b"label", **common)
    for wrong in (theirs[:-1] + bytes([theirs[-1] ^ 1]), theirs[:-1], b"", bytes(len(theirs))):
        with pytest.raises(DecryptionError):
            await provider.subtle.unwrap_key(wrong, **common)


async def test_a_document_is_for_everyone_who_has_the_key(provider: CryptoProvider, keys: Keys) -> None:
    from lapel.crypto.scheme import decrypt_bytes

    name = keys.make("rsa-2048")
    text = os.urandom(200_000)
    document = await provider.encrypt(text, key_name=name, algorithm="RSA")
    private = keys.private(name, "encryption-key")

    async def unwrap(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        assert (algorithm, key_name) == ("RSA-OAEP-256", name)
        plain: bytes = private.decrypt(wrapped, OAEP)
        return plain

    assert await decrypt_bytes(document, unwrap=unwrap, key_name=None) == text
    keys.rotate(name)
    assert await provider.decrypt(document) == text
    with pytest.raises(UnsupportedAlgorithmError, match="RSA-OAEP-256"):
        await provider.encrypt(text, key_name=name)


# signatures


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
async def test_rsa_signatures_are_those_of_others(provider: CryptoProvider, keys: Keys, algorithm: str) -> None:
    name = keys.make("rsa-2048")
    private: rsa.RSAPrivateKey = keys.private(name)
    digest, prehashed = digest_of(algorithm), Prehashed(hash_of(algorithm))
    common: dict[str, Any] = {"algorithm": algorithm, "key_name": name}
    signature = await provider.subtle.sign(digest, **common)
    salts: list[Any] = [None]
    if algorithm.startswith("PS"):
        # As RFC 7518 wants it: exactly as long as the hash.
        salts = [prehashed._algorithm.digest_size, padding.PSS.MAX_LENGTH]
    for number, salt in enumerate(salts):
        scheme: Any = padding.PKCS1v15() if salt is None else padding.PSS(padding.MGF1(hash_of(algorithm)), salt)
        if number == 0:
            private.public_key().verify(signature, digest, scheme, prehashed)
        theirs = private.sign(digest, scheme, prehashed)
        assert await provider.subtle.verify(digest, theirs, **common)
    assert not await provider.subtle.verify(digest_of(algorithm, b"other"), signature, **common)


@pytest.mark.parametrize("algorithm", CURVES)
async def test_ecdsa_signatures_are_those_of_others_on_the_curve_of_the_algorithm(
    provider: CryptoProvider, keys: Keys, algorithm: str
) -> None:
    name = keys.make(CURVES[algorithm])
    private: ec.EllipticCurvePrivateKey = keys.private(name)
    digest, scheme = digest_of(algorithm), ec.ECDSA(Prehashed(hash_of(algorithm)))
    common: dict[str, Any] = {"algorithm": algorithm, "key_name": name}
    private.public_key().verify(await provider.subtle.sign(digest, **common), digest, scheme)
    assert await provider.subtle.verify(digest, private.sign(digest, scheme), **common)
    other = next(one for one in CURVES if one != algorithm)
    with pytest.raises(KeyTypeError, match=CURVES[other]):
        await provider.subtle.sign(digest_of(other), algorithm=other, key_name=name)


async def test_ed25519_signatures_are_those_of_others(provider: CryptoProvider, keys: Keys) -> None:
    name = keys.make("ed25519")
    common: dict[str, Any] = {"algorithm": "EdDSA", "key_name": name}
    public = load_pem_public_key((await provider.subtle.get_key(name)).pem.encode())
    assert isinstance(public, ed25519.Ed25519PublicKey)
    for message in (b"", MESSAGE, bytes(10_000)):
        signature = await provider.subtle.sign(message, **common)
        public.verify(signature, message)
        with pytest.raises(InvalidSignature):
            public.verify(signature, message + b"x")
        assert await provider.subtle.verify(message, signature, **common)


@pytest.mark.parametrize("kind", ["rsa-2048", *CURVES.values(), "ed25519"])
async def test_the_public_part_is_the_same_as_pem_and_as_jwk(provider: CryptoProvider, keys: Keys, kind: str) -> None:
    name = keys.make(kind)
    key = await provider.subtle.get_key(name)
    assert key.name == name
    as_jwk = import_key(dict(key.jwk))
    assert not isinstance(as_jwk, OctKey)
    assert load_pem_public_key(as_jwk.as_pem(private=False)) == load_pem_public_key(key.pem.encode())


# versions


@pytest.mark.parametrize("algorithm", ["A256GCM", "RSA-OAEP-256"])
async def test_what_an_older_version_encrypted_stays_readable_until_it_is_retired(
    provider: CryptoProvider, keys: Keys, algorithm: str
) -> None:
    name = keys.make("aes256-gcm96" if algorithm == "A256GCM" else "rsa-2048")
    common: dict[str, Any] = {"algorithm": algorithm}
    first = await provider.subtle.encrypt(MESSAGE, key_name=name, **common)
    keys.rotate(name)
    second = await provider.subtle.encrypt(MESSAGE, key_name=name, **common)
    explicit = await provider.subtle.encrypt(MESSAGE, key_name=f"{name}/1", **common)
    for sealed in (first, second, explicit):
        rest: dict[str, Any] = {"nonce": sealed.nonce, "tag": sealed.tag}
        assert await provider.subtle.decrypt(sealed.data, key_name=name, **rest, **common) == MESSAGE
    for sealed, fits in ((first, "1"), (second, "2"), (explicit, "1")):
        rest = {"nonce": sealed.nonce, "tag": sealed.tag}
        assert await provider.subtle.decrypt(sealed.data, key_name=f"{name}/{fits}", **rest, **common) == MESSAGE
        with pytest.raises(DecryptionError):
            await provider.subtle.decrypt(sealed.data, key_name=f"{name}/{3 - int(fits)}", **rest, **common)
    keys.configure(name, min_decryption_version=2)
    with pytest.raises(DecryptionError):
        await provider.subtle.decrypt(first.data, key_name=name, nonce=first.nonce, tag=first.tag, **common)
    with pytest.raises(NotFoundError, match="version 7"):
        await provider.subtle.encrypt(MESSAGE, key_name=f"{name}/7", **common)


async def test_a_version_that_another_process_added_is_learnt_of(
    vault_server: VaultBackend, provider: CryptoProvider, keys: Keys
) -> None:
    name = keys.make("ecdsa-p256")
    secret = keys.make("aes256-gcm96")
    digest = digest_of("ES256")
    signing: dict[str, Any] = {"algorithm": "ES256", "key_name": name}
    sealing: dict[str, Any] = {"algorithm": "A256GCM", "key_name": secret}
    async with provider_on(vault_server, poolSize="2") as other:
        await provider.subtle.sign(digest, **signing)
        await provider.subtle.encrypt(MESSAGE, **sealing)
        keys.rotate(name)
        keys.rotate(secret)
        signature = await other.subtle.sign(digest, **signing)
        sealed = await other.subtle.encrypt(MESSAGE, **sealing)
    assert await provider.subtle.verify(digest, signature, **signing)
    assert await provider.subtle.decrypt(sealed.data, nonce=sealed.nonce, tag=sealed.tag, **sealing) == MESSAGE


async def test_public_keys_of_versions_are_told_apart(provider: CryptoProvider, keys: Keys) -> None:
    name = keys.make("ecdsa-p256")
    first = await provider.subtle.get_key(name)
    keys.rotate(name)
    assert (await provider.subtle.get_key(f"{name}/1")).pem == first.pem
    assert (await provider.subtle.get_key(name)).pem == (await provider.subtle.get_key(f"{name}/2")).pem != first.pem


# what cannot be


async def test_a_key_that_does_not_fit_is_named_before_it_is_used(provider: CryptoProvider, keys: Keys) -> None:
    derived = keys.make("aes256-gcm96", derived=True)
    for name, algorithm in (
        (keys.make("rsa-2048"), "A256GCM"),
        (keys.make("aes128-gcm96"), "A256GCM"),
        (derived, "A256GCM"),
    ):
        with pytest.raises(KeyTypeError, match=name):
            await provider.subtle.encrypt(MESSAGE, algorithm=algorithm, key_name=name)
    with pytest.raises(KeyTypeError):
        await provider.subtle.sign(digest_of("ES256"), algorithm="ES256", key_name=keys.make("ed25519"))


async def test_a_deleted_key_is_not_found_and_never_made_anew(
    vault_server: VaultBackend, provider: CryptoProvider, keys: Keys
) -> None:
    with pytest.raises(NotFoundError):
        await provider.subtle.encrypt(MESSAGE, algorithm="A256GCM", key_name="never-made")
    assert "never-made" not in vault_server.call("LIST", f"{TRANSIT}/keys")["data"]["keys"]
    name = keys.make("aes256-gcm96")
    sealed = await provider.subtle.encrypt(MESSAGE, algorithm="A256GCM", key_name=name)
    keys.configure(name, deletion_allowed=True)
    vault_server.call("DELETE", f"{TRANSIT}/keys/{name}")
    for _ in range(2):
        with pytest.raises(NotFoundError):
            await provider.subtle.decrypt(
                sealed.data, algorithm="A256GCM", key_name=name, nonce=sealed.nonce, tag=sealed.tag
            )


@pytest.mark.parametrize("denied", ["keys", "encrypt"])
async def test_a_token_without_the_right_is_told_the_path(vault_server: VaultBackend, keys: Keys, denied: str) -> None:
    name = keys.make("aes256-gcm96")
    paths = {
        "keys": f'path "{TRANSIT}/keys/*" {{ capabilities = ["read"] }}',
        "encrypt": f'path "{TRANSIT}/encrypt/*" {{ capabilities = ["update"] }}',
    }
    token = vault_server.new_token(policy=next(text for path, text in paths.items() if path != denied))
    async with provider_on(vault_server, vaultToken=token) as provider:
        with pytest.raises(PermissionDeniedError, match=name):
            await provider.subtle.encrypt(MESSAGE, algorithm="A256GCM", key_name=name)
    token = vault_server.new_token(policy="\n".join(paths.values()))
    async with provider_on(vault_server, vaultToken=token) as provider:
        assert (await provider.subtle.encrypt(MESSAGE, algorithm="A256GCM", key_name=name)).data


async def test_an_engine_that_is_not_there_is_named(vault_server: VaultBackend) -> None:
    async with provider_on(vault_server, vaultTransitPath="elsewhere") as provider:
        with pytest.raises(NotFoundError, match="elsewhere"):
            await provider.subtle.encrypt(MESSAGE, algorithm="A256GCM", key_name="key")
