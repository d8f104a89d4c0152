"""Documents through a provider with real keys: what protects them, which errors there are, and the event loop."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from collections.abc import AsyncIterator

import pytest
from joserfc.jwk import ECKey, RSAKey
from tests.unit.key_sets import jwks, made, oct_key
from tests.unit.loop_watch import assert_never_held_up

from lapel.crypto import CryptoProvider, EncryptRequest, SignRequest, VerifyRequest, WrapKeyRequest
from lapel.crypto.header import CIPHERS, KEY_WRAP_ALGORITHMS, REFUSAL
from lapel.errors import DecryptionError, InvalidArgumentError, KeyTypeError, NotFoundError

RSA_JWK = RSAKey.generate_key(2048).as_dict(private=True)
PUBLIC_JWK = {name: RSA_JWK[name] for name in ("kty", "n", "e")}
KEYS = {
    "A256KW": "oct32",
    "A128CBC-NOPAD": "oct16",
    "A192CBC-NOPAD": "oct24",
    "A256CBC-NOPAD": "oct32",
    "RSA-OAEP-256": "rsa",
}
SET = jwks(
    *(oct_key(f"oct{size}", os.urandom(size)) for size in (16, 24, 32)),
    oct_key("other", os.urandom(32)),
    oct_key("pinned", os.urandom(32), alg="A256GCM"),
    {**RSA_JWK, "kid": "rsa"},
    {**PUBLIC_JWK, "kid": "public"},
    {**ECKey.generate_key("P-256").as_dict(private=True), "kid": "ec"},
)


@pytest.fixture
async def provider() -> AsyncIterator[CryptoProvider]:
    async with made(SET) as provider:
        yield provider


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("algorithm", KEY_WRAP_ALGORITHMS)
async def test_every_key_wrap_algorithm_of_the_format_works(
    provider: CryptoProvider, algorithm: str, cipher: str
) -> None:
    name = KEYS[algorithm]
    for text in (b"", b"text", os.urandom(100_000)):
        document = await provider.encrypt(text, key_name=name, algorithm=algorithm, cipher=cipher)
        assert await provider.decrypt(document) == text
        stream = provider.encrypt_stream([text], key_name=name, algorithm=algorithm, cipher=cipher)
        assert b"".join([piece async for piece in provider.decrypt_stream(stream)]) == text


@pytest.mark.parametrize("algorithm", [name for name in KEY_WRAP_ALGORITHMS if "CBC" in name])
async def test_an_algorithm_that_takes_a_nonce_has_a_new_one_before_each_wrapped_key(
    provider: CryptoProvider, algorithm: str
) -> None:
    nonces = set()
    for _ in range(20):
        document = await provider.encrypt(b"x", key_name=KEYS[algorithm], algorithm=algorithm)
        wrapped = base64.b64decode(json.loads(document.split(b"\n")[1])["wfk"])
        assert len(wrapped) == 16 + 32
        nonces.add(wrapped[:16])
    assert len(nonces) == 20


@pytest.mark.parametrize("named", [True, False], ids=["key named by the caller", "key named by the document"])
@pytest.mark.parametrize("algorithm", KEY_WRAP_ALGORITHMS)
async def test_any_change_of_a_byte_is_one_and_the_same_error(
    provider: CryptoProvider, algorithm: str, named: bool
) -> None:
    name = KEYS[algorithm]
    document = await provider.encrypt(b"a small document", key_name=name, algorithm=algorithm)
    # Changed there, a document is one that does not name its key.
    member = -1 if named else document.index(b'"k"') + 1
    # Every bit of each byte, and what turns one digit or letter into any other.
    changes = [1 << bit for bit in range(8)] + [3, 5, 6, 7, 15]
    for at in set(range(len(document))) - {member}:
        for change in changes if algorithm != "RSA-OAEP-256" else changes[at % 8 : at % 8 + 1]:
            changed = document[:at] + bytes([document[at] ^ change]) + document[at + 1 :]
            with pytest.raises(DecryptionError) as caught:
                await provider.decrypt(changed, key_name=name if named else None)
            assert caught.value.message == REFUSAL, (at, change)
            assert caught.value.__cause__ is None


async def test_a_cut_document_is_that_error_as_well(provider: CryptoProvider) -> None:
    document = await provider.encrypt(b"a small document", key_name="oct32")
    header = len(document) - len(b"a small document") - 16
    for length in set(range(len(document))) - {header}:
        with pytest.raises(DecryptionError, match=f"^component 'keys' .*{REFUSAL}$"):
            await provider.decrypt(document[:length])


@pytest.mark.parametrize("wrong", ["other", "oct16", "rsa", "public", "ec", "pinned"])
async def test_a_key_that_is_not_the_document_s_is_that_error_whatever_its_kind(
    provider: CryptoProvider, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    for algorithm, name in KEYS.items():
        document = await provider.encrypt(b"text", key_name=name, algorithm=algorithm)
        if (algorithm, wrong) == ("A128CBC-NOPAD", "oct16") or wrong == name:
            continue
        with caplog.at_level(logging.WARNING), pytest.raises(DecryptionError) as caught:
            await provider.decrypt(document, key_name=wrong)
        assert caught.value.message == REFUSAL
    # The log tells whoever may read it what the error does not.
    assert all(f"the key {wrong!r} does not open the document: " in text for text in caplog.messages)
    assert caplog.messages


async def test_a_key_that_there_is_not_is_named_to_the_caller_who_named_it(provider: CryptoProvider) -> None:
    document = await provider.encrypt(b"text", key_name="oct32")
    with pytest.raises(NotFoundError, match="'nobody'"):
        await provider.decrypt(document, key_name="nobody")


async def test_a_document_does_not_find_out_which_names_keys_have(
    provider: CryptoProvider, caplog: pytest.LogCaptureFixture
) -> None:
    unknown, other = "n" * 500, "other"
    answers = set()
    for name in (unknown, other):
        document = await provider.encrypt(b"text", key_name="oct32", decryption_key_name=name)
        with pytest.raises(DecryptionError) as caught:
            await provider.decrypt(document)
        answers.add(repr(caught.value))
        with pytest.raises(DecryptionError) as caught:
            _ = [piece async for piece in provider.decrypt_stream([document])]
        answers.add(repr(caught.value))
    assert len(answers) == 1
    # Whoever may read the log is told, in few words: the name may be as long as a header.
    assert [len(text) < 200 for text in caplog.messages if "which is no key that can be used" in text] == [True, True]


async def test_encrypting_with_a_key_that_does_not_fit_says_so(provider: CryptoProvider) -> None:
    for name, algorithm in (("rsa", "A256KW"), ("oct16", "A256KW"), ("oct32", "RSA"), ("pinned", "A256KW")):
        with pytest.raises(KeyTypeError, match=repr(name)):
            await provider.encrypt(b"text", key_name=name, algorithm=algorithm)


async def test_a_public_key_is_enough_to_encrypt(provider: CryptoProvider) -> None:
    document = await provider.encrypt(b"text", key_name="public", algorithm="RSA", decryption_key_name="rsa")
    assert await provider.decrypt(document) == b"text"


@pytest.mark.parametrize(
    "request_made",
    [
        EncryptRequest(plaintext=b"canary", algorithm="A256GCM", key_name="key"),
        WrapKeyRequest(key=b"canary", algorithm="A256KW", key_name="key"),
        SignRequest(digest=b"canary", algorithm="EdDSA", key_name="key"),
        VerifyRequest(digest=b"canary", signature=b"", algorithm="EdDSA", key_name="key"),
    ],
    ids=lambda made: type(made).__name__,
)
def test_what_is_encrypted_wrapped_or_signed_is_not_shown(request_made: object) -> None:
    assert "canary" not in repr(request_made) + str(request_made)
    assert "'key'" in repr(request_made)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_any_kind_of_bytes_is_taken(provider: CryptoProvider, kind: type[bytes]) -> None:
    text = os.urandom(200_000)
    document = await provider.encrypt(kind(text), key_name="oct32")
    assert await provider.decrypt(kind(document)) == text
    stream = provider.encrypt_stream([kind(text)], key_name="oct32")
    document = b"".join([piece async for piece in stream])
    assert b"".join([piece async for piece in provider.decrypt_stream([kind(document)])]) == text


async def test_views_of_other_items_and_with_gaps_are_taken_as_their_bytes(provider: CryptoProvider) -> None:
    numbers = memoryview(os.urandom(800)).cast("q")
    assert await provider.decrypt(await provider.encrypt(numbers, key_name="oct32")) == numbers.tobytes()
    gaps = memoryview(bytes(range(200)))[::2]
    assert await provider.decrypt(await provider.encrypt(gaps, key_name="oct32")) == gaps.tobytes()


async def test_a_bytearray_can_grow_again_while_a_stream_waits_for_the_next_chunk(provider: CryptoProvider) -> None:
    buffer = bytearray(os.urandom(70_000))

    async def source() -> AsyncIterator[bytearray]:
        for _ in range(5):
            yield buffer
            buffer.append(0)  # A view that is still held would be a BufferError here.

    async for _ in provider.encrypt_stream(source(), key_name="oct32"):
        pass


@pytest.mark.parametrize("text", [5, None, "text", [b"x"], 1.5])
async def test_what_is_no_bytes_is_refused(provider: CryptoProvider, text: object) -> None:
    for call in (provider.encrypt(text, key_name="oct32"), provider.decrypt(text)):  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(InvalidArgumentError, match="must be bytes"):
            await call


@pytest.mark.parametrize("cipher", CIPHERS)
async def test_the_event_loop_is_never_held_for_long(provider: CryptoProvider, cipher: str) -> None:
    text = os.urandom(24 << 20)

    async def work() -> None:
        document = await provider.encrypt(text, key_name="oct32", cipher=cipher)
        assert await provider.decrypt(document) == text
        async for _ in provider.decrypt_stream(provider.encrypt_stream([text], key_name="oct32", cipher=cipher)):
            pass

    await assert_never_held_up(work, 0.005, turns=4 * 24)


async def test_a_cancelled_call_stops_and_leaves_the_provider_usable(provider: CryptoProvider) -> None:
    text = bytes(64 << 20)
    for call in (
        provider.encrypt(text, key_name="oct32"),
        provider.decrypt(await provider.encrypt(text, key_name="oct32")),
    ):
        task = asyncio.create_task(call)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await provider.decrypt(await provider.encrypt(b"text", key_name="oct32")) == b"text"


async def test_a_cancelled_stream_closes_its_source(provider: CryptoProvider) -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            yield bytes(200_000)
            begun.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def drain() -> None:
        async for _ in provider.encrypt_stream(source(), key_name="oct32"):
            pass

    task = asyncio.create_task(drain())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(closed.wait(), 10)
