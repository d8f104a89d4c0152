"""One engine for all components of one database."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import msgspec

from lapel.driver import SharedClients

from .connection import SqliteOptions
from .engine import SqliteEngine

__all__ = ["EngineLease"]


class EngineLease:
    """A component's share in an engine. Components of one assembly with equal options and one file have the same.

    A private database in memory is not shared. `acquire` once, then `release`; not to be used again.
    """

    def __init__(self, options: SqliteOptions, shared: SharedClients) -> None:
        self._options = options
        self._shared = shared
        self._key: Hashable | None = None

    async def acquire(self) -> SqliteEngine:
        """Open the database, or join those who have. Raises as `SqliteEngine.open` does."""
        name = (await asyncio.to_thread(self._options.target)).key
        options = msgspec.structs.replace(self._options, connection_string=name or "")
        key = ("sqlite", options if name else self)
        engine = await self._shared.acquire(key, lambda: SqliteEngine.open(self._options), SqliteEngine.close)
        self._key = key
        return engine

    async def release(self) -> None:
        """Give the engine back; the last one closes it. Idempotent, and without effect when nothing was acquired."""
        key, self._key = self._key, None
        if key is not None:
            await self._shared.release(key)
