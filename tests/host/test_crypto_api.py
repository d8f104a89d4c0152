"""Cryptography over HTTP: documents as streams both ways, and single operations on keys."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.host.support import Running, b64, body, component, running

from lapel.host.spool import MEMORY, spooled

KEY = {"dapr-key-name": "secret", "dapr-key-wrap-algorithm": "A256KW"}
ENCRYPT, DECRYPT = "/v1.0-alpha1/crypto/keys/encrypt", "/v1.0-alpha1/crypto/keys/decrypt"
LARGE = 40 * 1024 * 1024


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Running]:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "secret").write_bytes(os.urandom(32))
    private = generate_private_key(SECP256R1())
    (keys / "signing.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    async with running(component(tmp_path, "keys", "crypto.dapr.localstorage", path=str(keys))) as served:
        yield served


@pytest.mark.parametrize("size", [0, 1, 65536, 200_000])
@pytest.mark.parametrize("cipher", [None, "aes-gcm", "chacha20-poly1305", "ChaCha20-Poly1305"])
async def test_a_document_comes_back(host: Running, size: int, cipher: str | None) -> None:
    content = random.randbytes(size)
    headers = KEY | ({"dapr-data-encryption-cipher": cipher} if cipher else {})
    sealed = await host.ask("PUT", ENCRYPT, content=content, headers=headers)
    assert (sealed.status_code, sealed.headers["content-type"]) == (200, "application/octet-stream")
    assert sealed.content.startswith(b"dapr.io/enc/v1\n")
    opened = await host.ask("PUT", DECRYPT, content=sealed.content)
    assert (opened.status_code, opened.headers["content-type"]) == (200, "application/octet-stream")
    assert opened.content == content
    assert (await host.ask("PUT", "/v1.0/crypto/keys/decrypt", content=sealed.content)).content == content


async def test_the_name_of_the_key_may_be_left_out_or_replaced(host: Running) -> None:
    for headers in ({"dapr-omit-decryption-key-name": "yes"}, {"dapr-decryption-key-name": "other"}):
        sealed = await host.ask("PUT", ENCRYPT, content=b"x", headers=KEY | headers)
        assert b'"secret"' not in sealed.content
        assert (await host.ask("PUT", DECRYPT, content=sealed.content)).status_code == 500
        opened = await host.ask("PUT", DECRYPT, content=sealed.content, headers={"dapr-key-name": "secret"})
        assert opened.content == b"x"


async def test_a_client_that_writes_all_before_it_reads_is_served(host: Running) -> None:
    """More than sockets and memory hold, so that neither side can go on unless the host keeps reading."""
    content = random.randbytes(1024 * 1024) * (LARGE // (1024 * 1024))
    sealed = await asyncio.to_thread(_write_then_read, host.port, ENCRYPT, content)
    opened = await asyncio.to_thread(_write_then_read, host.port, DECRYPT, sealed)
    assert hashlib.sha256(opened).digest() == hashlib.sha256(content).digest()


def _write_then_read(port: int, path: str, content: bytes) -> bytes:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", port, timeout=50)
    try:
        connection.request("PUT", path, content, KEY)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()
    finally:
        connection.close()


async def test_the_answer_begins_before_the_request_ends(host: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    head = f"PUT {ENCRYPT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    writer.write((head + "".join(f"{name}: {value}\r\n" for name, value in KEY.items()) + "\r\n").encode())
    for _ in range(3):
        writer.write(b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n")
    await writer.drain()
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 200")
    first = await asyncio.wait_for(reader.readuntil(b"dapr.io/enc/v1"), 10)
    assert first
    writer.write(b"0\r\n\r\n")
    rest = b""
    while not rest.endswith(b"\r\n0\r\n\r\n"):
        rest += await asyncio.wait_for(reader.read(65536), 10)
    writer.close()


async def test_a_document_that_was_changed_breaks_the_stream(host: Running) -> None:
    content = random.randbytes(3_000_000)
    sealed = bytearray((await host.ask("PUT", ENCRYPT, content=content, headers=KEY)).content)
    sealed[-10] ^= 1
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    writer.write(f"PUT {DECRYPT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(sealed)}\r\n\r\n".encode() + sealed)
    received = await asyncio.wait_for(reader.read(-1), 20)
    assert not received.endswith(b"0\r\n\r\n")
    writer.close()
    sealed[0:4] = b"none"
    refused = await host.ask("PUT", DECRYPT, content=bytes(sealed))
    assert (refused.status_code, body(refused)["errorCode"]) == (500, "ERR_CRYPTO")


async def test_a_client_that_goes_away_ends_the_work(host: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    head = f"PUT {ENCRYPT} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n"
    writer.write((head + "".join(f"{name}: {value}\r\n" for name, value in KEY.items()) + "\r\n").encode())
    writer.write(b"x" * 200_000)
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()
    async with asyncio.timeout(10):
        while any(task.get_name() == "lapel spool" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)


async def test_subtle_operations(host: Running) -> None:
    async def ask(word: str, **fields: str) -> dict[str, Any]:
        answer = await host.ask("POST", f"/v1.0-alpha1/subtlecrypto/keys/{word}", json=fields)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = body(answer)
        return found

    key = {"algorithm": "A256GCM", "keyName": "secret"}
    for nonce in ({"nonce": b64(b"n" * 12)}, {}):
        sealed = await ask("encrypt", plaintext=b64(b"hello"), associatedData=b64(b"a"), **key, **nonce)
        assert ("nonce" in sealed) is not bool(nonce)
        sealed |= nonce
        opened = await ask("decrypt", associated_data=b64(b"a"), algorithm="A256GCM", key_name="secret", **sealed)
        assert opened == {"plaintext": b64(b"hello")}
    wrapping = {"algorithm": "A256KW", "keyName": "secret"}
    wrapped = await ask("wrapkey", plaintextKey=b64(b"k" * 32), **wrapping)
    assert await ask("unwrapkey", wrappedKey=wrapped["wrappedKey"], **wrapping) == {"plaintextKey": b64(b"k" * 32)}
    signing = {"algorithm": "ES256", "keyName": "signing.pem", "digest": b64(hashlib.sha256(b"m").digest())}
    signature = (await ask("sign", **signing))["signature"]
    assert await ask("verify", signature=signature, **signing) == {"valid": True}
    other = {**signing, "digest": b64(hashlib.sha256(b"n").digest())}
    assert await ask("verify", signature=signature, **other) == {}
    urlsafe = base64.urlsafe_b64encode(base64.b64decode(signature)).decode().rstrip("=")
    assert await ask("verify", signature=urlsafe, **signing) == {"valid": True}
    public = await ask("getkey", name="signing.pem")
    assert public["name"] == "signing.pem"
    assert public["publicKey"].startswith("-----BEGIN PUBLIC KEY-----")
    assert '"kty":"EC"' in (await ask("getkey", name="signing.pem", format="JSON"))["publicKey"]


async def test_a_spool_keeps_order_whatever_the_reader_does() -> None:
    count, size = 300, MEMORY // 100

    async def chunks() -> AsyncGenerator[bytes, None]:
        for number in range(count):
            yield number.to_bytes(4, "big") * (size // 4)

    for pause_at in (0, 50, 299):
        spool = spooled(chunks())
        seen = bytearray()
        async for block in spool:
            if len(seen) <= pause_at * size < len(seen) + len(block):
                await asyncio.sleep(0.05)  # the producer runs into the file meanwhile
            seen += block
        assert bytes(seen) == b"".join(number.to_bytes(4, "big") * (size // 4) for number in range(count))


async def test_a_spool_raises_where_its_source_did_and_closes_it() -> None:
    closed = asyncio.Event()

    async def failing() -> AsyncGenerator[bytes, None]:
        try:
            yield b"a"
            raise OSError("lost")
        finally:
            closed.set()

    spool = spooled(failing())
    assert await anext(spool) == b"a"
    with pytest.raises(OSError, match="lost"):
        await anext(spool)
    assert closed.is_set()

    closed.clear()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0)
        finally:
            closed.set()

    spool = spooled(endless())
    await anext(spool)
    await spool.aclose()
    assert closed.is_set()
