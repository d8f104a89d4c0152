"""secretstores.hashicorp.vault against hvac in a pool of threads, which is the ordinary way to use it with asyncio.

The server counts the requests, in its audit log. It is one of its own: another one's log is out of reach.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import hvac  # type: ignore[import-untyped]  # it has no annotations
from tests.backends.guard import guard
from tests.backends.vault import KV2, VaultServer
from tests.benchmarks.rows import PAIRS, Row

from lapel.driver import DriverContext
from lapel.secretstores import SecretStore
from lapel_contrib.vault.secretstore import VaultSecretStore
from lapel_contrib.vault.settings import VaultSecretsSettings

PATHS = 20
READERS = 200
THREADS = 4

Read = Callable[[str], Awaitable[Any]]


async def run() -> list[Row]:
    """Measure on a server of its own."""
    server = VaultServer(guard().folder())
    await asyncio.to_thread(server.launch)
    try:
        return await _measured(server)
    finally:
        await asyncio.to_thread(server.close)


async def _measured(server: VaultServer) -> list[Row]:
    names = [f"bench-{number}" for number in range(READERS)]
    for name in names:
        await asyncio.to_thread(server.call, "POST", f"{KV2}/data/dapr/{name}", {"data": {"password": "p" * 32}})
    settings = VaultSecretsSettings.parse({**server.properties, "poolSize": str(THREADS)}, component="bench")
    client = hvac.Client(url=server.address, token=server.token)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as pool:

        def bare(name: str) -> Any:
            return client.secrets.kv.v2.read_secret_version(path=f"dapr/{name}", raise_on_deleted_version=True)

        async def raw(name: str) -> Any:
            return await loop.run_in_executor(pool, bare, name)

        async with SecretStore(VaultSecretStore(settings, DriverContext(component="bench"))) as store:
            shared = [names[number % PATHS] for number in range(READERS)]
            before = sum(server.requests(f"{KV2}/data/").values())
            await _seconds(store.get, shared)
            sent = sum(server.requests(f"{KV2}/data/").values()) - before
            counted: Row = {
                "name": f"Vault, requests for {READERS} concurrent reads of {PATHS} secrets",
                "unit": "requests",
                "ours": sent,
                "baseline": READERS,
                "ratio": sent / READERS,
                "target": f"ours <= {PATHS}",
                "ok": sent <= PATHS,
            }
            return [
                counted,
                await _compare(f"Vault, {READERS} concurrent reads of {PATHS} secrets", store.get, raw, shared),
                await _compare(f"Vault, {READERS} concurrent reads of as many secrets", store.get, raw, names),
            ]


async def _compare(what: str, ours: Read, raw: Read, names: list[str]) -> Row:
    await _seconds(ours, names)
    await _seconds(raw, names)
    pairs = [(await _seconds(ours, names), await _seconds(raw, names)) for _ in range(PAIRS)]
    return {
        "name": what,
        "unit": "reads/s",
        "ours": median(len(names) / mine for mine, _ in pairs),
        "baseline": median(len(names) / bare for _, bare in pairs),
        "ratio": median(bare / mine for mine, bare in pairs),
        "target": "none",
        "ok": True,
    }


async def _seconds(read: Read, names: list[str]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(read(name) for name in names))
    return time.perf_counter() - started
