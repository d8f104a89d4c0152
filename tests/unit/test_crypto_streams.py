"""Documents as streams: any chunks, constant memory, turns for others, and sources that are closed."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.documents_by_hand import (
    LENGTHS,
    PLAIN,
    SEALED,
    SEGMENT,
    cut,
    encrypted,
    read_by_hand,
    unwrap,
    wrap,
)

from lapel.crypto.scheme import decrypt_stream, encrypt_stream
from lapel.errors import (
    DecryptionError,
    UnavailableError,
)


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
