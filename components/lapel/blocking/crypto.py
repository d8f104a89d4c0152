"""Cryptography without `await`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping

from .. import crypto
from .facade import Component, Facade, blocking
from .streams import Feed, Stream

__all__ = ["CryptoProvider", "SubtleCrypto"]


class SubtleCrypto(Facade[crypto.SubtleCrypto]):
    """Single operations on a provider's keys, as `lapel.crypto.SubtleCrypto` without `await`."""

    get_key = blocking(crypto.SubtleCrypto.get_key)
    encrypt = blocking(crypto.SubtleCrypto.encrypt)
    decrypt = blocking(crypto.SubtleCrypto.decrypt)
    wrap_key = blocking(crypto.SubtleCrypto.wrap_key)
    unwrap_key = blocking(crypto.SubtleCrypto.unwrap_key)
    sign = blocking(crypto.SubtleCrypto.sign)
    verify = blocking(crypto.SubtleCrypto.verify)


class CryptoProvider(Component[crypto.CryptoProvider]):
    """`lapel.CryptoProvider` without `await`."""

    encrypt = blocking(crypto.CryptoProvider.encrypt)
    decrypt = blocking(crypto.CryptoProvider.decrypt)

    @property
    def subtle(self) -> SubtleCrypto:
        """Single operations on the provider's keys."""
        return SubtleCrypto(self._inner.subtle, self._runner)

    @property
    def algorithms(self) -> Mapping[str, tuple[str, ...]]:
        """The algorithm names offered, by `encrypt`, `wrap` and `sign`."""
        return self._inner.algorithms

    def encrypt_stream(
        self,
        chunks: AsyncIterable[bytes] | Iterable[bytes],
        *,
        key_name: str,
        algorithm: str = "A256KW",
        cipher: str = "AES-GCM",
        omit_key_name: bool = False,
        decryption_key_name: str | None = None,
    ) -> Stream:
        """Encrypt a document of any length in constant memory; arguments as for `encrypt`.

        Chunks may be of any size and are made in the thread that reads the result. A generator is closed with it.
        """
        return self._stream(
            chunks,
            lambda source: self._inner.encrypt_stream(
                source,
                key_name=key_name,
                algorithm=algorithm,
                cipher=cipher,
                omit_key_name=omit_key_name,
                decryption_key_name=decryption_key_name,
            ),
        )

    def decrypt_stream(self, chunks: AsyncIterable[bytes] | Iterable[bytes], *, key_name: str | None = None) -> Stream:
        """Decrypt a document of any length in constant memory.

        Every piece that comes out is authentic, but only the end of the stream tells that the document is whole: act
        on it then.
        """
        return self._stream(chunks, lambda source: self._inner.decrypt_stream(source, key_name=key_name))

    def _stream(
        self,
        chunks: AsyncIterable[bytes] | Iterable[bytes],
        begin: Callable[[AsyncIterable[bytes] | Iterable[bytes]], AsyncIterator[bytes]],
    ) -> Stream:
        if isinstance(chunks, AsyncIterable | str | bytes | bytearray | memoryview):
            # Single values too are the provider's business: it refuses them.
            return Stream(self._runner.call(lambda: begin(chunks)), self._runner)
        feed = Feed(chunks)
        return Stream(self._runner.call(lambda: begin(feed)), self._runner, feed)
