"""Documents in the format `dapr.io/enc/v1`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from lapel.crypto import scheme, segments
from lapel.crypto.header import CIPHERS, KEY_WRAP_ALGORITHMS, MAX_HEADER, REFUSAL, Header, HeaderReader, encode
from lapel.crypto.scheme import decrypt_bytes, decrypt_stream, encrypt_bytes, encrypt_stream
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


# --- the format


@pytest.mark.parametrize(("cipher", "number"), CIPHERS.items())
@pytest.mark.parametrize("length", LENGTHS)
async def test_documents_are_those_that_the_description_of_the_format_gives(
    cipher: str, number: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.urandom", lambda size: bytes(range(size)))
    file_key, prefix, plain = bytes(range(32)), bytes(range(7)), PLAIN[:length]
    manifest = b'{"k":"mykey","kw":1,"wfk":"%b","cph":%d,"np":"%b"}' % (
        base64.b64encode(file_key),
        number,
        base64.b64encode(prefix),
    )
    assert await encrypted(plain, cipher=cipher) == written_by_hand(plain, file_key, prefix, manifest, number)


@pytest.mark.parametrize("length", LENGTHS)
async def test_documents_are_readable_by_an_independent_reader(length: int) -> None:
    assert read_by_hand(await encrypted(PLAIN[:length])) == PLAIN[:length]


async def test_a_document_published_with_the_format_is_accepted() -> None:
    """`empty-message` of the samples in Dapr's kit repository (Apache-2.0), whose wrapped key is the file key."""
    document = (
        b"dapr.io/enc/v1\n"
        b'{"k":"mykey","kw":1,"wfk":"rvjwqyMa8txW979ZL9wglb7f+UG1kW+/hDqvP3/ib+Q=","cph":1,"np":"gZ/UVI2JlQ=="}\n'
        b"zB+rESjb3gR5guGfmxukQ//ApfW6a55WOxo6k0x89kE=\n"
    )
    assert await decrypt_bytes(document, unwrap=unwrap) == b""


async def test_header_has_three_lines_with_the_fields_in_order() -> None:
    first, manifest, mac, payload = split(await encrypted(b"hello world", cipher="chacha20-poly1305"))
    assert first == b"dapr.io/enc/v1"
    assert b" " not in manifest
    assert list(json.loads(manifest)) == ["k", "kw", "wfk", "cph", "np"]
    assert (json.loads(manifest)["kw"], json.loads(manifest)["cph"]) == (1, 2)
    assert len(base64.b64decode(json.loads(manifest)["np"])) == 7
    assert (len(mac), len(payload)) == (44, len(b"hello world") + 16)


async def test_an_empty_message_is_a_header_and_nothing_else() -> None:
    assert split(await encrypted(b""))[3] == b""


async def test_a_full_last_segment_is_not_followed_by_an_empty_one() -> None:
    assert len(split(await encrypted(PLAIN[: 2 * SEGMENT]))[3]) == 2 * SEALED


async def test_every_document_has_its_own_key_and_nonces() -> None:
    manifests = {split(await encrypted(b"same"))[1] for _ in range(20)}
    assert len({json.loads(manifest)["wfk"] for manifest in manifests}) == 20
    assert len({json.loads(manifest)["np"] for manifest in manifests}) == 20


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "mykey"),
        ({"decryption_key_name": "other"}, "other"),
        ({"omit_key_name": True}, None),
        ({"omit_key_name": True, "decryption_key_name": "other"}, None),
        ({"key_name": 'a"<é\n'}, 'a"<é\n'),
    ],
)
async def test_the_manifest_names_the_key_to_decrypt_with(options: dict[str, object], expected: str | None) -> None:
    assert json.loads(split(await encrypted(b"x", **options))[1]).get("k") == expected


@pytest.mark.parametrize(
    ("name", "number"), [*KEY_WRAP_ALGORITHMS.items(), ("AES", 1), ("RSA", KEY_WRAP_ALGORITHMS["RSA-OAEP-256"])]
)
async def test_algorithms_and_their_short_names_have_fixed_numbers(name: str, number: int) -> None:
    document = await encrypted(b"x", algorithm=name)
    assert json.loads(split(document)[1])["kw"] == number
    seen = []

    async def spy(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
        seen.append((algorithm, key_name))
        return wrapped

    assert await decrypt_bytes(document, unwrap=spy) == b"x"
    assert seen == [(scheme.resolve_algorithm(name), "mykey")]


def test_keys_are_derived_as_in_rfc_5869() -> None:
    """Test cases 1 and 3 of appendix A, of which 32 bytes are used here."""
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    first = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    third = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert scheme._derive(b"\x0b" * 22, salt, info).hex() == first
    assert scheme._derive(b"\x0b" * 22, b"", b"").hex() == third


async def test_a_manifest_of_another_writer_is_taken_as_it_is() -> None:
    key, prefix = bytes(range(32)), bytes(7)
    wrapped, np = base64.b64encode(key), base64.b64encode(prefix)
    manifest = b'{ "np": "%b", "new": [1, {}], "cph": 1, "k": "\\u006dykey", "wfk": "%b", "kw": 1 }' % (np, wrapped)
    assert await decrypt_bytes(written_by_hand(b"hello", key, prefix, manifest, 1), unwrap=unwrap) == b"hello"


# --- streams


@pytest.mark.parametrize("size", [1_000, 4_096, SEGMENT - 1, SEGMENT, SEALED, SEGMENT + 17, 10_000_000])
@pytest.mark.parametrize("length", LENGTHS)
async def test_streams_in_chunks_of_any_size_come_back(length: int, size: int) -> None:
    plain = PLAIN[:length]
    stream = encrypt_stream(cut(plain, size), wrap=wrap, key_name="k", algorithm="AES")
    document = b"".join([piece async for piece in stream])
    assert read_by_hand(document) == plain
    assert b"".join([piece async for piece in decrypt_stream(cut(document, size), unwrap=unwrap)]) == plain


async def test_streams_in_single_bytes_come_back() -> None:
    plain = PLAIN[: SEGMENT + 3]
    stream = encrypt_stream(cut(plain, 1), wrap=wrap, key_name="k", algorithm="AES")
    document = b"".join([piece async for piece in stream])
    assert b"".join([piece async for piece in decrypt_stream(cut(document, 1), unwrap=unwrap)]) == plain


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_way_of_cutting_changes_what_comes_out(data: st.DataObject) -> None:
    around = [border + delta for border in (0, SEGMENT, 2 * SEGMENT) for delta in (-1, 0, 1) if border + delta >= 0]
    plain = PLAIN[: data.draw(st.sampled_from(around) | st.integers(0, 3 * SEGMENT))]

    def pieces(whole: bytes) -> list[bytes]:
        borders = st.integers(0, len(whole)) | st.sampled_from([SEGMENT, SEALED, 2 * SEGMENT]).filter(
            lambda at: at <= len(whole)
        )
        places = sorted(data.draw(st.lists(borders, max_size=12)))
        return [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]

    async def there_and_back() -> None:
        stream = encrypt_stream(pieces(plain), wrap=wrap, key_name="k", algorithm="AES")
        document = b"".join([piece async for piece in stream])
        assert read_by_hand(document) == plain
        assert b"".join([piece async for piece in decrypt_stream(pieces(document), unwrap=unwrap)]) == plain

    asyncio.run(there_and_back())


async def test_a_buffer_may_be_reused_for_the_next_chunk() -> None:
    async def source(data: bytes) -> AsyncIterator[memoryview]:
        buffer = bytearray(1_000)
        for chunk in cut(data, 1_000):
            buffer[: len(chunk)] = chunk
            yield memoryview(buffer)[: len(chunk)]

    plain = PLAIN[:150_000]
    stream = encrypt_stream(source(plain), wrap=wrap, key_name="k", algorithm="AES")
    document = b"".join([piece async for piece in stream])
    assert b"".join([piece async for piece in decrypt_stream(source(document), unwrap=unwrap)]) == plain


async def test_plaintext_comes_out_only_after_its_segment_is_authenticated() -> None:
    document = bytearray(await encrypted(PLAIN[: 3 * SEGMENT]))
    document[-2 * SEALED + 5] ^= 1
    came_out = b""
    with pytest.raises(DecryptionError):
        async for piece in decrypt_stream(cut(bytes(document), 5_000), unwrap=unwrap):
            came_out += piece
    assert came_out == PLAIN[:SEGMENT]


@pytest.mark.parametrize("chunk", [SEGMENT, 1 << 20])
async def test_memory_does_not_grow_with_the_stream(chunk: int) -> None:
    async def drained(count: int) -> int:
        block = bytes(chunk)
        source = (block for _ in range(count))
        tracemalloc.start()
        stream = encrypt_stream(source, wrap=wrap, key_name="k", algorithm="AES")
        async for _ in decrypt_stream(stream, unwrap=unwrap):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert await drained((24 << 20) // chunk) < 4 << 20


async def test_other_tasks_get_their_turn_once_per_mebibyte() -> None:
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(neighbour())
    document = await encrypted(bytes(8 << 20))
    after_bytes = turns
    async for _ in decrypt_stream([document], unwrap=unwrap):
        pass
    after_stream = turns
    async for _ in encrypt_stream((b"" for _ in range(8_192)), wrap=wrap, key_name="k", algorithm="AES"):
        pass
    task.cancel()
    assert min(after_bytes, after_stream - after_bytes, turns - after_stream) >= 7


@pytest.mark.parametrize("direction", ["encrypt", "decrypt"])
async def test_closing_a_stream_closes_its_source(direction: str) -> None:
    document, closed = await encrypted(PLAIN), []

    async def source() -> AsyncIterator[bytes]:
        try:
            for chunk in cut(document, SEGMENT):
                yield chunk
        finally:
            closed.append(True)

    if direction == "encrypt":
        stream = encrypt_stream(source(), wrap=wrap, key_name="k", algorithm="AES")
        await anext(stream)
    else:
        stream = decrypt_stream(source(), unwrap=unwrap)
    await anext(stream)
    await stream.aclose()
    assert closed == [True]


async def test_a_failing_source_or_key_closes_the_source_and_passes_the_error_on() -> None:
    closed = []

    def source() -> Iterator[bytes]:
        try:
            yield b"begun"
            yield b"never"
        finally:
            closed.append(True)

    async def unavailable(file_key: bytes) -> bytes:
        raise UnavailableError("down")

    chunks = source()
    next(chunks)
    with pytest.raises(UnavailableError):
        await anext(encrypt_stream(chunks, wrap=unavailable, key_name="k", algorithm="AES"))
    assert closed == [True]


# --- refusals


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
        forged = written_by_hand(b"forged", stand_in, bytes(7), manifest, 1)
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
