"""Measures how long the thread of an event loop works without a turn of the loop."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable

__all__ = ["Watched", "assert_never_held_up"]

ATTEMPTS = 5
"""Code that holds up the loop does so every time; a machine that does something else, only now and then."""


class Watched:
    """Measures the longest time that the thread of the loop spent between two of its turns, and counts those.

    Its own time counts, so that other programs on the machine do not; waiting in it is what blockbuster looks for. The
    garbage collector is off, for it would go through all that the other tests have left.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.turns = 0

    async def __aenter__(self) -> Watched:
        gc.disable()
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.sleep(0)
        gc.enable()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.thread_time() - before)
            self.turns += 1


async def assert_never_held_up(work: Callable[[], Awaitable[None]], seconds: float, *, turns: int = 0) -> None:
    """Do the work, and again while the loop was held up longer than that; each time it must have had so many turns."""
    measured: list[float] = []
    for _ in range(ATTEMPTS):
        async with Watched() as watched:
            await work()
        assert watched.turns >= turns
        measured.append(watched.longest)
        if watched.longest < seconds:
            return
    raise AssertionError(f"seconds that the loop was held up: {measured}")
