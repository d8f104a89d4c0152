"""bindings.gcp.bucket: 64 tasks that put and get 10 KiB, against the SDK in a pool of 64 threads, and against obstore.

The server is an emulator, so the numbers say what a client costs and nothing of Google's service.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import obstore
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from obstore.store import GCSStore
from tests.backends.gcs import GcsBackend, GcsServer, attach
from tests.backends.guard import guard
from tests.benchmarks.rows import PAIRS, Row

from lapel.bindings import OutputBinding
from lapel.driver import DriverContext
from lapel_contrib.gcp.bucket import BucketBinding
from lapel_contrib.gcp.client import THREADS
from lapel_contrib.gcp.component_settings import BucketSettings

TASKS = 64
CALLS = 5
"""By each task and run."""
DATA = os.urandom(10 * 1024)
LEAST = 0.9

Call = Callable[[str], Awaitable[object]]


async def _rate(call: Call, lags: list[float]) -> float:
    async def task(number: int) -> None:
        for turn in range(CALLS):
            await call(f"{number}-{turn}")

    async def watch() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - begun - 0.001)

    watching = asyncio.create_task(watch())
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(task(number))
    rate = TASKS * CALLS / (time.perf_counter() - begun)
    watching.cancel()
    return rate


def _sdk(server: GcsBackend, bucket: str, pool: ThreadPoolExecutor) -> tuple[Call, Call]:
    """Return put and get of the SDK in threads, its connections as many as threads, its retries off."""
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
    client = storage.Client(
        project="shop",
        credentials=AnonymousCredentials(),
        _http=session,
        client_options={"api_endpoint": server.endpoint},
    )
    found = client.bucket(bucket)

    async def put(key: str) -> object:
        work = found.blob(key).upload_from_string
        return await asyncio.get_running_loop().run_in_executor(pool, lambda: work(DATA, retry=None))

    async def get(key: str) -> object:
        work = found.blob(key).download_as_bytes
        return await asyncio.get_running_loop().run_in_executor(pool, lambda: work(retry=None))

    return put, get


def _obstore(server: GcsBackend, bucket: str) -> Call:
    """Return get of obstore. It puts through the XML API, which the emulator lacks."""
    # The way to an emulator that its library has.
    key = {"gcs_base_url": server.endpoint, "disable_oauth": True, "client_email": "", "private_key": ""}
    config: Any = {"service_account_key": json.dumps(key | {"private_key_id": ""})}
    store = GCSStore(bucket, config=config, client_options={"allow_http": True})

    async def get(key: str) -> object:
        return await (await obstore.get_async(store, key)).bytes_async()

    return get


def _ours(binding: OutputBinding) -> tuple[Call, Call]:
    async def put(key: str) -> object:
        return await binding.invoke("create", DATA, metadata={"key": key})

    async def get(key: str) -> object:
        return (await binding.invoke("get", metadata={"key": key})).data

    return put, get


@asynccontextmanager
async def _server() -> AsyncIterator[GcsBackend]:
    url = os.environ.get("LAPEL_TEST_GCS")
    if url:
        yield attach(url, origin="LAPEL_TEST_GCS")
        return
    server = await asyncio.to_thread(GcsServer, guard().folder())
    await asyncio.to_thread(server.launch)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.kill)


async def run() -> list[Row]:
    """Measure in turns: ours, the SDK, obstore."""
    async with _server() as server:
        bucket = await asyncio.to_thread(server.make_bucket, "benchmark")
        settings = BucketSettings.parse({**server.properties, "bucket": bucket})
        with ThreadPoolExecutor(THREADS) as pool:
            async with OutputBinding(BucketBinding(settings, DriverContext(component="objects"))) as binding:
                return await _measure(_ours(binding), _sdk(server, bucket, pool), _obstore(server, bucket))


async def _measure(ours: tuple[Call, Call], sdk: tuple[Call, Call], other: Call) -> list[Row]:
    rows: list[Row] = []
    for name, *calls in (("put", ours[0], sdk[0]), ("get", ours[1], sdk[1], other)):
        rates: list[list[float]] = [[] for _ in calls]
        lags: list[list[float]] = [[] for _ in calls]
        for number in range(PAIRS + 1):
            measured = [await _rate(call, late) for call, late in zip(calls, lags, strict=True)]
            if number:  # the first round only opens connections
                for place, rate in enumerate(measured):
                    rates[place].append(rate)
        what = f"gcp.bucket {name} 10 KiB, {TASKS} tasks"
        ratio = median(one / two for one, two in zip(rates[0], rates[1], strict=True))
        rows.append(
            Row(
                name=f"{what}, against the SDK in {THREADS} threads",
                unit="op/s",
                ours=median(rates[0]),
                baseline=median(rates[1]),
                ratio=ratio,
                target=f"ratio >= {LEAST}",
                ok=ratio >= LEAST,
            )
        )
        if len(calls) > 2:
            rows.append(
                Row(
                    name=f"{what}: obstore, against ours",
                    unit="op/s",
                    ours=median(rates[2]),
                    baseline=median(rates[0]),
                    ratio=median(two / one for one, two in zip(rates[0], rates[2], strict=True)),
                    target="none",
                    ok=True,
                )
            )
        late = [sorted(each)[int(len(each) * 0.95)] * 1000 for each in lags]
        rows.append(
            Row(
                name=f"{what}: how late 95 % of the loop's turns are at most, against the SDK in threads",
                unit="ms",
                ours=late[0],
                baseline=late[1],
                ratio=late[0] / late[1],
                target="none",
                ok=True,
            )
        )
    return rows
