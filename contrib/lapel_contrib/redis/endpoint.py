"""One server: the connection that everybody shares, and a pool for what would hold it up."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lapel.coalesce import mark_not_sent
from lapel.errors import ClosedError, UnavailableError

from .errors import lost
from .link import Link, LinkLostError, open_link
from .options import Address, RedisOptions
from .pipeline import Pipeline

__all__ = ["Endpoint"]


class Endpoint:
    """A server that takes commands; `resolve` tells its address each time a connection is made."""

    def __init__(
        self,
        options: RedisOptions,
        tls: ssl.SSLContext | None,
        resolve: Callable[[], Awaitable[Address]],
        place: str,
        on_trouble: Callable[[], None],
    ) -> None:
        self.place = place
        self._options = options
        self._tls = tls
        self._resolve = resolve
        self._idle: list[Link] = []
        self._busy: set[Link] = set()
        self._free = asyncio.Semaphore(options.pool_size)
        self._closed = False
        self.host = ""
        """The host of the latest connection."""
        self.pipeline = Pipeline(
            self.connect,
            place=place,
            timeout=options.patience,
            merge=options.mode != "cluster",
            failover=options.mode == "sentinel",
            redirections=options.mode == "cluster",
            on_trouble=on_trouble,
        )

    async def connect(self) -> Link:
        """Open a further connection, which the caller closes. Raises `UnavailableError`, `PermissionDeniedError`."""
        address = await self._resolve()
        self.host = address[0]
        return await open_link(address, self._options, self._tls)

    async def exchange(
        self,
        commands: Sequence[bytes],
        *,
        count: int,
        writes: bool,
        timeout: float | None,
        address: Address | None = None,
    ) -> list[Any]:
        """Send packed commands on a connection of the pool; return `count` replies, error replies as `ReplyError`.

        Raises `UnavailableError` when no connection is free in time or can be made, `ClosedError`, and what `lost`
        makes. `address` sends them to another server of the cluster, on a connection for this once.
        """
        sent = False
        try:
            try:
                async with asyncio.timeout(self._options.pool_timeout):
                    await self._free.acquire()
            except TimeoutError:
                raise UnavailableError(
                    f"{self.place}: all {self._options.pool_size} connections for large values and scans were busy for "
                    f"{self._options.pool_timeout:g} s (poolTimeout); nothing was done. Raise poolSize"
                ) from None
            try:
                link = await self._take(address)
                sent = True
                return await self._use(link, b"".join(commands), count, writes, timeout, keep=address is None)
            finally:
                self._free.release()
        except asyncio.CancelledError as exc:
            if not sent:
                mark_not_sent(exc)
            raise

    def forget_idle(self) -> None:
        """Close the connections of the pool that are not in use: the server is not the primary any more."""
        while self._idle:
            self._idle.pop().close()

    def leave(self) -> bool:
        """Let go of a node that has left the cluster, unless something is under way; tell whether it is gone."""
        if self._busy or self.pipeline.busy:
            return False
        self.forget_idle()
        if self.pipeline.link is not None:
            self.pipeline.link.close()
        return True

    async def close(self) -> None:
        """Close all connections. Bounded and idempotent."""
        self._closed = True
        await self.pipeline.close()
        for link in [*self._idle, *self._busy]:
            link.close()
        self._idle.clear()

    async def _take(self, address: Address | None) -> Link:
        if self._closed:
            raise ClosedError(f"{self.place}: the client is closed; nothing was done")
        if address is not None:
            return await open_link(address, self._options, self._tls)
        now, limit = asyncio.get_running_loop().time(), self._options.idle_timeout
        while self._idle:
            link = self._idle.pop()
            if link.open and (limit is None or now - link.used_at < limit):
                return link
            link.close()
        return await self.connect()

    async def _use(
        self, link: Link, buffer: bytes, count: int, writes: bool, timeout: float | None, *, keep: bool
    ) -> list[Any]:
        self._busy.add(link)
        try:
            return await link.send(buffer, count, timeout)
        except LinkLostError as exc:
            raise lost(self.place, writes=writes, timed_out=exc.timed_out) from None
        finally:
            self._busy.discard(link)
            # One whose replies nobody waits for any more may be busy for long.
            if keep and link.open and link.idle and not self._closed:
                link.used_at = asyncio.get_running_loop().time()
                self._idle.append(link)
            else:
                link.close()
