"""The header of a `dapr.io/enc/v1` document: three lines that say how to unlock the rest.

```
dapr.io/enc/v1 LF
<manifest, JSON> LF
<HMAC-SHA-256 of the two lines above, base64> LF
```

The whole header has at most 64 KiB. The code is computed over the bytes as they were read, never over JSON that was
written again, so a manifest of another writer (other order, further fields) is fine.
"""

from __future__ import annotations

import hmac
import logging
from base64 import b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NoReturn

import msgspec

from lapel.errors import DecryptionError, InvalidArgumentError

__all__ = [
    "CIPHERS",
    "KEY_WRAP_ALGORITHMS",
    "MAX_HEADER",
    "NONCE_PREFIX_LENGTH",
    "REFUSAL",
    "SCHEME",
    "Header",
    "HeaderReader",
    "encode",
]

SCHEME: Final = b"dapr.io/enc/v1"
"""The first line of every document."""

MAX_HEADER: Final = 65_536
"""Bytes that a header may have, its three line feeds included."""

NONCE_PREFIX_LENGTH: Final = 7
"""Bytes of the random prefix that all nonces of one document share."""

KEY_WRAP_ALGORITHMS: Final[Mapping[str, int]] = MappingProxyType(
    {"A256KW": 1, "A128CBC-NOPAD": 2, "A192CBC-NOPAD": 3, "A256CBC-NOPAD": 4, "RSA-OAEP-256": 5}
)
"""The algorithms that may wrap a file key, with their number in the manifest."""

CIPHERS: Final[Mapping[str, int]] = MappingProxyType({"AES-GCM": 1, "CHACHA20-POLY1305": 2})
"""The ciphers of the payload, with their number in the manifest."""

REFUSAL: Final = (
    "the document cannot be decrypted: it is no dapr.io/enc/v1 document, it was changed or cut, or this is not its key"
)
"""The text of every `DecryptionError` about a document, whatever the cause."""

_log = logging.getLogger(__name__)

_FIRST_LINE: Final = SCHEME + b"\n"
_LINES: Final = ("scheme name", "manifest", "message authentication code")
_ALGORITHM_NAMES: Final = {number: name for name, number in KEY_WRAP_ALGORITHMS.items()}
_CIPHER_NUMBERS: Final = frozenset(CIPHERS.values())


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a manifest says, in the order in which it is written.

    `key_name` is None when the document does not name its key. `key_wrap` and `cipher` are the numbers of
    `KEY_WRAP_ALGORITHMS` and `CIPHERS`.
    """

    key_name: str | None = msgspec.field(default=None, name="k")
    key_wrap: int = msgspec.field(name="kw")
    wrapped_key: bytes = msgspec.field(name="wfk")
    cipher: int = msgspec.field(name="cph")
    nonce_prefix: bytes = msgspec.field(name="np")

    @property
    def algorithm(self) -> str:
        """Name the algorithm that wrapped the file key."""
        return _ALGORITHM_NAMES[self.key_wrap]


_DECODER = msgspec.json.Decoder(Header)


def encode(header: Header, mac_key: bytes) -> bytes:
    """Return the three lines of a document's header, the last one made with `mac_key`.

    Raises `InvalidArgumentError` when they would have more than 64 KiB or the key name is not valid Unicode.
    """
    try:
        signed = _FIRST_LINE + msgspec.json.encode(header) + b"\n"
    except UnicodeEncodeError:
        raise InvalidArgumentError("the key name holds characters that UTF-8 cannot express") from None
    lines = signed + _mac_line(mac_key, signed) + b"\n"
    if len(lines) > MAX_HEADER:
        raise InvalidArgumentError(
            f"the document's header would have {len(lines)} bytes, at most {MAX_HEADER} are allowed:"
            " use a shorter key name"
        )
    return lines


class HeaderReader:
    """Reads a header from chunks of any size.

    Feed chunks in order until `feed` returns an offset; then `header` and `verify` may be used. It keeps at most
    `MAX_HEADER` bytes. What is wrong with a header goes to the log, at debug level; all errors have one text.
    """

    __slots__ = ("_buffer", "_ends", "_header", "_scanned")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ends: list[int] = []
        self._header: Header | None = None
        self._scanned = 0

    def feed(self, chunk: bytes | memoryview) -> int | None:
        """Take the next chunk; return where the payload starts in it, or None while the header is incomplete.

        Raises `DecryptionError` as soon as the bytes cannot be such a document.
        """
        before = len(self._buffer)
        self._buffer += chunk[: MAX_HEADER - before]
        start = self._buffer[: len(_FIRST_LINE)]
        if not _FIRST_LINE.startswith(start):
            _refuse("its first line is not that scheme")
        while len(self._ends) < len(_LINES):
            end = self._buffer.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(self._buffer)
                if self._scanned == MAX_HEADER:
                    _refuse(f"its header has more than {MAX_HEADER} bytes")
                return None
            if end == self._scanned and end == (self._ends[-1] + 1 if self._ends else 0):
                _refuse(f"its {_LINES[len(self._ends)]} is empty")
            self._ends.append(end)
            self._scanned = end + 1
        self._header = _parse(bytes(self._buffer[self._ends[0] + 1 : self._ends[1]]))
        return self._scanned - before

    def end(self) -> NoReturn:
        """Refuse a document that ends within its header. Raises `DecryptionError`."""
        _refuse(f"its {_LINES[len(self._ends)]} is missing")

    @property
    def header(self) -> Header:
        """Return the manifest, which is not authenticated before `verify` has returned True."""
        if self._header is None:
            raise RuntimeError("the header is not complete yet")
        return self._header

    def verify(self, mac_key: bytes) -> bool:
        """Tell, in constant time, whether the header was made with `mac_key`.

        The base64 text is compared, not what it decodes to: several texts decode to the same code.
        """
        signed_end, mac_end = self._ends[1] + 1, self._ends[2]
        expected = _mac_line(mac_key, bytes(self._buffer[:signed_end]))
        return hmac.compare_digest(expected, bytes(self._buffer[signed_end:mac_end]))


def _mac_line(mac_key: bytes, signed: bytes) -> bytes:
    return b64encode(hmac.digest(mac_key, signed, "sha256"))


def _parse(manifest: bytes) -> Header:
    header: Header | None
    try:
        header = _DECODER.decode(manifest)
    except (ValueError, RecursionError):
        header = None
    if header is None:
        _refuse("its manifest is not valid")
    if header.key_wrap not in _ALGORITHM_NAMES:
        _refuse("its manifest names an unknown key-wrap algorithm")
    if header.cipher not in _CIPHER_NUMBERS:
        _refuse("its manifest names an unknown cipher")
    if not header.wrapped_key:
        _refuse("its manifest has no wrapped file key")
    if len(header.nonce_prefix) != NONCE_PREFIX_LENGTH:
        _refuse(f"its nonce prefix has not {NONCE_PREFIX_LENGTH} bytes")
    return header


def _refuse(reason: str) -> NoReturn:
    _log.debug("not a %s document: %s", SCHEME.decode(), reason)
    raise DecryptionError(REFUSAL)
