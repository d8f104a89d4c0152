"""Documents written and read in the most direct way, from the description of the format alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from collections.abc import Iterator

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from lapel.crypto.scheme import encrypt_bytes

AEADS: dict[int, type[AESGCM] | type[ChaCha20Poly1305]] = {1: AESGCM, 2: ChaCha20Poly1305}
SEGMENT = 65_536
SEALED = SEGMENT + 16
LENGTHS = [0, 1, 15, 16, 17, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT - 1, 2 * SEGMENT, 2 * SEGMENT + 1, 200_000]
PLAIN = bytes(range(256)) * 1_024


async def wrap(file_key: bytes) -> bytes:
    return file_key


async def unwrap(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
    return wrapped


async def encrypted(data: bytes, **options: object) -> bytes:
    arguments: dict[str, object] = {"wrap": wrap, "key_name": "mykey", "algorithm": "A256KW"} | options
    return await encrypt_bytes(data, **arguments)  # type: ignore[arg-type]  # the options of each test


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def split(document: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    first, manifest, mac, payload = document.split(b"\n", 3)
    return first, manifest, mac, payload


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    extracted = hmac.digest(salt or bytes(32), key, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def written_by_hand(plain: bytes, file_key: bytes, prefix: bytes, manifest: bytes, cipher: int) -> bytes:
    """Write a document in the most direct way, from the description of the format alone."""
    header = b"dapr.io/enc/v1\n" + manifest + b"\n"
    mac = hmac.digest(hkdf(file_key, b"", b"header"), header, hashlib.sha256)
    aead = AEADS[cipher](hkdf(file_key, prefix, b"payload"))
    segments = list(cut(plain, SEGMENT))
    sealed = [
        aead.encrypt(struct.pack(">7sIB", prefix, number, number == len(segments) - 1), segment, None)
        for number, segment in enumerate(segments)
    ]
    return header + base64.b64encode(mac) + b"\n" + b"".join(sealed)


def read_by_hand(document: bytes) -> bytes:
    """Read a document in the most direct way; its wrapped key must be the file key."""
    first, manifest, mac, payload = split(document)
    fields = json.loads(manifest)
    file_key, prefix = base64.b64decode(fields["wfk"]), base64.b64decode(fields["np"])
    code = hmac.digest(hkdf(file_key, b"", b"header"), first + b"\n" + manifest + b"\n", hashlib.sha256)
    assert base64.b64encode(code) == mac
    aead = AEADS[fields["cph"]](hkdf(file_key, prefix, b"payload"))
    segments = list(cut(payload, SEALED))
    return b"".join(
        aead.decrypt(struct.pack(">7sIB", prefix, number, number == len(segments) - 1), segment, None)
        for number, segment in enumerate(segments)
    )
