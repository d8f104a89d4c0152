"""The payload of a `dapr.io/enc/v1` document: segments of 64 KiB, each sealed with its own nonce.

The cipher takes a few microseconds for a segment, so what counts here is that bytes are copied only where a segment
lies across two chunks.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from lapel.errors import DecryptionError, InvalidLengthError

from .header import REFUSAL, Header

__all__ = ["MAX_SEGMENTS", "SEGMENT_SIZE", "TAG_SIZE", "Segments"]

SEGMENT_SIZE: Final = 65_536
"""Plaintext bytes of every segment but the last, which may have fewer."""

TAG_SIZE: Final = 16
"""Bytes that a sealed segment is longer than its plaintext."""

MAX_SEGMENTS = 2**32
"""As many segments as the nonce can number."""

_KEEP: Final = 4 * SEGMENT_SIZE
_AEADS: Final[Mapping[int, type[AESGCM] | type[ChaCha20Poly1305]]] = {1: AESGCM, 2: ChaCha20Poly1305}


class Segments:
    """Cuts bytes into segments, holds the last one back, and seals or opens each with its nonce.

    `key` is the payload key. For one document, in one direction. What was pushed and is not worked off is kept: at most
    one segment, with the chunks of up to 256 KiB that it lies in.
    """

    __slots__ = ("_held", "_held_size", "_number", "_opening", "_prefix", "_run", "_size")

    def __init__(self, header: Header, key: bytes, *, opening: bool) -> None:
        aead = _AEADS[header.cipher](key)
        self._opening = opening
        self._run = aead.decrypt if opening else aead.encrypt
        self._size = SEGMENT_SIZE + TAG_SIZE if opening else SEGMENT_SIZE
        self._prefix = header.nonce_prefix
        self._number = 0
        self._held: list[bytes | memoryview] = []
        self._held_size = 0

    def push(self, chunk: bytes | memoryview, start: int = 0) -> Generator[bytes, None, None]:
        """Give the finished pieces of all segments that are known not to be the last.

        A memoryview is of bytes, contiguous, and may change as soon as the last piece was taken. Raises
        `DecryptionError`, or `InvalidLengthError` beyond `MAX_SEGMENTS`.
        """
        end = len(chunk)
        if start == end:
            return
        size = self._size
        view = memoryview(chunk)
        if self._held:
            missing = size - self._held_size
            if end - start <= missing:
                self._hold(chunk, view, start)
                return
            if missing:
                self._held.append(view[start : start + missing])
                start += missing
            yield self._next(self._take())
        while end - start > size:
            yield self._next(view[start : start + size])
            start += size
        self._hold(chunk, view, start)

    def finish(self) -> Generator[bytes, None, None]:
        """Give the piece of the last segment, or nothing when there was no input. Raises what `push` raises."""
        if self._held:
            yield self._next(self._take(), last=True)

    def _hold(self, chunk: bytes | memoryview, view: memoryview, start: int) -> None:
        self._held_size += len(view) - start
        if type(chunk) is not bytes or len(view) > _KEEP:
            # The owner may change it, or it is so large that it should go: the rest is copied.
            self._held.append(bytes(view[start:]))
        else:
            self._held.append(view[start:] if start else chunk)

    def _take(self) -> bytes | memoryview:
        held, self._held, self._held_size = self._held, [], 0
        return held[0] if len(held) == 1 else b"".join(held)

    def _next(self, segment: bytes | memoryview, *, last: bool = False) -> bytes:
        number = self._number
        if number >= MAX_SEGMENTS:
            if self._opening:
                raise DecryptionError(REFUSAL)
            raise InvalidLengthError(f"a document has at most {MAX_SEGMENTS} segments of {SEGMENT_SIZE} bytes")
        self._number = number + 1
        try:
            return self._run(self._prefix + number.to_bytes(4, "big") + (b"\x01" if last else b"\x00"), segment, None)
        except InvalidTag:
            raise DecryptionError(REFUSAL) from None
