"""Send and fetch an object of many MiB through the S3 binding, and print how much memory that took in KiB."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import sys
from collections.abc import AsyncIterator
from datetime import timedelta

import lapel

MIB = 1024 * 1024
CHUNK = bytes(range(256)) * 256


def peak() -> int:
    """Return the most memory that this process ever had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def main() -> None:
    """Do it as the arguments say: settings as JSON, and the number of MiB."""
    settings, count = json.loads(sys.argv[1]), int(sys.argv[2]) * MIB // len(CHUNK)
    sent, fetched = hashlib.sha256(), hashlib.sha256()

    async def content(chunks: int) -> AsyncIterator[bytes]:
        for _ in range(chunks):
            sent.update(CHUNK)
            yield CHUNK

    half_minute = timedelta(seconds=30)
    async with lapel.open_output_binding(
        "aws.s3", settings, init_timeout=half_minute, call_timeout=half_minute
    ) as binding:
        # What is loaded by the first use is no part of the object.
        await binding.invoke("create", content(MIB // len(CHUNK)), metadata={"key": "first"})
        await (await binding.invoke("get", metadata={"key": "first"}, stream=True)).read()
        sent = hashlib.sha256()
        before = peak()
        await binding.invoke("create", content(count), metadata={"key": "large"})
        up = peak()
        response = await binding.invoke("get", metadata={"key": "large"}, stream=True)
        assert response.data is not None
        assert not isinstance(response.data, bytes)
        async for chunk in response.data:
            fetched.update(chunk)
        print(json.dumps({"up": up - before, "down": peak() - before, "same": sent.digest() == fetched.digest()}))


if __name__ == "__main__":
    asyncio.run(main())
