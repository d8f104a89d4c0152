"""Any bytes at all as an encrypted document: it opens, or is refused with the one error, however it is cut.

Run by pytest for a bounded time. With atheris installed, `python tests/faults/test_document_fuzzing.py -runs=1000000`
lets the coverage of the code choose the inputs; further arguments are those of libFuzzer.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Coroutine, Iterator
from importlib import import_module
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lapel.crypto import header as document_header
from lapel.crypto.header import MAX_HEADER, NONCE_PREFIX_LENGTH, REFUSAL, HeaderReader
from lapel.crypto.scheme import decrypt_bytes, decrypt_stream, encrypt_bytes
from lapel.errors import DecryptionError, InvalidArgumentError

T = TypeVar("T")
FILE_KEY = bytes(range(32))


async def _wrap(file_key: bytes) -> bytes:
    return file_key


async def _unwrap(wrapped: bytes, algorithm: str, key_name: str) -> bytes:
    if len(wrapped) != 32:
        raise DecryptionError("not the length of a key")
    return wrapped


def _driven(steps: Coroutine[Any, Any, T]) -> T:
    """Run what waits for nothing without an event loop, which would take longer than all the rest."""
    while True:
        try:
            steps.send(None)
        except StopIteration as end:
            result: T = end.value
            return result


WHOLE = _driven(encrypt_bytes(bytes(20), wrap=_wrap, key_name="key", algorithm="AES"))
START = b"dapr.io/enc/v1\n"


def check(data: bytes) -> None:
    """Read the data as a document, whole and in pieces; raise if that does anything but answer or refuse."""
    reader, fed, refusal = HeaderReader(), 0, ""
    try:
        for at in range(0, len(data), 7):
            piece = data[at : at + 7]
            start = reader.feed(piece)
            if start is not None:
                assert 0 <= start <= len(piece)
                fed = at + start
                break
        else:
            reader.end()
    except DecryptionError as exc:
        refusal = exc.message
    assert refusal in ("", REFUSAL)
    if not refusal:
        header = reader.header
        assert 0 < fed <= MAX_HEADER
        assert data[:fed].count(b"\n") == 3
        assert data[fed - 1 : fed] == b"\n"
        assert len(header.nonce_prefix) == NONCE_PREFIX_LENGTH
        assert header.wrapped_key
        assert header.algorithm
        reader.verify(FILE_KEY)
    assert _driven(_opened(data)) == _driven(_streamed(data))


async def _opened(data: bytes) -> bytes | type[Exception]:
    try:
        return await decrypt_bytes(data, unwrap=_unwrap)
    except (DecryptionError, InvalidArgumentError) as exc:
        return type(exc)


async def _streamed(data: bytes) -> bytes | type[Exception]:
    chunks: Iterator[bytes] = (data[at : at + 11] for at in range(0, len(data), 11))
    try:
        return b"".join([piece async for piece in decrypt_stream(chunks, unwrap=_unwrap)])
    except (DecryptionError, InvalidArgumentError) as exc:
        return type(exc)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a document with a few bytes changed, taken out or put in."""
    data = bytearray(WHOLE)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["change", "cut", "insert"])):
            case "change":
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 30))]
            case _:
                data[at:at] = draw(st.binary(max_size=30))
        if not data:
            break
    return bytes(data)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "k": st.text() | values,
        "kw": st.integers(0, 7) | values,
        "wfk": st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()) | values,
        "cph": st.integers(0, 4) | values,
        "np": st.binary(min_size=5, max_size=8).map(lambda data: base64.b64encode(data).decode()) | values,
        "other": values,
    },
)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Draw a header with JSON that has the right names and often the wrong values."""
    text = json.dumps(draw(fields)).encode("utf-8", "surrogatepass")
    mac = draw(st.binary(min_size=30, max_size=34).map(base64.b64encode) | st.binary(max_size=50))
    return START + text + b"\n" + mac + b"\n" + draw(st.binary(max_size=40))


@pytest.mark.faults
@pytest.mark.timeout(300)
@settings(max_examples=2_000)
@given(data=damaged() | headers() | st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: START + rest))
@example(data=WHOLE)
@example(data=b"")
@example(data=START + b"{" * MAX_HEADER)
@example(data=START + b"[" * 50_000 + b"\n" + b"A" * 44 + b"\n")
@example(data=START + b'{"kw":1e400,"wfk":"AA==","cph":1,"np":"AAAAAAAAAA=="}\n' + b"A" * 44 + b"\n")
def test_any_bytes_open_or_are_refused(data: bytes) -> None:
    check(data)


def main() -> None:
    """Fuzz until something fails or libFuzzer's arguments say so."""
    atheris = import_module("atheris")  # Not among the tools of a developer.

    for name in ("feed", "end", "verify"):
        setattr(HeaderReader, name, atheris.instrument_func(getattr(HeaderReader, name)))
    document_header._parse = atheris.instrument_func(document_header._parse)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
