"""Encrypted documents in Dapr's format `dapr.io/enc/v1`, as streams in constant memory.

A document is a header (see `lapel.crypto.header`) and the plaintext in segments of 64 KiB, each sealed with an
AEAD cipher under a key that only this document has. The component's key wraps that file key and nothing else.

* Segment n has the nonce prefix (7) + n (uint32, big-endian) + last flag (1), so a segment that was moved, dropped
  or repeated does not open, and neither does a document that was cut or continued.
* The last segment carries the flag even when it is full. Both directions therefore hold one segment back until
  they know whether more follows.
* An empty message has no segment. Known limit of the format: a document cut right after its header decrypts as an
  empty message.

The work is done inline, without threads; the event loop gets its turn at least once per MiB. This module needs the
extra `crypto`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lapel.errors import (
    CryptoError,
    DecryptionError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    UnsupportedAlgorithmError,
)

from .header import CIPHERS, KEY_WRAP_ALGORITHMS, NONCE_PREFIX_LENGTH, REFUSAL, Header, HeaderReader, encode
from .segments import SEGMENT_SIZE, Segments
from .types import Bytes

__all__ = [
    "ALGORITHM_ALIASES",
    "Unwrap",
    "Wrap",
    "decrypt_bytes",
    "decrypt_stream",
    "encrypt_bytes",
    "encrypt_stream",
    "resolve_algorithm",
]

Wrap = Callable[[bytes], Awaitable[bytes]]
"""Wraps the file key (32 bytes) with the component's key."""

Unwrap = Callable[[bytes, str, str], Awaitable[bytes]]
"""Gives the file key back from the wrapped key, the algorithm's name and the key's name."""

ALGORITHM_ALIASES: Final = {"AES": "A256KW", "RSA": "RSA-OAEP-256"}
"""Short names of key-wrap algorithms."""

_FILE_KEY_LENGTH: Final = 32
_TURN: Final = 1_048_576
_CHUNK_COST: Final = 1_024  # Taking a chunk costs about as much as encrypting this many bytes.
_BYTES: Final = (bytes, bytearray, memoryview)

_log = logging.getLogger(__name__)


async def encrypt_stream(
    chunks: AsyncIterable[Bytes] | Iterable[Bytes],
    *,
    wrap: Wrap,
    key_name: str,
    algorithm: str,
    cipher: str = "AES-GCM",
    omit_key_name: bool = False,
    decryption_key_name: str | None = None,
) -> AsyncGenerator[bytes, None]:
    """Encrypt a stream of plaintext into one document.

    `algorithm` is one of `KEY_WRAP_ALGORITHMS` or an alias of it, `cipher` one of `CIPHERS` in any case. The document
    names the key to decrypt with, `decryption_key_name` or else `key_name`, unless `omit_key_name` is set. Chunks may
    have any size, empty ones included; the pieces that come out have no promised size. A chunk may be changed when the
    next one is asked for.

    Calls `wrap` once, before the first chunk is read; what it raises is passed on. Closing this generator closes
    `chunks` if that is a generator. Any number of streams may run side by side. Raises `InvalidArgumentError` for a
    missing key name or a chunk that is not bytes, `UnsupportedAlgorithmError`, and `InvalidLengthError` beyond
    `MAX_SEGMENTS`: the pieces that came out before an error are not a document.
    """
    async with _source(chunks) as source:
        header, payload = await _begin(wrap, key_name, algorithm, cipher, omit_key_name, decryption_key_name)
        yield header
        turns = _Turns()
        async for chunk in source:
            for piece in payload.push(_flat(chunk)):
                yield piece
                if turns.due(SEGMENT_SIZE):
                    await asyncio.sleep(0)
            if turns.due(_CHUNK_COST):
                await asyncio.sleep(0)
        for piece in payload.finish():
            yield piece


async def decrypt_stream(
    chunks: AsyncIterable[Bytes] | Iterable[Bytes],
    *,
    unwrap: Unwrap,
    key_name: str | None = None,
) -> AsyncGenerator[bytes, None]:
    """Decrypt one document, handing out the plaintext of a segment only after that segment is authenticated.

    A document may turn out to be changed or cut after some plaintext came out: act on it only when the stream has
    ended without an error. `key_name` wins over the name in the document; None takes the document's. Chunks may have
    any size.

    Calls `unwrap` once, as soon as the header is complete. A key that does not open the wrapped one (`CryptoError`, or
    a result of the wrong length) is not told apart from a changed document, nor is a name in the document that no key
    has (`NotFoundError`) or can have (`InvalidArgumentError`). Every other error of `unwrap` is passed on, and so are
    these two about `key_name`. Closing this generator closes `chunks` if that is a generator. Raises `DecryptionError`,
    always with the same text, when the document was changed or cut, the key is another one, or this is no such
    document; `InvalidArgumentError` when no key is named, or a chunk is not bytes.
    """
    async with _source(chunks) as source:
        reader = HeaderReader()
        payload: Segments | None = None
        turns = _Turns()
        async for data in source:
            chunk = _flat(data)
            start: int | None = 0
            if payload is None:
                start = reader.feed(chunk)
                if start is not None:
                    payload = await _unlock(reader, unwrap, key_name)
            if payload is not None and start is not None:
                for piece in payload.push(chunk, start):
                    yield piece
                    if turns.due(SEGMENT_SIZE):
                        await asyncio.sleep(0)
            if turns.due(_CHUNK_COST):
                await asyncio.sleep(0)
        if payload is None:
            reader.end()
        for piece in payload.finish():
            yield piece


async def encrypt_bytes(
    data: Bytes,
    *,
    wrap: Wrap,
    key_name: str,
    algorithm: str,
    cipher: str = "AES-GCM",
    omit_key_name: bool = False,
    decryption_key_name: str | None = None,
) -> bytes:
    """Encrypt one message that is in memory, which must not change meanwhile.

    Arguments, promises and errors are those of `encrypt_stream`.
    """
    chunk = _flat(data)
    header, payload = await _begin(wrap, key_name, algorithm, cipher, omit_key_name, decryption_key_name)
    return await _collect([header], payload, chunk, 0)


async def decrypt_bytes(data: Bytes, *, unwrap: Unwrap, key_name: str | None = None) -> bytes:
    """Decrypt one document that is in memory and does not change meanwhile, all or nothing.

    Arguments and errors are those of `decrypt_stream`.
    """
    chunk = _flat(data)
    reader = HeaderReader()
    start = reader.feed(chunk)
    if start is None:
        reader.end()
    return await _collect([], await _unlock(reader, unwrap, key_name), chunk, start)


def resolve_algorithm(name: str) -> str:
    """Return the key-wrap algorithm that a name or an alias stands for.

    Raises `UnsupportedAlgorithmError` for a name that documents cannot use.
    """
    algorithm = ALGORITHM_ALIASES.get(name, name)
    if algorithm not in KEY_WRAP_ALGORITHMS:
        allowed = ", ".join((*ALGORITHM_ALIASES, *KEY_WRAP_ALGORITHMS))
        raise UnsupportedAlgorithmError(f"key-wrap algorithm {name!r} is not one that documents allow: use {allowed}")
    return algorithm


class _Turns:
    """Tells when so much work was done in one go that the event loop should have a turn."""

    __slots__ = ("_work",)

    def __init__(self) -> None:
        self._work = 0

    def due(self, cost: int) -> bool:
        self._work += cost
        if self._work < _TURN:
            return False
        self._work = 0
        return True


async def _begin(
    wrap: Wrap,
    key_name: str,
    algorithm: str,
    cipher: str,
    omit_key_name: bool,
    decryption_key_name: str | None,
) -> tuple[bytes, Segments]:
    if not key_name:
        raise InvalidArgumentError("encrypting needs the name of a key")
    key_wrap = KEY_WRAP_ALGORITHMS[resolve_algorithm(algorithm)]
    cipher_number = CIPHERS.get(cipher.upper())
    if cipher_number is None:
        raise UnsupportedAlgorithmError(f"cipher {cipher!r} is not one that documents allow: use {', '.join(CIPHERS)}")
    file_key = os.urandom(_FILE_KEY_LENGTH)
    wrapped_key = bytes(await wrap(file_key))
    if not wrapped_key:
        raise OperationFailedError(f"wrapping with key {key_name!r} gave no bytes")
    header = Header(
        key_name=None if omit_key_name else decryption_key_name or key_name,
        key_wrap=key_wrap,
        wrapped_key=wrapped_key,
        cipher=cipher_number,
        nonce_prefix=os.urandom(NONCE_PREFIX_LENGTH),
    )
    lines = encode(header, _derive(file_key, b"", b"header"))
    return lines, Segments(header, _derive(file_key, header.nonce_prefix, b"payload"), opening=False)


async def _unlock(reader: HeaderReader, unwrap: Unwrap, key_name: str | None) -> Segments:
    header = reader.header
    file_key = await _file_key(header, unwrap, key_name)
    # Without a key the code is computed all the same, so that time does not tell which part was refused. The answer
    # must not count: whoever knows the stand-in could make a code that fits.
    unlocked = len(file_key) == _FILE_KEY_LENGTH
    mac_key = _derive(file_key if unlocked else bytes(_FILE_KEY_LENGTH), b"", b"header")
    if not reader.verify(mac_key) or not unlocked:
        raise DecryptionError(REFUSAL)
    return Segments(header, _derive(file_key, header.nonce_prefix, b"payload"), opening=True)


async def _file_key(header: Header, unwrap: Unwrap, key_name: str | None) -> bytes:
    """Return the document's own key, or none where the key named does not give it."""
    name = key_name or header.key_name
    if not name:
        raise InvalidArgumentError("the document does not name its key: pass the name of the key to decrypt with")
    try:
        return await unwrap(header.wrapped_key, header.algorithm, name)
    except DecryptionError:
        pass
    except CryptoError as exc:
        # Algorithm and wrapped key are the document's word, so this too may be a changed document or a wrong key.
        _log.warning("the key %r does not open the document: %s", name, exc.message)
    except (InvalidArgumentError, NotFoundError):
        # Whoever makes documents must not find out which names keys have.
        if key_name:
            raise
        _log.warning("the document names %.100r, which is no key that can be used", name)
    return b""


async def _collect(pieces: list[bytes], payload: Segments, chunk: bytes | memoryview, start: int) -> bytes:
    turns = _Turns()
    size = len(chunk)
    for piece in payload.push(chunk, start):
        pieces.append(piece)
        if turns.due(SEGMENT_SIZE):
            await asyncio.sleep(0)
    pieces.extend(payload.finish())
    if size <= _TURN:
        return b"".join(pieces)
    return await asyncio.to_thread(_joined, pieces)


def _joined(pieces: list[bytes]) -> bytes:
    """Join the pieces and free them, in a thread and without holding up others."""
    # Python lets go of its lock while it joins as much as this; to free it needs the lock, so that is done in steps.
    whole = b"".join(pieces)
    while pieces:
        del pieces[-16:]
        time.sleep(0)
    return whole


@asynccontextmanager
async def _source(chunks: AsyncIterable[Bytes] | Iterable[Bytes]) -> AsyncIterator[AsyncIterator[Bytes]]:
    if isinstance(chunks, (str, *_BYTES)):
        raise InvalidArgumentError("expected a stream of chunks, got a single value: use the call for bytes")
    if isinstance(chunks, AsyncIterable):
        iterator = aiter(chunks)
        try:
            yield iterator
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
    else:
        plain = iter(chunks)
        try:
            yield _asynchronous(plain)
        finally:
            if isinstance(plain, Generator):
                plain.close()


async def _asynchronous(chunks: Iterable[Bytes]) -> AsyncIterator[Bytes]:
    for chunk in chunks:
        yield chunk


def _flat(chunk: Bytes) -> bytes | memoryview:
    """Return the chunk as bytes in a row, without a copy if they are."""
    if type(chunk) is bytes:
        return chunk
    if not isinstance(chunk, _BYTES):
        raise InvalidArgumentError(f"expected bytes, got {type(chunk).__name__}: encode text as UTF-8 first")
    view = memoryview(chunk)
    return view.cast("B") if view.c_contiguous else view.tobytes()


def _derive(file_key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(file_key)
