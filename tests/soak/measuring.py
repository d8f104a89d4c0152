"""What a process holds, and whether that grows."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Sample", "growth", "sample"]

_PAGE = os.sysconf("SC_PAGE_SIZE")

MOST_OBJECTS = 1000
"""How many more objects there may be at the end, whatever the work done: caches of the interpreter and of libraries."""
MOST_BYTES = 6 * 1024 * 1024
MOST_FILES = 10
"""How many more files: a pool may have filled up."""


@dataclass(frozen=True)
class Sample:
    """What was held at one moment at which no call was under way."""

    operations: int
    objects: int
    bytes: int
    tasks: int
    files: int


async def sample(operations: int) -> Sample:
    """Return what this process holds now, after so many operations."""
    await asyncio.sleep(0.05)
    return await asyncio.to_thread(_look, operations, len(asyncio.all_tasks()))


def _look(operations: int, tasks: int) -> Sample:
    gc.collect()
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(operations, len(gc.get_objects()), pages * _PAGE, tasks, len(os.listdir("/proc/self/fd")))


def growth(samples: Sequence[Sample], *, files: int = MOST_FILES, tasks: int = 0) -> list[str]:
    """Return what has grown from the end of the first third on, which is left to warming up, to the last sample.

    `files` and `tasks` are how many more of them there may be, for pools that fill up when there is much to do at once.
    """
    first, last = samples[len(samples) // 3], samples[-1]
    allowed = {"objects": MOST_OBJECTS, "bytes": MOST_BYTES, "tasks": tasks, "files": files}
    return [
        f"{last.operations - first.operations} operations left {after - before} more {what} behind"
        for what, most in allowed.items()
        if (after := getattr(last, what)) - (before := getattr(first, what)) > most
    ]
