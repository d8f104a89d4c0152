"""Encrypted documents: a stream of 1 GiB against a plain loop of the cipher and against Tink, and many small ones.

A stream is measured in eighths. After each, its segments go once more through the cipher in a plain loop, so that
both work on the same bytes, from the same memory, at the same time.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import tink  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from tests.benchmarks.rows import PAIRS, Row
from tink import streaming_aead

from lapel.crypto import CryptoProvider
from lapel.driver import DriverContext
from lapel_contrib.jwks.crypto import JwksCrypto
from lapel_contrib.jwks.settings import JwksSettings
from lapel_contrib.local.crypto import LocalCrypto
from lapel_contrib.local.settings import LocalCryptoSettings

KIB, MIB = 1_024, 1_048_576
SEGMENT = 64 * KIB
SEALED = SEGMENT + 16
EIGHTH = 128 * MIB
SIZES = (64 * KIB, 256 * KIB, MIB)
TARGETS = {"AES-GCM": 0.5, "CHACHA20-POLY1305": 0.75}
CIPHERS: dict[str, type[AESGCM] | type[ChaCha20Poly1305]] = {"AES-GCM": AESGCM, "CHACHA20-POLY1305": ChaCha20Poly1305}
TINK_BYTES = 64 * MIB
SMALL = 1_000
"""Documents of 1 KiB in one run."""
GROWTH = """
import asyncio, base64, json
import psutil
from lapel.crypto import CryptoProvider
from lapel.driver import DriverContext
from lapel_contrib.jwks.crypto import JwksCrypto
from lapel_contrib.jwks.settings import JwksSettings

async def main():
    keys = {"keys": [{"kty": "oct", "kid": "key", "k": base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")}]}
    driver = JwksCrypto(JwksSettings.parse({"jwks": json.dumps(keys)}), DriverContext(component="bench"))
    async with CryptoProvider(driver) as provider:
        process = psutil.Process()
        async def through(mebibytes):
            chunk = bytes(1_048_576)
            sealed = provider.encrypt_stream((chunk for _ in range(mebibytes)), key_name="key")
            peak = count = 0
            async for _ in provider.decrypt_stream(sealed):
                count += 1
                if count % 64 == 0:
                    peak = max(peak, process.memory_info().rss)
            return peak
        before = await through(8)
        print((await through(1024) - before) / 1_048_576)

asyncio.run(main())
"""


def _provider(material: bytes) -> CryptoProvider:
    text = base64.urlsafe_b64encode(material).decode().rstrip("=")
    keys = json.dumps({"keys": [{"kty": "oct", "kid": "key", "k": text}]})
    return CryptoProvider(JwksCrypto(JwksSettings.parse({"jwks": keys}), DriverContext(component="bench")))


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _plain_loop(run: Callable[..., bytes], nonce: Callable[[int], bytes], segments: list[bytes], first: int) -> float:
    """Return the seconds for these segments, the first of which has the number `first`."""
    started = time.thread_time()
    for number, segment in enumerate(segments, first):
        run(nonce(number), segment, None)
    return time.thread_time() - started


class _Pairs:
    """A source of chunks that measures what is done with them, an eighth at a time."""

    def __init__(self) -> None:
        self.pairs: list[tuple[float, float]] = []

    async def source(self, eighths: Iterable[list[bytes]], baseline: Callable[[int], float]) -> AsyncIterator[bytes]:
        for index, chunks in enumerate(eighths):
            started = time.thread_time()
            for chunk in chunks:
                yield chunk
            ours = time.thread_time() - started
            self.pairs.append((ours, baseline(index)))


def _row(name: str, pairs: list[tuple[float, float]], target: float) -> Row:
    ratio = median(base / mine for mine, base in pairs)
    return {
        "name": name,
        "unit": "MiB/s",
        "ours": median(EIGHTH / MIB / mine for mine, _ in pairs),
        "baseline": median(EIGHTH / MIB / base for _, base in pairs),
        "ratio": ratio,
        "target": f"ratio >= {target:g}",
        "ok": ratio >= target,
    }


async def _encrypting(provider: CryptoProvider, cipher: str, size: int, plain: bytes) -> Row:
    run, segments, measured = CIPHERS[cipher](os.urandom(32)).encrypt, _cut(plain, SEGMENT), _Pairs()

    def baseline(index: int) -> float:
        return _plain_loop(run, lambda number: number.to_bytes(12, "big"), segments, index * len(segments))

    chunks = _cut(plain, size)
    source = measured.source((chunks for _ in range(8)), baseline)
    async for _ in provider.encrypt_stream(source, key_name="key", cipher=cipher):
        pass
    return _row(f"encrypt 1 GiB, {cipher}, chunks of {size // KIB} KiB", measured.pairs, TARGETS[cipher])


async def _decrypting(provider: CryptoProvider, cipher: str, size: int, plain: bytes) -> Row:
    document = b"".join(
        [piece async for piece in provider.encrypt_stream(_cut(plain, MIB), key_name="key", cipher=cipher)]
    )
    start = len(document) - EIGHTH // SEGMENT * SEALED
    run, measured = CIPHERS[cipher](os.urandom(32)), _Pairs()
    # The key of the document is its own secret, so the same plaintext is sealed with one that is known.
    sealed = [
        run.encrypt(number.to_bytes(12, "big"), segment, None) for number, segment in enumerate(_cut(plain, SEGMENT))
    ]

    def baseline(index: int) -> float:
        return _plain_loop(run.decrypt, lambda number: number.to_bytes(12, "big"), sealed, 0)

    chunks = [document[:start], *_cut(document[start:], size)]
    # Eight documents of an eighth: the ciphertext of 1 GiB would not be in memory on every machine.
    for _ in range(8):
        async for _ in provider.decrypt_stream(measured.source([chunks], baseline)):
            pass
    return _row(f"decrypt 8 x 128 MiB, {cipher}, chunks of {size // KIB} KiB", measured.pairs, TARGETS[cipher])


class _Sink(io.RawIOBase):
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        return len(data)

    def close(self) -> None:
        """Keep what was written."""


async def _against_tink(provider: CryptoProvider, plain: bytes) -> list[Row]:
    streaming_aead.register()
    handle = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    theirs = handle.primitive(streaming_aead.StreamingAead)
    chunks = _cut(plain[:TINK_BYTES], MIB)

    def tink_encrypts() -> bytes:
        sink = _Sink()
        with theirs.new_encrypting_stream(sink, b"") as stream:
            for chunk in chunks:
                stream.write(chunk)
        return b"".join(sink.pieces)

    def tink_decrypts(document: bytes) -> None:
        with theirs.new_decrypting_stream(io.BytesIO(document), b"") as stream:
            while stream.read(MIB):
                pass

    async def drain(stream: AsyncIterator[bytes]) -> None:
        async for _ in stream:
            pass

    document = b"".join([piece async for piece in provider.encrypt_stream(chunks, key_name="key")])
    cut, foreign = _cut(document, MIB), tink_encrypts()
    rows: list[Row] = []
    jobs: dict[str, tuple[Callable[[], AsyncIterator[bytes]], Callable[[], object]]] = {
        "encrypt": (lambda: provider.encrypt_stream(chunks, key_name="key"), tink_encrypts),
        "decrypt": (lambda: provider.decrypt_stream(cut), lambda: tink_decrypts(foreign)),
    }
    for name, (ours, base) in jobs.items():
        pairs = []
        for _ in range(PAIRS):
            started = time.process_time()
            await drain(ours())
            middle = time.process_time()
            base()
            pairs.append((middle - started, time.process_time() - middle))
        ratio = median(tinks / mine for mine, tinks in pairs)
        rows.append(
            {
                "name": f"{name} {TINK_BYTES // MIB} MiB, AES-GCM, chunks of 1024 KiB, against Tink's streaming AEAD",
                "unit": "MiB/s",
                "ours": median(TINK_BYTES / MIB / mine for mine, _ in pairs),
                "baseline": median(TINK_BYTES / MIB / tinks for _, tinks in pairs),
                "ratio": ratio,
                "target": "ratio > 1",
                "ok": ratio > 1,
            }
        )
    return rows


async def _small(name: str, provider: CryptoProvider, *, tasks: int) -> Row:
    text = os.urandom(KIB)

    async def some(count: int) -> None:
        for _ in range(count):
            await provider.encrypt(text, key_name="key")

    async def run() -> float:
        # The processor time of all threads together is what one core needs.
        started = time.process_time()
        await asyncio.gather(*(some(SMALL // tasks) for _ in range(tasks)))
        return SMALL / (time.process_time() - started)

    await some(100)
    rate = median([await run() for _ in range(PAIRS)])
    return {
        "name": f"encrypt 1 KiB with A256KW, {name}, {tasks} at a time",
        "unit": "documents/s",
        "ours": rate,
        "target": ">= 5000 on one core",
        "ok": rate >= 5_000,
    }


def _growth() -> Row:
    done = subprocess.run([sys.executable, "-c", GROWTH], stdout=subprocess.PIPE, text=True, check=True)
    growth = float(done.stdout)
    return {
        "name": "growth of memory while 1 GiB is encrypted and decrypted",
        "unit": "MiB",
        "ours": growth,
        "target": "< 16",
        "ok": growth < 16,
    }


@contextmanager
def _one_core() -> Iterator[None]:
    """Run the block on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)


async def run() -> list[Row]:
    """Return the rows of the streams, the comparison with Tink, the memory, and the small documents."""
    plain = os.urandom(EIGHTH)
    async with _provider(os.urandom(32)) as provider:
        rows = [
            await measure(provider, cipher, size, plain)
            for measure in (_encrypting, _decrypting)
            for cipher in CIPHERS
            for size in SIZES
        ]
        rows += await _against_tink(provider, plain)
    rows.append(await asyncio.to_thread(_growth))
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "key")
        file.touch(mode=0o600)
        file.write_text(base64.b64encode(os.urandom(32)).decode())
        await asyncio.sleep(0.2)  # A file that was written just now is read again at every use.
        folder = LocalCrypto(LocalCryptoSettings(path=Path(name)), DriverContext(component="bench"))
        with _one_core():
            for title, small in (
                ("key in a folder", CryptoProvider(folder)),
                ("key in a set", _provider(os.urandom(32))),
            ):
                async with small:
                    rows += [await _small(title, small, tasks=1), await _small(title, small, tasks=20)]
    return rows


if __name__ == "__main__":
    for row in asyncio.run(run()):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
