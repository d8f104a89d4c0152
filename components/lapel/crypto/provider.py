"""The crypto provider that an application holds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from importlib import import_module
from typing import Any

from ..component import Component, ComponentOptions
from ..descriptor import Capability
from ..errors import LapelError, UnsupportedAlgorithmError
from ..policy import Effect, Operation
from .algorithms import ALGORITHMS
from .driver import CryptoDriver
from .types import (
    Bytes,
    Ciphertext,
    DecryptRequest,
    EncryptRequest,
    KeyRequest,
    PublicKey,
    SignRequest,
    UnwrapKeyRequest,
    VerifyRequest,
    WrapKeyRequest,
)

__all__ = ["CryptoProvider", "SubtleCrypto"]

GET_KEY = Operation("get_key", Effect.SAFE)
ENCRYPT = Operation("encrypt", Effect.SAFE)
DECRYPT = Operation("decrypt", Effect.SAFE)
WRAP_KEY = Operation("wrap_key", Effect.SAFE)
UNWRAP_KEY = Operation("unwrap_key", Effect.SAFE)
SIGN = Operation("sign", Effect.SAFE)
VERIFY = Operation("verify", Effect.SAFE)


class CryptoProvider(Component[CryptoDriver[Any]]):
    """Keys that a provider holds, used in two ways. All calls may overlap.

    `encrypt` and `decrypt` protect documents of any length: every document has its own random key, wrapped by one
    of the provider's, and no nonce is ever chosen by hand. `subtle` works with the provider's keys directly.
    """

    def __init__(self, driver: CryptoDriver[Any], *, options: ComponentOptions | None = None) -> None:
        super().__init__(driver, options=options)
        self.subtle = SubtleCrypto(self)
        self._scheme: Any = None

    @property
    def algorithms(self) -> Mapping[str, tuple[str, ...]]:
        """The algorithm names offered, by `encrypt`, `wrap` and `sign`; `ALGORITHMS` tells which keys fit them."""
        return self.descriptor.algorithms

    async def encrypt(
        self,
        data: Bytes,
        *,
        key_name: str,
        algorithm: str = "A256KW",
        cipher: str = "AES-GCM",
        omit_key_name: bool = False,
        decryption_key_name: str | None = None,
    ) -> bytes:
        """Encrypt a document in memory with Dapr's scheme version 1.

        `algorithm` wraps the document's key with `key_name` (aliases `AES` and `RSA`). `cipher` is `AES-GCM` or
        `CHACHA20-POLY1305`. `decryption_key_name` is written into the document instead of `key_name`; with
        `omit_key_name` none is, and `decrypt` must be told. Runs on the event loop and gives it a turn at least every
        MiB. Raises `NotFoundError` for an unknown key, `KeyTypeError` for one that does not fit.
        """
        scheme = self._documents("encrypt", algorithm)
        self._check_names("encrypt", key_name=key_name, cipher=cipher)
        if decryption_key_name:
            self._check_names("encrypt", decryption_key_name=decryption_key_name)
        with self._naming("encrypt"):
            result: bytes = await scheme.encrypt_bytes(
                self._bytes_like(data, "data", "encrypt"),
                wrap=self._wrapper(scheme.resolve_algorithm(algorithm), key_name),
                key_name=key_name,
                algorithm=algorithm,
                cipher=cipher,
                omit_key_name=omit_key_name,
                decryption_key_name=decryption_key_name,
            )
        return result

    async def decrypt(self, data: Bytes, *, key_name: str | None = None) -> bytes:
        """Decrypt a document in memory, all or nothing.

        `key_name` None takes the name in the document. Raises `DecryptionError`, always with the same text, whatever is
        wrong with the document, and for a key that is not its key, or that the document names and there is not; the log
        says more about such a key. Raises `NotFoundError` for an unknown `key_name`. A document cut right after its
        header decrypts as empty: the format cannot tell.
        """
        scheme = self._documents("decrypt")
        if key_name:
            self._check_names("decrypt", key_name=key_name)
        with self._naming("decrypt"):
            plain: bytes = await scheme.decrypt_bytes(
                self._bytes_like(data, "data", "decrypt"), unwrap=self._unwrap, key_name=key_name
            )
        return plain

    def encrypt_stream(
        self,
        chunks: AsyncIterable[Bytes] | Iterable[Bytes],
        *,
        key_name: str,
        algorithm: str = "A256KW",
        cipher: str = "AES-GCM",
        omit_key_name: bool = False,
        decryption_key_name: str | None = None,
    ) -> AsyncIterator[bytes]:
        """Encrypt a document of any length in constant memory; arguments as for `encrypt`.

        Chunks may be of any size, and change when the next one is asked for. The source is closed with the result when
        it is an asynchronous generator.
        """
        scheme = self._documents("encrypt", algorithm)
        self._check_names("encrypt", key_name=key_name, cipher=cipher)
        if decryption_key_name:
            self._check_names("encrypt", decryption_key_name=decryption_key_name)
        stream: AsyncGenerator[bytes, None] = scheme.encrypt_stream(
            chunks,
            wrap=self._wrapper(scheme.resolve_algorithm(algorithm), key_name),
            key_name=key_name,
            algorithm=algorithm,
            cipher=cipher,
            omit_key_name=omit_key_name,
            decryption_key_name=decryption_key_name,
        )
        return self._named(stream, "encrypt")

    def decrypt_stream(
        self, chunks: AsyncIterable[Bytes] | Iterable[Bytes], *, key_name: str | None = None
    ) -> AsyncIterator[bytes]:
        """Decrypt a document of any length in constant memory.

        Every piece that comes out is authentic, but only the end of the stream tells that the document is whole: act
        on it then.
        """
        scheme = self._documents("decrypt")
        if key_name:
            self._check_names("decrypt", key_name=key_name)
        stream: AsyncGenerator[bytes, None] = scheme.decrypt_stream(chunks, unwrap=self._unwrap, key_name=key_name)
        return self._named(stream, "decrypt")

    async def _opened(self) -> None:
        if Capability.DOCUMENTS in self.capabilities:
            # Imports `cryptography`; the driver's extra brings it.
            self._scheme = await asyncio.to_thread(import_module, "lapel.crypto.scheme")

    @contextmanager
    def _naming(self, operation: str) -> Iterator[None]:
        """Complete the errors of the body, which does not know for whom it works."""
        try:
            yield
        except LapelError as exc:
            self._located(exc, operation)
            raise

    async def _named(self, stream: AsyncGenerator[bytes, None], operation: str) -> AsyncIterator[bytes]:
        with self._naming(operation):
            async with aclosing(stream):
                async for piece in stream:
                    yield piece

    def _documents(self, operation: str, algorithm: str | None = None) -> Any:
        self._need(Capability.DOCUMENTS, operation)
        if self._scheme is None or self._loop is not asyncio.get_running_loop():
            raise self._unusable(operation)
        if algorithm is not None:
            self._check_algorithm(algorithm, operation)
            self._offered("wrap", self._scheme.resolve_algorithm(algorithm))
        return self._scheme

    def _check_algorithm(self, algorithm: object, operation: str) -> None:
        if not isinstance(algorithm, str):
            raise self._invalid(f"the algorithm must be text, not {type(algorithm).__name__}", operation)

    def _check_names(self, operation: str, **names: str) -> None:
        for what, name in names.items():
            if not isinstance(name, str) or not name or "\0" in name:
                raise self._invalid(f"the {what} must be text that is not empty and holds no NUL", operation)
            try:
                name.encode()
            except UnicodeEncodeError:
                raise self._invalid(f"the {what} holds a lone surrogate, which is not text", operation) from None

    def _bytes(self, data: object, what: str, operation: str) -> bytes:
        return bytes(self._bytes_like(data, what, operation))

    def _bytes_like(self, data: object, what: str, operation: str) -> Bytes:
        if not isinstance(data, bytes | bytearray | memoryview):
            text = f"the {what} must be bytes, not {type(data).__name__}; encode text as UTF-8 first"
            raise self._invalid(text, operation)
        return data

    # The format has no place for the nonce of an algorithm that takes one (`A*CBC-NOPAD`), and no writer of it that is
    # known uses them. Here the nonce goes before the wrapped key.

    def _wrapper(self, algorithm: str, key_name: str) -> Any:
        async def wrap(key: bytes) -> bytes:
            nonce = _nonce(algorithm)
            request = WrapKeyRequest(key=key, algorithm=algorithm, key_name=key_name, nonce=nonce)
            return (nonce or b"") + (await self._call(WRAP_KEY, self._driver.wrap_key, request)).data

        return wrap

    async def _unwrap(self, wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        self._offered("wrap", algorithm)
        size = ALGORITHMS[algorithm].nonce_size
        nonce = wrapped[:size] if size else None
        request = UnwrapKeyRequest(wrapped=wrapped[size:], algorithm=algorithm, key_name=key_name, nonce=nonce)
        return await self._call(UNWRAP_KEY, self._driver.unwrap_key, request)

    def _offered(self, group: str, algorithm: str) -> None:
        self._check_algorithm(algorithm, group)
        names = self.descriptor.algorithms.get(group, ())
        if algorithm not in names:
            raise UnsupportedAlgorithmError(
                f"{algorithm!r} is not offered; use one of {', '.join(names) or 'none'}",
                component=self.name,
                driver=self.type,
                operation=group,
            )


class SubtleCrypto:
    """Single operations on a provider's keys, for those who know what nonces are for. All calls may overlap.

    Never use one nonce twice with one key: with GCM or ChaCha20-Poly1305 that gives away the key stream and the
    ability to forge. Leave `nonce` out and a random one is made and returned. Random 96-bit nonces are safe for at
    most 2**32 messages with one key; for more, use documents.
    """

    def __init__(self, provider: CryptoProvider) -> None:
        self._provider = provider

    async def get_key(self, key_name: str) -> PublicKey:
        """Return the public part of an asymmetric key; a symmetric key is `NotFoundError`."""
        provider = self._provider
        provider._need(Capability.PUBLIC_KEYS, "get_key")
        return await provider._call(GET_KEY, provider.driver.get_key, KeyRequest(self._name(key_name, "get_key")))

    async def encrypt(
        self,
        plaintext: bytes,
        *,
        algorithm: str,
        key_name: str,
        nonce: bytes | None = None,
        associated_data: bytes | None = None,
    ) -> Ciphertext:
        """Encrypt a short message. The nonce used is in the answer.

        Raises `InvalidNonceError` for one of the wrong length, before the key is used.
        """
        provider = self._provider
        provider._offered("encrypt", algorithm)
        request = EncryptRequest(
            plaintext=provider._bytes(plaintext, "plaintext", "encrypt"),
            algorithm=algorithm,
            key_name=self._name(key_name, "encrypt"),
            nonce=self._nonce(nonce, algorithm, "encrypt"),
            associated_data=self._optional(associated_data, "associated_data", "encrypt"),
        )
        return self._with_nonce(await provider._call(ENCRYPT, provider.driver.encrypt, request), request.nonce)

    async def decrypt(
        self,
        ciphertext: bytes,
        *,
        algorithm: str,
        key_name: str,
        nonce: bytes | None = None,
        tag: bytes | None = None,
        associated_data: bytes | None = None,
    ) -> bytes:
        """Decrypt a short message; `DecryptionError` for everything that depends on ciphertext, tag or key."""
        provider = self._provider
        provider._offered("encrypt", algorithm)
        request = DecryptRequest(
            ciphertext=provider._bytes(ciphertext, "ciphertext", "decrypt"),
            algorithm=algorithm,
            key_name=self._name(key_name, "decrypt"),
            nonce=self._optional(nonce, "nonce", "decrypt"),
            tag=self._optional(tag, "tag", "decrypt"),
            associated_data=self._optional(associated_data, "associated_data", "decrypt"),
        )
        return await provider._call(DECRYPT, provider.driver.decrypt, request)

    async def wrap_key(
        self,
        key: bytes,
        *,
        algorithm: str,
        key_name: str,
        nonce: bytes | None = None,
        associated_data: bytes | None = None,
    ) -> Ciphertext:
        """Encrypt key material: raw bytes of a symmetric key, PKCS#8 of a private one, PKIX of a public one."""
        provider = self._provider
        provider._offered("wrap", algorithm)
        request = WrapKeyRequest(
            key=provider._bytes(key, "key", "wrap_key"),
            algorithm=algorithm,
            key_name=self._name(key_name, "wrap_key"),
            nonce=self._nonce(nonce, algorithm, "wrap_key"),
            associated_data=self._optional(associated_data, "associated_data", "wrap_key"),
        )
        return self._with_nonce(await provider._call(WRAP_KEY, provider.driver.wrap_key, request), request.nonce)

    async def unwrap_key(
        self,
        wrapped: bytes,
        *,
        algorithm: str,
        key_name: str,
        nonce: bytes | None = None,
        tag: bytes | None = None,
        associated_data: bytes | None = None,
    ) -> bytes:
        """Decrypt key material; the caller knows what kind of key it is."""
        provider = self._provider
        provider._offered("wrap", algorithm)
        request = UnwrapKeyRequest(
            wrapped=provider._bytes(wrapped, "wrapped", "unwrap_key"),
            algorithm=algorithm,
            key_name=self._name(key_name, "unwrap_key"),
            nonce=self._optional(nonce, "nonce", "unwrap_key"),
            tag=self._optional(tag, "tag", "unwrap_key"),
            associated_data=self._optional(associated_data, "associated_data", "unwrap_key"),
        )
        return await provider._call(UNWRAP_KEY, provider.driver.unwrap_key, request)

    async def sign(self, digest: bytes, *, algorithm: str, key_name: str) -> bytes:
        """Sign a digest made with the algorithm's hash; for EdDSA pass the whole message. ECDSA answers in DER."""
        provider = self._provider
        provider._need(Capability.SIGNATURES, "sign")
        provider._offered("sign", algorithm)
        request = SignRequest(
            digest=provider._bytes(digest, "digest", "sign"), algorithm=algorithm, key_name=self._name(key_name, "sign")
        )
        return await provider._call(SIGN, provider.driver.sign, request)

    async def verify(self, digest: bytes, signature: bytes, *, algorithm: str, key_name: str) -> bool:
        """Tell whether a signature is right: False for a wrong one, an error only for misuse."""
        provider = self._provider
        provider._need(Capability.SIGNATURES, "verify")
        provider._offered("sign", algorithm)
        request = VerifyRequest(
            digest=provider._bytes(digest, "digest", "verify"),
            signature=provider._bytes(signature, "signature", "verify"),
            algorithm=algorithm,
            key_name=self._name(key_name, "verify"),
        )
        return await provider._call(VERIFY, provider.driver.verify, request)

    def _name(self, key_name: str, operation: str) -> str:
        self._provider._check_names(operation, key_name=key_name)
        return key_name

    def _optional(self, data: bytes | None, what: str, operation: str) -> bytes | None:
        return None if data is None else self._provider._bytes(data, what, operation)

    def _nonce(self, given: bytes | None, algorithm: str, operation: str) -> bytes | None:
        if given is None and not self._provider.driver.chooses_nonces:
            return _nonce(algorithm)
        return self._optional(given, "nonce", operation)

    def _with_nonce(self, answer: Ciphertext, sent: bytes | None) -> Ciphertext:
        nonce = answer.nonce if self._provider.driver.chooses_nonces else sent
        return Ciphertext(data=answer.data, tag=answer.tag, nonce=nonce)


def _nonce(algorithm: str) -> bytes | None:
    """Return a random nonce of the algorithm's length, None where it takes none."""
    info = ALGORITHMS.get(algorithm)
    return os.urandom(info.nonce_size) if info is not None and info.nonce_size else None
