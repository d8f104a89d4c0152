"""Send an object through the binding and read it back, and print how much more memory that took: a program of its own.

Arguments: endpoint, bucket, size in MiB. Prints the growth of the peak in KiB for each direction, as JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import sys
from collections.abc import AsyncIterator

from lapel.bindings import OutputBinding
from lapel.driver import DriverContext
from lapel_contrib.gcp.bucket import BucketBinding
from lapel_contrib.gcp.component_settings import BucketSettings

MIB = 1024 * 1024


def peak() -> int:
    """Return the most memory that this process ever had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def main(endpoint: str, bucket: str, size: int) -> dict[str, int]:
    settings = BucketSettings.parse({"projectID": "shop", "endpoint": endpoint, "bucket": bucket})
    sent, received = hashlib.sha256(), hashlib.sha256()
    grown: dict[str, int] = {}

    async def stream() -> AsyncIterator[bytes]:
        for number in range(size):
            chunk = number.to_bytes(4, "big") * (MIB // 4)
            sent.update(chunk)
            yield chunk

    async with OutputBinding(BucketBinding(settings, DriverContext(component="objects"))) as binding:
        # What every first call needs: connections, threads, lazy imports.
        await binding.invoke("create", b"x", metadata={"key": "first"})
        await binding.invoke("get", metadata={"key": "first"})
        before = peak()
        await binding.invoke("create", stream(), metadata={"key": "large"})
        grown["create"] = peak() - before
        for operation, name in (("get", "get"), ("bulkGet", "bulkGet")):
            before = peak()
            metadata = {"key": "large"} if operation == "get" else {}
            response = await binding.invoke(operation, metadata=metadata, stream=True)
            assert isinstance(response.data, AsyncIterator)
            async for chunk in response.data:
                if operation == "get":
                    received.update(chunk)
            grown[name] = peak() - before
    assert sent.digest() == received.digest()
    return grown


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
