"""What is no document, was changed or cut, or has another key is refused, always in the same words."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from tests.unit.documents_by_hand import (
    PLAIN,
    SEALED,
    SEGMENT,
    cut,
    encrypted,
    read_by_hand,
    split,
    unwrap,
    wrap,
    written_by_hand,
)

from lapel.crypto import scheme, segments
from lapel.crypto.header import MAX_HEADER, REFUSAL, Header, HeaderReader, encode
from lapel.crypto.scheme import decrypt_bytes, decrypt_stream, encrypt_stream
from lapel.errors import (
    DecryptionError,
    InvalidArgumentError,
    InvalidLengthError,
    InvalidNonceError,
    KeyTypeError,
    NotFoundError,
    NotOpenError,
    OperationFailedError,
    UnavailableError,
    UnsupportedAlgorithmError,
)


async def test_a_change_of_any_bit_is_refused() -> None:
    document = await encrypted(b"hello world")
    for at in range(len(document)):
        for bit in range(8):
            changed = bytearray(document)
            changed[at] ^= 1 << bit
            with pytest.raises(DecryptionError):
                await decrypt_bytes(changed, unwrap=unwrap, key_name="mykey")


async def test_a_document_cut_anywhere_is_refused_except_right_after_its_header() -> None:
    document = await encrypted(b"hello world")
    header = len(document) - len(split(document)[3])
    for length in range(len(document)):
        if length == header:
            assert await decrypt_bytes(document[:length], unwrap=unwrap) == b""
        else:
            with pytest.raises(DecryptionError):
                await decrypt_bytes(document[:length], unwrap=unwrap)


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "last segment gone": lambda s: s[:-1],
    "first segment gone": lambda s: s[1:],
    "middle segment gone": lambda s: [s[0], s[2]],
    "two swapped": lambda s: [s[1], s[0], s[2]],
    "one repeated": lambda s: [s[0], s[0], s[1], s[2]],
    "last repeated": lambda s: [*s, s[2]],
    "byte appended": lambda s: [*s, b"\0"],
    "line feed before": lambda s: [b"\n", *s],
    "cut within": lambda s: [s[0], s[1], s[2][:-1]],
    "cut within the tag": lambda s: [s[0], s[1][:10]],
}


@pytest.mark.parametrize("change", CHANGES)
async def test_segments_that_were_moved_or_cut_are_refused(change: str) -> None:
    document = await encrypted(PLAIN[: 3 * SEGMENT])
    payload = split(document)[3]
    header = document[: -len(payload)]
    with pytest.raises(DecryptionError):
        await decrypt_bytes(header + b"".join(CHANGES[change](list(cut(payload, SEALED)))), unwrap=unwrap)


async def test_segments_of_another_document_with_the_same_header_length_are_refused() -> None:
    one, other = await encrypted(b"one message"), await encrypted(b"two message")
    with pytest.raises(DecryptionError):
        await decrypt_bytes(one[:-27] + other[-27:], unwrap=unwrap)


async def test_every_cause_that_depends_on_key_or_ciphertext_has_one_text() -> None:
    document = await encrypted(PLAIN[: SEGMENT + 5])
    mac_at = document.index(b"\n", 20) + 5
    wrong_mac, wrong_segment = bytearray(document), bytearray(document)
    wrong_mac[mac_at] ^= 1
    wrong_segment[-1] ^= 1

    async def refused(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        raise DecryptionError("canary: the padding is wrong")

    async def wrong_length(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        raise InvalidLengthError("canary: 7 bytes")

    async def short(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        return wrapped[:31]

    async def zeros(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        return bytes(32)

    def raising(error: Exception) -> scheme.Unwrap:
        async def failing(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
            raise error

        return failing

    texts = set()
    cases: list[tuple[bytes, scheme.Unwrap]] = [(bytes(wrong_mac), unwrap), (bytes(wrong_segment), unwrap)]
    cases += [(document[:-1], unwrap), (document + b"x", unwrap)]
    cases += [(document, refused), (document, wrong_length), (document, short), (document, zeros)]
    cases += [(document, raising(KeyTypeError("canary: RSA"))), (document, raising(InvalidNonceError("canary")))]
    cases += [(document, raising(UnsupportedAlgorithmError("canary"))), (document[:40], unwrap), (b"text", unwrap)]
    # The name is the document's, so that the caller did nothing wrong.
    cases += [(document, raising(InvalidArgumentError("canary: no name of a key")))]
    cases += [(document, raising(NotFoundError("canary: no such key")))]
    for data, opener in cases:
        with pytest.raises(DecryptionError) as caught:
            await decrypt_bytes(data, unwrap=opener)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        texts.add(str(caught.value))
    assert len(texts) == 1
    assert "canary" not in texts.pop()


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("no such key"),
        InvalidArgumentError("no name of a key"),
        UnavailableError("down"),
        NotOpenError("not open"),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_that_are_not_about_the_document_come_through(error: BaseException) -> None:
    async def failing(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        raise error

    with pytest.raises(type(error)):
        await decrypt_bytes(await encrypted(b"x"), unwrap=failing, key_name="named by the caller")


async def test_a_document_for_which_nobody_has_the_key_cannot_be_forged() -> None:
    """Whatever stands in for a key that does not unwrap, a document made with it must not open."""

    async def refused(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        raise DecryptionError("no")

    async def short(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        return b"short"

    manifest = b'{"k":"mykey","kw":1,"wfk":"AAAA","cph":1,"np":"AAAAAAAAAA=="}'
    for stand_in in (bytes(32), b"\xff" * 32, b"short", b""):
        for text in (b"forged", b""):
            forged = written_by_hand(text, stand_in, bytes(7), manifest, 1)
            for opener in (refused, short):
                with pytest.raises(DecryptionError):
                    await decrypt_bytes(forged, unwrap=opener)


MANIFEST = b'{"k":"k","kw":1,"wfk":"AAAA","cph":1,"np":"AAAAAAAAAA=="}'
MAC = b"A" * 43 + b"="


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"dapr.io/enc/v1",
        b"dapr.io/enc/v1\n",
        b"dapr.io/enc/v1\n" + MANIFEST,
        b"dapr.io/enc/v1\n" + MANIFEST + b"\n" + MAC,
        b"dapr.io/enc/v2\n" + MANIFEST + b"\n" + MAC + b"\n",
        b"dapr.io/enc/v1\r\n" + MANIFEST + b"\n" + MAC + b"\n",
        b"\n" + MANIFEST + b"\n" + MAC + b"\n",
        b"dapr.io/enc/v1\n\n" + MAC + b"\n",
        b"dapr.io/enc/v1\n" + MANIFEST + b"\n\n",
        b"dapr.io/enc/v1\n[]\n" + MAC + b"\n",
        b"dapr.io/enc/v1\n" + b"[" * 60_000 + b"\n" + MAC + b"\n",
        b"dapr.io/enc/v1\n" + MANIFEST.replace(b'"kw":1', b'"kw":6') + b"\n" + MAC + b"\n",
        b"dapr.io/enc/v1\n" + MANIFEST.replace(b'"kw":1,', b"") + b"\n" + MAC + b"\n",
        b"dapr.io/enc/v1\n" + MANIFEST.replace(b'"cph":1', b'"cph":0') + b"\n" + MAC + b"\n",
        b"dapr.io/enc/v1\n" + MANIFEST.replace(b'"wfk":"AAAA"', b'"wfk":""') + b"\n" + MAC + b"\n",
        b"dapr.io/enc/v1\n" + MANIFEST.replace(b"AAAAAAAAAA==", b"AAAAAAAA") + b"\n" + MAC + b"\n",
        b"dapr.io/enc/v1\n" + MANIFEST.replace(b'"k":"k"', b'"k":"\xff"') + b"\n" + MAC + b"\n",
        b"dapr.io/enc/v1\n" + b"x" * MAX_HEADER,
        b"x" * 100_000,
    ],
)
async def test_what_is_not_such_a_document_is_refused_before_the_key_is_used(document: bytes) -> None:
    async def never(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        raise AssertionError("the key was used")

    for chunks in ([document], cut(document, 777)):
        with pytest.raises(DecryptionError, match=f"^{REFUSAL}$"):
            async for _ in decrypt_stream(chunks, unwrap=never):
                pass


def test_a_header_has_at_most_64_kib() -> None:
    def header(length: int) -> Header:
        return Header(key_name="k" * length, key_wrap=1, wrapped_key=b"w", cipher=1, nonce_prefix=bytes(7))

    rest = len(encode(header(1), bytes(32))) - 1
    longest = encode(header(MAX_HEADER - rest), bytes(32))
    assert HeaderReader().feed(longest + b"payload") == MAX_HEADER
    with pytest.raises(InvalidArgumentError, match="65537"):
        encode(header(MAX_HEADER - rest + 1), bytes(32))


async def test_a_header_without_end_is_refused_before_more_is_read() -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield b"dapr.io/enc/v1\n{"
        while read < 100:
            read += 1
            yield b" " * 10_000

    with pytest.raises(DecryptionError):
        await anext(decrypt_stream(endless(), unwrap=unwrap))
    assert read == 7


async def test_a_document_without_key_name_needs_one_from_the_caller() -> None:
    document = await encrypted(b"x", omit_key_name=True)
    with pytest.raises(InvalidArgumentError, match="does not name its key"):
        await decrypt_bytes(document, unwrap=unwrap)
    assert await decrypt_bytes(document, unwrap=unwrap, key_name="mykey") == b"x"


async def test_the_callers_key_name_wins_over_the_documents() -> None:
    seen = []

    async def spy(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        seen.append(key_name)
        return wrapped

    await decrypt_bytes(await encrypted(b"x"), unwrap=spy, key_name="mine")
    assert seen == ["mine"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"key_name": ""}, InvalidArgumentError),
        ({"key_name": "\ud800"}, InvalidArgumentError),
        ({"key_name": "k" * MAX_HEADER}, InvalidArgumentError),
        ({"algorithm": "A128KW"}, UnsupportedAlgorithmError),
        ({"algorithm": "a256kw"}, UnsupportedAlgorithmError),
        ({"cipher": "AES"}, UnsupportedAlgorithmError),
    ],
)
async def test_wrong_options_are_typed_errors(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        await encrypted(b"x", **options)


async def test_a_key_that_wraps_to_nothing_is_an_error() -> None:
    async def nothing(file_key: bytes) -> bytes:
        return b""

    with pytest.raises(OperationFailedError):
        await encrypted(b"x", wrap=nothing)


@pytest.mark.parametrize("chunks", ["text", b"bytes", bytearray(b"x"), ["text"], [5]])
async def test_chunks_that_are_not_bytes_are_refused(chunks: object) -> None:
    with pytest.raises(InvalidArgumentError):
        async for _ in encrypt_stream(chunks, wrap=wrap, key_name="k", algorithm="AES"):  # type: ignore[arg-type]  # wrong on purpose
            pass


async def test_more_segments_than_the_nonce_can_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    document = await encrypted(PLAIN[: 3 * SEGMENT])
    monkeypatch.setattr(segments, "MAX_SEGMENTS", 2)
    assert read_by_hand(await encrypted(PLAIN[: 2 * SEGMENT])) == PLAIN[: 2 * SEGMENT]
    with pytest.raises(InvalidLengthError):
        await encrypted(PLAIN[: 2 * SEGMENT + 1])
    with pytest.raises(DecryptionError):
        await decrypt_bytes(document, unwrap=unwrap)


def test_the_header_needs_no_extra() -> None:
    code = "import sys, lapel.crypto.header; assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
