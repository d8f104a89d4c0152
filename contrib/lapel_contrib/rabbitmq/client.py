"""What the components of one broker share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable

from lapel.driver import SharedClients

from .errors import translating
from .link import Link
from .options import RabbitOptions
from .publisher import Publishers
from .tls import make_context

__all__ = ["ClientLease", "RabbitClient"]


class RabbitClient:
    """Two connections to one broker, one that publishes and one that consumes.

    A broker under alarm stops reading from those that publish, and consumers must still be able to acknowledge. The one
    for consumers is made when it is first needed.
    """

    def __init__(self, publishing: Link, consuming: Link) -> None:
        self.publishing = publishing
        self.consuming = consuming
        self.publishers = Publishers(publishing)

    @classmethod
    async def open(cls, options: RabbitOptions, logger: logging.Logger) -> RabbitClient:
        """Connect. Raises `UnavailableError`, `PermissionDeniedError` or `ConfigurationError`, and leaves nothing."""
        context = await asyncio.to_thread(make_context, options)
        client = cls(Link(options, context, "publishing", logger), Link(options, context, "consuming", logger))
        try:
            await client.publishing.open()
        except BaseException:
            await client.publishing.close()
            raise
        return client

    @property
    def place(self) -> str:
        """The server, for texts."""
        return self.publishing.place

    async def ping(self) -> None:
        """Return when the broker has answered."""
        async with translating(self.place, "a ping"):
            await self.publishing.ask()

    async def close(self) -> None:
        """End both connections. Bounded."""
        await asyncio.gather(self.publishing.close(), self.consuming.close())


class ClientLease:
    """A component's share in a client. Components of one assembly with equal options have the same.

    `acquire` once, then `release`; not to be used again.
    """

    def __init__(self, options: RabbitOptions, shared: SharedClients, logger: logging.Logger) -> None:
        self._options = options
        self._shared = shared
        self._logger = logger
        self._key: Hashable | None = None

    async def acquire(self) -> RabbitClient:
        """Connect, or join those who have. Raises as `RabbitClient.open` does."""
        key = ("rabbitmq", self._options)
        client = await self._shared.acquire(
            key, lambda: RabbitClient.open(self._options, self._logger), RabbitClient.close
        )
        self._key = key
        return client

    async def release(self) -> None:
        """Give the client back; the last one closes it. Idempotent, and without effect when nothing was acquired."""
        key, self._key = self._key, None
        if key is not None:
            await self._shared.release(key)
