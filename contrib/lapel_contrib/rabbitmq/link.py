"""A connection that comes back: made once by its owner, made again whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from contextvars import Context

from lapel.errors import ClosedError, LapelError, UnavailableError

from .connection import Connection
from .errors import unreachable
from .options import RabbitOptions

__all__ = ["Link"]

CONNECT_SECONDS = 4.0
"""How long connecting may take, over all hosts; less than `initTimeout`, so that the error can say what is wrong."""
WAIT_SECONDS = 3.0
"""How long a call waits for a connection that is being made again; less than the deadline of a call."""

FIRST_PAUSE = 0.1


class Link:
    """Holds one connection. From `open` to `close` it is restored after every loss, without end.

    The hosts are tried in random order, so that clients spread over a cluster. What was on the old connection, channels
    and consumers, is gone; whoever had them makes them again.
    """

    def __init__(
        self, options: RabbitOptions, context: ssl.SSLContext | None, role: str, logger: logging.Logger
    ) -> None:
        self.place = options.place
        self.reconnects = 0
        self._options = options
        self._context = context
        self._name = f"{options.client_name or 'lapel'} {role}"
        self._logger = logger
        self._connection: Connection | None = None
        self._failure: LapelError | None = None
        self._turn = asyncio.Lock()
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Connect, unless that was done. One attempt. Raises `UnavailableError` or `PermissionDeniedError`."""
        async with self._turn:
            if self._closed:
                raise ClosedError(f"{self.place}: the connection was closed")
            if self._keeper is not None:
                return
            self._connection = await self._connect()
            self._up.set()
            # An empty context: this connection belongs to no caller.
            self._keeper = asyncio.get_running_loop().create_task(
                self._keep(self._connection), name=f"lapel keep {self.place}", context=Context()
            )

    async def connection(self) -> Connection:
        """Return the connection, after a short wait for one that is being made again.

        Raises `UnavailableError` with the reason when there is none.
        """
        connection = self._connection
        if connection is not None and connection.usable:
            return connection
        if self._keeper is None:
            await self.open()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while (connection := self._connection) is None or not connection.usable:
                    if self._closed:
                        raise ClosedError(f"{self.place}: the connection was closed")
                    self._up.clear()
                    await self._up.wait()
                return connection
        except TimeoutError:
            reason = f"{self.place}: not connected; nothing was done"
            raise UnavailableError(self._failure.message if self._failure else reason) from None

    async def ask(self) -> None:
        """Return when the broker has given a sign of life."""
        await (await self.connection()).ask()

    def now(self) -> Connection | None:
        """Return the connection in use; None when there is none at the moment."""
        return self._connection if self._connection is not None and self._connection.usable else None

    async def close(self) -> None:
        """End the connection, and whatever restores it. Bounded."""
        self._closed = True
        self._up.set()
        async with self._turn:
            keeper, self._keeper = self._keeper, None
            if keeper is not None:
                keeper.cancel()
                await asyncio.wait((keeper,))
            connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connect(self) -> Connection:
        hosts = random.sample(self._options.hosts, len(self._options.hosts))
        seconds = max(CONNECT_SECONDS / len(hosts), 0.5)
        failure: LapelError | None = None
        for address in hosts:
            try:
                return await Connection.open(self._options, self._context, address, self._name, seconds)
            except LapelError as exc:
                failure = exc
        assert failure is not None
        raise failure

    async def _keep(self, connection: Connection) -> None:
        while True:
            try:
                await connection.watch()
            except Exception as exc:
                # Whatever it is: a keeper that ends would leave everybody without a connection for ever.
                self._logger.error("%s: the connection cannot be watched: %s", self.place, type(exc).__name__)
                connection.abort()
            self._connection = None
            self._logger.warning("%s: the connection was lost and is made again", self.place)
            connection = self._connection = await self._restore()
            self._failure = None
            self.reconnects += 1
            self._up.set()
            self._logger.info("%s: connected again", self.place)

    async def _restore(self) -> Connection:
        longest = max(self._options.reconnect_wait, FIRST_PAUSE)
        pause = FIRST_PAUSE
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
            pause = min(pause * 2, longest)
            try:
                return await self._connect()
            except Exception as exc:
                failure = exc if isinstance(exc, LapelError) else unreachable(self.place, exc)
                if self._failure is None or failure.message != self._failure.message:
                    self._logger.warning("%s", failure.message)
                self._failure = failure
