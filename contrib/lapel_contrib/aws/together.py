"""The same work done by several tasks at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["together"]


async def together(work: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
    """Run so many of the same worker at once; the first error ends the others and is raised."""
    workers = [asyncio.ensure_future(work()) for _ in range(count)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
