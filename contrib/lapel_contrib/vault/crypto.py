"""Cryptography with keys that never leave Vault: `crypto.hashicorp.vault`."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Any, Final, TypeVar

import hvac  # type: ignore[import-untyped]  # it has no annotations
import msgspec

from lapel.crypto import (
    Ciphertext,
    CryptoDriver,
    DecryptRequest,
    EncryptRequest,
    KeyRequest,
    PublicKey,
    SignRequest,
    UnwrapKeyRequest,
    VerifyRequest,
    WrapKeyRequest,
)
from lapel.driver import DriverContext
from lapel.errors import (
    DecryptionError,
    InvalidArgumentError,
    InvalidLengthError,
    InvalidNonceError,
    InvalidTagError,
    KeyTypeError,
    LapelError,
    NotFoundError,
    OperationFailedError,
)
from lapel_contrib.local.algorithms import public_jwk
from lapel_contrib.local.keys import parse_key

from . import CRYPTO
from .client import ClientLease, VaultClient, path_of
from .errors import Reply, failed
from .settings import VaultCryptoSettings
from .transit_keys import KeyName, TransitKey, TransitKeys

__all__ = ["VaultCrypto"]

_NONCE: Final = 12
_TAG: Final = 16
_OAEP_OVERHEAD: Final = 66
"""Bytes of a block that OAEP with SHA-256 takes: two digests and two bytes. Source: RFC 8017, section 7.1.1."""

_AEAD: Final = {"A128GCM": "aes128-gcm96", "A256GCM": "aes256-gcm96", "C20P": "chacha20-poly1305"}
_RSA: Final = {"rsa-2048": 2048, "rsa-3072": 3072, "rsa-4096": 4096}
_CURVES: Final = {"ES256": "ecdsa-p256", "ES384": "ecdsa-p384", "ES512": "ecdsa-p521", "EdDSA": "ed25519"}
T = TypeVar("T")


class _Sealed(msgspec.Struct):
    ciphertext: str


class _Signed(msgspec.Struct):
    signature: str


class _Item(msgspec.Struct):
    plaintext: str = ""
    valid: bool = False
    error: str = ""


class _Batch(msgspec.Struct):
    batch_results: list[_Item]


class _SealedBody(msgspec.Struct):
    data: _Sealed


class _SignedBody(msgspec.Struct):
    data: _Signed


class _BatchBody(msgspec.Struct):
    data: _Batch


class VaultCrypto(CryptoDriver[VaultCryptoSettings]):
    """Uses keys of a transit engine by name; `name/version` is one version of a key, and no other.

    Ciphertexts and signatures are bare, as JSON Web Algorithms has them, without Vault's prefix that names the version
    of the key: so anybody with the key can read them, and what others made is read here. Where a key has several
    versions, all of them are tried in one request. Encryption and signing use the latest one. Vault chooses the nonces
    of AES-GCM and ChaCha20-Poly1305; a caller's is refused. RSA-PSS signatures have a salt as long as the hash; others
    are verified too. Public keys are used in Vault like private ones, so its policies hold for them.

    The token must be allowed to read `<vaultTransitPath>/keys/<name>` and to update `encrypt/`, `decrypt/`, `sign/` and
    `verify/` there. With the right to create at `encrypt/`, Vault itself makes a key that was deleted a moment ago.
    `unwrap(hvac.Client)` gives the client, which is synchronous: call it in threads.
    """

    descriptor = CRYPTO
    chooses_nonces = True

    def __init__(self, settings: VaultCryptoSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = ClientLease(settings.options(), context.shared, context.logger)
        self._engine = settings.engine.strip("/")
        self._client: VaultClient | None = None
        self._keys: TransitKeys
        self._whole: set[str] = set()

    @property
    def call_timeout(self) -> float | None:
        return self.settings.call_timeout

    async def open(self) -> None:
        self._client = await self._lease.acquire()
        self._keys = TransitKeys(self._client, self._engine)

    async def close(self) -> None:
        self._client = None
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().check()

    def unwrap(self, kind: type[T]) -> T:
        if kind is hvac.Client and self._client is not None:
            found: T = self._client.hvac
            return found
        return super().unwrap(kind)

    async def get_key(self, request: KeyRequest) -> PublicKey:
        wanted = KeyName.parse(request.key_name)
        pem = (await self._keys.get(wanted.name, fresh=True)).pem(wanted.version)
        key = parse_key(pem.encode(), wanted.name, "pem")
        return PublicKey(name=request.key_name, jwk=public_jwk(key), pem=pem)

    async def encrypt(self, request: EncryptRequest) -> Ciphertext:
        return await self._seal(
            request.plaintext, request.algorithm, request.key_name, request.nonce, request.associated_data
        )

    async def decrypt(self, request: DecryptRequest) -> bytes:
        return await self._unseal(
            request.ciphertext,
            request.algorithm,
            request.key_name,
            request.nonce,
            request.tag,
            request.associated_data,
        )

    async def wrap_key(self, request: WrapKeyRequest) -> Ciphertext:
        return await self._seal(
            request.key, request.algorithm, request.key_name, request.nonce, request.associated_data
        )

    async def unwrap_key(self, request: UnwrapKeyRequest) -> bytes:
        return await self._unseal(
            request.wrapped,
            request.algorithm,
            request.key_name,
            request.nonce,
            request.tag,
            request.associated_data,
        )

    async def sign(self, request: SignRequest) -> bytes:
        wanted, key = await self._key(request.key_name, request.algorithm)
        _check_digest(request.algorithm, request.digest)
        body = {**_signature_options(request.algorithm, signing=True), "input": _text(request.digest)}
        if wanted.version is not None:
            body["key_version"] = wanted.version
        reply = await self._post("sign", key, body)
        return _payload(_decoded(reply, _SignedBody).data.signature)

    async def verify(self, request: VerifyRequest) -> bool:
        wanted, key = await self._key(request.key_name, request.algorithm)
        _check_digest(request.algorithm, request.digest)
        if not request.signature:
            return False
        options = _signature_options(request.algorithm, signing=False)
        digest, signature = _text(request.digest), _text(request.signature)

        async def any_fits(versions: tuple[int, ...]) -> bool:
            items = [{"input": digest, "signature": f"vault:v{number}:{signature}"} for number in versions]
            results = await self._batch("verify", key, {**options, "batch_input": items})
            return any(item.valid for item in results)

        versions = key.chosen(wanted.version)
        if await any_fits(versions):
            return True
        newer = await self._newer(wanted, key)
        return bool(newer) and await any_fits(newer)

    async def _seal(
        self, plain: bytes, algorithm: str, key_name: str, nonce: bytes | None, associated_data: bytes | None
    ) -> Ciphertext:
        wanted, key = await self._key(key_name, algorithm)
        body: dict[str, Any] = {"plaintext": _text(plain)}
        if algorithm in _AEAD:
            if nonce is not None:
                raise InvalidNonceError("Vault chooses the nonce, and returns it; leave it out")
            if associated_data:
                body["associated_data"] = _text(associated_data)
        else:
            _check_label(associated_data)
            longest = _RSA[key.type] // 8 - _OAEP_OVERHEAD
            if len(plain) > longest:
                raise InvalidLengthError(f"{algorithm} with key {key.name!r} takes at most {longest} bytes")
        if wanted.version is not None:
            body["key_version"] = wanted.version
        data = _payload(_decoded(await self._post("encrypt", key, body), _SealedBody).data.ciphertext)
        if algorithm not in _AEAD:
            return Ciphertext(data=data)
        return Ciphertext(data=data[_NONCE:-_TAG], tag=data[-_TAG:], nonce=data[:_NONCE])

    async def _unseal(
        self,
        sealed: bytes,
        algorithm: str,
        key_name: str,
        nonce: bytes | None,
        tag: bytes | None,
        associated_data: bytes | None,
    ) -> bytes:
        wanted, key = await self._key(key_name, algorithm)
        common: dict[str, str] = {}
        if algorithm in _AEAD:
            if len(nonce or b"") != _NONCE:
                raise InvalidNonceError(f"{algorithm} needs a nonce of {_NONCE} bytes, got {len(nonce or b'')}")
            if len(tag or b"") != _TAG:
                raise InvalidTagError(f"{algorithm} needs a tag of {_TAG} bytes, got {len(tag or b'')}")
            sealed = (nonce or b"") + sealed + (tag or b"")
            if associated_data:
                common["associated_data"] = _text(associated_data)
        else:
            _check_label(associated_data)
            if key.imported:
                await self._need_private_part(key)
        text = _text(sealed)

        async def first_that_fits(versions: tuple[int, ...]) -> bytes | None:
            items = [{"ciphertext": f"vault:v{number}:{text}", **common} for number in versions]
            # Without the code, one version that fits would be called a bad request because the others do not.
            body = {"batch_input": items, "partial_failure_response_code": 200}
            for item in await self._batch("decrypt", key, body):
                if not item.error:
                    return b64decode(item.plaintext)
            return None

        plain = await first_that_fits(key.chosen(wanted.version))
        if plain is None and (newer := await self._newer(wanted, key)):
            plain = await first_that_fits(newer)
        if plain is None:
            raise DecryptionError("decryption failed: wrong key, nonce, tag or associated data, or changed ciphertext")
        return plain

    async def _key(self, key_name: str, algorithm: str) -> tuple[KeyName, TransitKey]:
        """Return the key, which is of the kind that the algorithm needs."""
        wanted = KeyName.parse(key_name)
        key = await self._keys.get(wanted.name)
        if wanted.version is not None and wanted.version not in key.versions:
            key = await self._keys.get(wanted.name, fresh=True)
            key.chosen(wanted.version)
        needed = _types(algorithm)
        if key.type not in needed:
            raise KeyTypeError(
                f"{algorithm} needs a key of type {' or '.join(needed)}, key {key.name!r} is of type {key.type}"
            )
        if key.derived:
            raise KeyTypeError(f"key {key.name!r} is derived from a context, which this interface does not have")
        return wanted, key

    async def _newer(self, wanted: KeyName, key: TransitKey) -> tuple[int, ...]:
        """Return versions that the key was given since it was last looked at."""
        if wanted.version is not None:
            return ()
        now = await self._keys.get(key.name, fresh=True)
        return tuple(version for version in now.versions if version not in key.versions)

    async def _need_private_part(self, key: TransitKey) -> None:
        """Refuse a key of which only the public part was imported. Vault 1.21 panics when one is to decrypt.

        It does not tell that of a key but when it signs, so it signs a digest that no message has, once for each key.
        Where that is denied, nothing is known, and nothing refused.
        """
        if key.name in self._whole:
            return
        body = {**_signature_options("PS256", signing=True), "input": _text(bytes(32))}
        reply = await self._opened().send("POST", path_of(self._engine, "sign", key.name), body)
        if _lacks_private_part(reply):
            raise KeyTypeError(f"key {key.name!r} has no private part, which decryption needs")
        if reply.ok or reply.status == 403:
            self._whole.add(key.name)

    async def _post(self, action: str, key: TransitKey, body: dict[str, Any]) -> Reply:
        client = self._opened()
        reply = await client.send("POST", path_of(self._engine, action, key.name), body)
        if not reply.ok:
            raise self._refused(action, key, reply)
        return reply

    async def _batch(self, action: str, key: TransitKey, body: dict[str, Any]) -> list[_Item]:
        """Return the result for each item, whatever the status of the whole."""
        client = self._opened()
        reply = await client.send("POST", path_of(self._engine, action, key.name), body)
        try:
            return msgspec.json.decode(reply.content, type=_BatchBody).data.batch_results
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        raise self._refused(action, key, reply)

    def _refused(self, action: str, key: TransitKey, reply: Reply) -> LapelError:
        """Return the error for a reply without a result."""
        self._keys.forget(key.name)
        if _lacks_private_part(reply):
            return KeyTypeError(f"key {key.name!r} has no private part, which {action} needs")
        if reply.status == 400 and "key not found" in reply.errors:
            return NotFoundError(f"{self._opened().place}: there is no key {key.name!r} in {self._engine}")
        return failed(reply, self._opened().place, f"the path {self._engine}/{action}/{key.name}")

    def _opened(self) -> VaultClient:
        assert self._client is not None, "the component makes no call before open or after close"
        return self._client


def _lacks_private_part(reply: Reply) -> bool:
    return reply.status in (400, 500) and "private part" in reply.errors


def _types(algorithm: str) -> tuple[str, ...]:
    """Return the types of keys that an algorithm takes."""
    if algorithm in _AEAD:
        return (_AEAD[algorithm],)
    return (_CURVES[algorithm],) if algorithm in _CURVES else tuple(_RSA)


def _signature_options(algorithm: str, *, signing: bool) -> dict[str, Any]:
    if algorithm == "EdDSA":
        return {}
    options: dict[str, Any] = {"prehashed": True, "hash_algorithm": f"sha2-{algorithm[-3:]}"}
    if algorithm.startswith("RS"):
        options["signature_algorithm"] = "pkcs1v15"
    elif algorithm.startswith("PS"):
        options |= {"signature_algorithm": "pss", "salt_length": "hash" if signing else "auto"}
    else:
        options["marshaling_algorithm"] = "asn1"
    return options


def _check_digest(algorithm: str, digest: bytes) -> None:
    if algorithm == "EdDSA":
        return
    size = int(algorithm[-3:]) // 8
    if len(digest) != size:
        raise InvalidLengthError(f"{algorithm} needs a digest of {size} bytes, got {len(digest)}")


def _check_label(associated_data: bytes | None) -> None:
    if associated_data:
        raise InvalidArgumentError("Vault takes no label for RSA-OAEP; leave associated_data out")


def _decoded(reply: Reply, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    raise OperationFailedError("Vault gave an answer that a transit engine does not give; check vaultTransitPath")


def _payload(text: str) -> bytes:
    """Read `vault:v1:base64`."""
    try:
        return b64decode(text.split(":", 2)[2], validate=True)
    except (IndexError, binascii.Error):
        pass
    raise OperationFailedError("Vault gave a result of an unknown form")


def _text(data: bytes) -> str:
    return b64encode(data).decode()
