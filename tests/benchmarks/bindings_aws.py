"""bindings.aws.sqs and bindings.aws.s3 against the SDK used the ordinary way, and obstore on the same objects.

ElasticMQ and moto are processes of their own, and slow; what is compared is the work that each way gives them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from statistics import median
from typing import Any

import obstore
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from obstore.store import S3Store
from tests.backends.aws import AwsBackend, MotoServer
from tests.backends.elasticmq import ElasticMq
from tests.backends.guard import guard
from tests.benchmarks.rows import PAIRS, Row

import lapel
from lapel.bindings import BindingEvent, InputBinding, OutputBinding

TASKS = 64
SENT = 320
"""Messages of each run."""
OBJECTS = 128
DATA = b"m" * 100
OBJECT = b"o" * 10_240
HALF_MINUTE: Any = {"init_timeout": timedelta(seconds=30), "call_timeout": timedelta(seconds=30)}
Work = Callable[[int], Awaitable[object]]


async def rate(work: Work, count: int) -> float:
    """Return how much is done in a second, by `TASKS` tasks."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(TASKS):
            tasks.create_task(worker())
    return count / (time.perf_counter() - began)


def sdk(stack: AsyncExitStack, service: str, backend: AwsBackend, **config: Any) -> Awaitable[Any]:
    """Return a client of the SDK with a connection for each task."""
    properties = backend.properties
    return stack.enter_async_context(
        get_session().create_client(
            service,
            endpoint_url=properties["endpoint"],
            region_name=properties["region"],
            aws_access_key_id=properties["accessKey"],
            aws_secret_access_key=properties["secretKey"],
            config=AioConfig(max_pool_connections=TASKS, **config),
        )
    )


async def drain(sqs: Any, url: str) -> float:
    """Receive and delete in batches, one after the other."""
    left, began = SENT, time.perf_counter()
    while left:
        reply = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        messages = reply.get("Messages") or []
        entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
        if entries:
            await sqs.delete_message_batch(QueueUrl=url, Entries=entries)
        left -= len(messages)
    return SENT / (time.perf_counter() - began)


async def consume(binding: InputBinding) -> float:
    """Read as many events as were sent."""
    seen, done = 0, asyncio.Event()

    async def handle(event: BindingEvent) -> None:
        nonlocal seen
        seen += 1
        if seen == SENT:
            done.set()

    began = time.perf_counter()
    async with await binding.read(handle, concurrency=100):
        await done.wait()
        took = time.perf_counter() - began
    return SENT / took


async def measure_sqs(backend: AwsBackend) -> list[Row]:
    """Send with many tasks, and read what was sent."""
    async with AsyncExitStack() as stack:
        sqs = await sdk(stack, "sqs", backend)
        url = (await sqs.create_queue(QueueName="bench"))["QueueUrl"]
        settings = {**backend.properties, "queueName": "bench"}
        output: OutputBinding = await stack.enter_async_context(
            lapel.open_output_binding("aws.sqs", settings, **HALF_MINUTE)
        )
        source: InputBinding = await stack.enter_async_context(
            lapel.open_input_binding("aws.sqs", settings, **HALF_MINUTE)
        )

        async def ours(number: int) -> None:
            await output.invoke("create", DATA)

        async def bare(number: int) -> None:
            await sqs.send_message(QueueUrl=url, MessageBody=DATA.decode())

        sent, received = [], []
        for _ in range(PAIRS):
            mine = await rate(ours, SENT)
            read = await consume(source)
            other = await rate(bare, SENT)
            sent.append((mine, other))
            received.append((read, await drain(sqs, url)))
    return [
        row(f"bindings.aws.sqs, create with {TASKS} tasks against send_message", "messages/s", sent, 4.0),
        row("bindings.aws.sqs, reading against batches of ten, received and deleted", "messages/s", received, 0.8),
    ]


async def measure_s3(backend: AwsBackend) -> list[Row]:
    """Put and get with many tasks: ours, the SDK, and obstore."""
    async with AsyncExitStack() as stack:
        s3 = await sdk(stack, "s3", backend, s3={"addressing_style": "path"})
        await s3.create_bucket(Bucket="bench")
        properties = backend.properties
        settings = {**properties, "bucket": "bench", "forcePathStyle": "true"}
        binding: OutputBinding = await stack.enter_async_context(
            lapel.open_output_binding("aws.s3", settings, **HALF_MINUTE)
        )
        store = S3Store(
            "bench",
            endpoint=properties["endpoint"],
            region=properties["region"],
            access_key_id=properties["accessKey"],
            secret_access_key=properties["secretKey"],
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

        async def put(number: int) -> None:
            await binding.invoke("create", OBJECT, metadata={"key": str(number)})

        async def get(number: int) -> None:
            await (await binding.invoke("get", metadata={"key": str(number)})).read()

        async def bare_put(number: int) -> None:
            await s3.put_object(Bucket="bench", Key=str(number), Body=OBJECT)

        async def bare_get(number: int) -> None:
            await (await s3.get_object(Bucket="bench", Key=str(number)))["Body"].read()

        async def other_put(number: int) -> None:
            await obstore.put_async(store, str(number), OBJECT)

        async def other_get(number: int) -> None:
            await (await obstore.get_async(store, str(number))).bytes_async()

        ways = {"put": (put, bare_put, other_put), "get": (get, bare_get, other_get)}
        found: dict[str, list[list[float]]] = {name: [] for name in ways}
        for _ in range(PAIRS):
            for name, works in ways.items():
                found[name].append([await rate(work, OBJECTS) for work in works])
    rows = []
    for name, rates in found.items():
        title = f"bindings.aws.s3, {TASKS} concurrent {name}s of 10 KiB"
        rows.append(row(f"{title} against aiobotocore", "objects/s", [(one, two) for one, two, _ in rates], 0.9))
        rows.append(
            row(f"{title} by obstore against ours", "objects/s", [(three, one) for one, _, three in rates], None)
        )
    return rows


def row(name: str, unit: str, pairs: list[tuple[float, float]], target: float | None) -> Row:
    """Return a line of the table: the medians of both sides, and of their ratios."""
    ratio = median(ours / baseline for ours, baseline in pairs)
    return {
        "name": name,
        "unit": unit,
        "ours": median(ours for ours, _ in pairs),
        "baseline": median(baseline for _, baseline in pairs),
        "ratio": ratio,
        "target": "none" if target is None else f"ratio >= {target:g}",
        "ok": target is None or ratio >= target,
    }


async def run() -> list[Row]:
    """Measure both bindings, each on an emulator of its own."""
    rows: list[Row] = []
    for make, measure in ((ElasticMq, measure_sqs), (MotoServer, measure_s3)):
        folder = guard().folder()
        backend: AwsBackend = await asyncio.to_thread(make, folder)
        await asyncio.to_thread(backend.launch)
        try:
            rows += await measure(backend)
        finally:
            await asyncio.to_thread(backend.close)
    return rows
