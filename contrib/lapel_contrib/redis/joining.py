"""Work that several callers wait for."""

from __future__ import annotations

import asyncio

from lapel.coalesce import duplicate

__all__ = ["join"]


async def join(task: asyncio.Task[None]) -> None:
    """Wait for a task that others may wait for too; a caller's cancellation leaves it alone.

    Each caller gets a copy of what it raised, because components write their own name into what reaches them.
    """
    await asyncio.wait((task,))
    if task.cancelled():
        raise asyncio.CancelledError
    error = task.exception()
    if isinstance(error, Exception):
        error = duplicate(error)
    if error is not None:
        raise error
