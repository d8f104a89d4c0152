"""Open AWS components and make their first calls, and print how long the event loop was held up for, in milliseconds.

What counts is the processor time of the loop's thread between two turns, so that other processes do not count.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta
from typing import Any

import lapel


async def main() -> None:
    """Do it with the settings of the first argument; `bucket` and `queueName` have to be there."""
    settings: dict[str, str] = json.loads(sys.argv[1])
    bucket, queue = settings.pop("bucket"), settings.pop("queueName")
    half_minute: Any = {"init_timeout": timedelta(seconds=30), "call_timeout": timedelta(seconds=30)}
    # What lapel itself does when its first component is opened is not what is measured here.
    async with (
        lapel.open_secret_store("local.env"),
        lapel.open_state("in-memory"),
        lapel.open_pubsub("in-memory") as bus,
    ):
        await bus.publish("first", b"x")
    async with lapel.open_output_binding("localstorage", {"rootPath": settings.pop("folder")}) as files:
        await files.invoke("list")
    held = [0.0]
    loop = asyncio.get_running_loop()
    before = [time.thread_time()]

    def turn() -> None:
        now = time.thread_time()
        held.append(now - before[0])
        before[0] = now
        loop.call_later(0.0005, turn)

    turn()
    async with (
        lapel.open_secret_store("aws.secretmanager", settings, **half_minute),
        lapel.open_secret_store("aws.parameterstore", settings, **half_minute),
        lapel.open_output_binding(
            "aws.s3", {**settings, "bucket": bucket, "forcePathStyle": "true"}, **half_minute
        ) as s3,
        lapel.open_output_binding("aws.sqs", {**settings, "queueName": queue}, **half_minute) as sqs,
        lapel.open_pubsub("aws.snssqs", settings, **half_minute) as bus,
    ):
        await s3.invoke("create", b"x" * 100_000, metadata={"key": "k"})
        await s3.invoke("get", metadata={"key": "k"})
        await s3.invoke("presign", metadata={"key": "k", "presignTTL": "1m"})
        await sqs.invoke("create", b"x")
        await bus.publish("lag", b"x")
    print(json.dumps(max(held) * 1000))


if __name__ == "__main__":
    asyncio.run(main())
