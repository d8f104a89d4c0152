"""A small HTTP server that answers as a test says, bindings to it, and certificates for both."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lapel.bindings import OutputBinding
from lapel.driver import DriverContext
from lapel_contrib.http.binding import HttpBinding
from lapel_contrib.http.settings import HttpSettings

# The first use of a settings class looks for plugins of pydantic on the disk, which no event loop should wait for.
HttpSettings.parse({"url": "http://localhost"})


@dataclass
class Request:
    """What the server received; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def text(status: str, body: bytes = b"", **headers: str) -> Answer:
    """Answer with that status and body."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines])
        writer.write(f"{head}\r\n\r\n".encode() + (b"" if request.method == "HEAD" else body))

    return answer


def raw(data: bytes, *, hang: bool = False) -> Answer:
    """Answer with these bytes, then close the connection or leave it be."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if hang:
            await asyncio.Event().wait()
        writer.close()

    return answer


@dataclass
class Server:
    """A small HTTP server that answers as `answers` say, one after another; the last one stays."""

    port: int = 0
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=lambda: [text("200 OK", b"fine")])
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split(" ")
                headers: dict[str, str] = {}
                while (line := await reader.readline()) != b"\r\n":
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await self.body(reader, headers)
                request = Request(method, path, headers, body)
                self.requests.append(request)
                self.arrived.set()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                await answer(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await reader.readexactly(int(headers.get("content-length", 0)))
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(parts)


@asynccontextmanager
async def running(port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    state = Server(scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(state.serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running() as state:
        yield state


def made(url: str, **fields: str) -> OutputBinding:
    settings = HttpSettings.parse({"url": url, **fields})
    return OutputBinding(HttpBinding(settings, DriverContext(component="web")))


@pytest.fixture
async def binding(server: Server) -> AsyncIterator[OutputBinding]:
    async with made(server.url + "/base/") as opened:
        yield opened


def long_reply(size: int, *, known: bool) -> Answer:
    head = f"Content-Length: {size}" if known else "Connection: close"
    return raw(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + b"x" * size)


@dataclass
class Identity:
    """A certificate and its key, in PEM form."""

    certificate: str
    key: str


def issue(name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None) -> tuple[Any, Any, Identity]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key())
        builder = builder.add_extension(authority, critical=False)
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    return (
        certificate,
        key,
        Identity(
            certificate.public_bytes(serialization.Encoding.PEM).decode(),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
        ),
    )
