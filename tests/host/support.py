"""A host on a real socket, in the loop of the test, and what tests ask it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from lapel.host import Host, HostApp, HostOptions
from lapel.host.access import AccessRules
from lapel.host.app import AppSide
from lapel.host.server import serve


@dataclass(slots=True)
class Running:
    """A host that serves on `port`. `client` resolves relative paths against it."""

    app: HostApp
    port: int
    client: httpx.AsyncClient
    serving: asyncio.Task[None] = field(repr=False)

    @property
    def host(self) -> Host:
        return self.app.host

    async def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return await self.client.request(method, path, **arguments)

    async def raw(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes on a connection of their own and return status, headers and body of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            return await read_response(reader)
        finally:
            writer.close()

    async def get_raw(self, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Ask for a target exactly as it is written, which clients would tidy up."""
        return await self.raw(f"{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())


def side(host: Running) -> AppSide:
    """Return the application's side of a host that has one."""
    assert host.host.app is not None
    return host.host.app


async def until(condition: Callable[[], object]) -> None:
    """Return as soon as the condition holds; `TimeoutError` when it does not in time."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def read_response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1").split("\r\n")
    headers = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", 0))
    return int(head[0].split()[1]), headers, await asyncio.wait_for(reader.readexactly(length), 10)


@dataclass(slots=True)
class Embedded:
    """A host that is called in this process, without a socket."""

    host: Host
    client: httpx.AsyncClient

    async def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return await self.client.request(method, path, **arguments)


@asynccontextmanager
async def embedded(*source: Any, rules: AccessRules | None = None, **fields: Any) -> AsyncIterator[Embedded]:
    """Call a host over the components of `source` without a socket."""
    fields = {"app_id": "myapp", "api_token": None, **fields}
    host = Host(source, HostOptions(**fields), rules=rules)
    transport = httpx.ASGITransport(HostApp(host))
    async with host, httpx.AsyncClient(transport=transport, base_url="http://x", timeout=20) as client:
        yield Embedded(host, client)


@asynccontextmanager
async def running(*source: Any, rules: AccessRules | None = None, **fields: Any) -> AsyncIterator[Running]:
    """Serve the components of `source` on a free port."""
    fields = {"app_id": "myapp", "api_token": None, "http_port": 0, **fields}
    app = HostApp(Host(source, HostOptions(**fields), rules=rules))
    ports: asyncio.Queue[int] = asyncio.Queue()
    serving = asyncio.create_task(serve(app, listening=lambda _, port: ports.put_nowait(port)))
    listening = asyncio.create_task(ports.get())
    await asyncio.wait([serving, listening], return_when=asyncio.FIRST_COMPLETED, timeout=20)
    if serving.done():
        listening.cancel()
        await serving
    port = await listening
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield Running(app, port, client, serving)
    finally:
        app.host.stopping.set()
        await asyncio.wait_for(serving, 20)


def component(folder: Path, name: str, type: str, /, **values: str) -> Path:
    """Write a component file and return its path."""
    fields = [{"name": key, "value": value} for key, value in values.items()]
    document = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {"type": type, "version": "v1", "metadata": fields},
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(document), "utf-8")
    return path


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def body(response: httpx.Response) -> Any:
    return json.loads(response.content)
