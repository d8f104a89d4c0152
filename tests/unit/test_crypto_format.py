"""The format `dapr.io/enc/v1`, field by field."""

from __future__ import annotations

import base64
import json

import pytest
from tests.unit.documents_by_hand import (
    LENGTHS,
    PLAIN,
    SEALED,
    SEGMENT,
    encrypted,
    read_by_hand,
    split,
    unwrap,
    written_by_hand,
)

from lapel.crypto import scheme
from lapel.crypto.header import CIPHERS, KEY_WRAP_ALGORITHMS
from lapel.crypto.scheme import decrypt_bytes


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
