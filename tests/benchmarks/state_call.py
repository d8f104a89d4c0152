"""What `StateStore` adds to a driver's own call: checks, prefix, deadline, policy, telemetry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from typing import Any

from lapel.driver import DriverContext
from lapel.state import GetRequest, SetRequest, StateStore
from lapel.state.driver import StateDriver
from lapel.state.types import DeleteRequest, StateItem
from lapel_contrib.memory import STATE
from lapel_contrib.memory.settings import MemoryStateSettings
from lapel_contrib.memory.state import MemoryState

CALLS = 4000
PAIRS = 7


class Suspending(StateDriver[MemoryStateSettings]):
    """Gives the event loop one turn in every call, as a driver does that waits for a reply."""

    descriptor = STATE
    _item = StateItem(data=b"value", etag="1")

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def get(self, request: GetRequest) -> StateItem | None:
        """Return the same item always."""
        await asyncio.sleep(0)
        return self._item

    async def set(self, request: SetRequest) -> str | None:
        """Store nothing."""
        await asyncio.sleep(0)
        return "1"

    async def delete(self, request: DeleteRequest) -> None:
        """Do nothing."""


async def _microseconds(call: Callable[[], Awaitable[Any]]) -> float:
    # Nothing here waits for anything, and the processor time of the thread leaves out what other programs take.
    started = time.thread_time()
    for _ in range(CALLS):
        await call()
    return (time.thread_time() - started) / CALLS * 1e6


async def _compare(
    name: str, ours: Callable[[], Awaitable[Any]], base: Callable[[], Awaitable[Any]], target: float
) -> dict[str, Any]:
    pairs = [(await _microseconds(ours), await _microseconds(base)) for _ in range(PAIRS)]
    overhead = median(mine - bare for mine, bare in pairs)
    mine, bare = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    return {
        "name": name,
        "unit": "us/call",
        "ours": mine,
        "baseline": bare,
        "ratio": mine / bare,
        "overhead": overhead,
        "target": f"overhead <= {target:g} us",
        "ok": overhead <= target,
    }


async def run() -> list[dict[str, Any]]:
    """Return one row for each operation and kind of driver; times are microseconds, medians of interleaved pairs."""
    rows = []
    for kind, driver_class, target in (("non-suspending", MemoryState, 2.0), ("suspending", Suspending, 3.0)):
        driver = driver_class(MemoryStateSettings(), DriverContext(component="bench"))
        async with StateStore(driver) as store:
            await store.set("key", b"value")
            get, put = partial(driver.get, GetRequest("key")), partial(driver.set, SetRequest("key", b"value"))
            rows += [
                await _compare(f"StateStore.get, {kind} driver", partial(store.get, "key"), get, target),
                await _compare(f"StateStore.set, {kind} driver", partial(store.set, "key", b"value"), put, target),
            ]
    return rows


if __name__ == "__main__":
    for row in asyncio.run(run()):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
