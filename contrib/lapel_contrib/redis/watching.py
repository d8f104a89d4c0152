"""Keyspace notifications, as signs that configuration items may have changed."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from lapel.configuration import Watcher
from lapel.errors import LapelError, UnavailableError

from .client import RedisClient
from .errors import unreachable
from .options import Address

__all__ = ["POLL_SECONDS", "REVIEW_SECONDS", "RedisWatcher", "merge_flags"]

POLL_SECONDS = 5.0
"""How often items are read where the server does not notify."""
REVIEW_SECONDS = 60.0
"""How often they are read all the same where it does."""
SILENCE_SECONDS = 5.0
"""After this long without a notification the server is asked whether it is there; it has as long again to answer."""

GATHER_SECONDS = 0.1
"""How long a subscription to all keys collects notifications, for each reading is a scan of the whole database."""

NEEDED = "Kg$xe"
"""Keyspace channels; commands on keys of any type, on texts; expiry and eviction."""
_ALL = "g$lshzxetd"
"""What the server means by `A`."""


class RedisWatcher(Watcher):
    """One connection to each primary, subscribed to the channels of the keys, or of all keys when there are none.

    `polls` says, after `arm`, why notifications cannot be relied upon; then `changed` returns every `POLL_SECONDS` at
    the latest. It is empty when they can.
    """

    def __init__(self, client: RedisClient, keys: Sequence[str]) -> None:
        self.polls = ""
        self._client = client
        database = client.options.database if not client.cluster else 0
        self._command = ("SUBSCRIBE", *(f"__keyspace@{database}__:{key}" for key in keys))
        self._every_key = not keys
        if not keys:
            self._command = ("PSUBSCRIBE", f"__keyspace@{database}__:*")
        self._nodes: list[Address | None] = []
        self._connections: list[AbstractConnection] = []
        self._listeners: list[asyncio.Task[None]] = []
        self._signal = asyncio.Event()
        self._failure: LapelError | None = None
        self._review_at = 0.0

    async def arm(self) -> None:
        """Subscribe on every primary. Raises `UnavailableError`; the watcher is then to be closed."""
        await self._client.refresh()
        self._nodes = self._client.primaries
        for node in self._nodes:
            await self._listen_to(node)
        self._review_at = asyncio.get_running_loop().time() + REVIEW_SECONDS

    async def changed(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + POLL_SECONDS if self.polls else self._review_at
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._signal.wait()
        if self._failure is not None:
            raise self._failure
        if self._every_key and self._signal.is_set():
            await asyncio.sleep(GATHER_SECONDS)
        if loop.time() >= self._review_at:
            await self._client.refresh()
            if set(self._client.primaries) != set(self._nodes):
                raise UnavailableError(f"{self._client.place}: has other primaries than before; subscribing anew")
            self._review_at = loop.time() + REVIEW_SECONDS
        self._signal.clear()

    async def close(self) -> None:
        listeners, self._listeners = self._listeners, []
        connections, self._connections = self._connections, []
        for listener in listeners:
            listener.cancel()
        # First, and without waiting for anything, so that no cancellation comes in between.
        for connection in connections:
            with suppress(RedisError, OSError, TimeoutError):
                await connection.disconnect(nowait=True)
        if listeners:
            await asyncio.wait(listeners)

    async def _listen_to(self, node: Address | None) -> None:
        place = self._client.place if node is None else f"Redis node {node[0]}:{node[1]}"
        owner = await self._client.subscriber(node)
        connection = owner.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py leaves it so
        self._connections.append(connection)
        limit = self._client.options.patience
        try:
            await connection.connect()
            async with asyncio.timeout(limit):
                reason = await _turn_on(connection, place)
                refusal = await self._subscribe(connection, place)
        except (RedisError, OSError, TimeoutError) as exc:
            raise unreachable(place, exc) from None
        self.polls = self.polls or refusal or reason
        if not refusal:
            listening = self._listen(connection, place)
            # Not in the context of the caller: it outlives the call.
            self._listeners.append(asyncio.create_task(listening, name="lapel redis watcher", context=Context()))

    async def _subscribe(self, connection: AbstractConnection, place: str) -> str:
        """Subscribe and wait for the confirmation of each channel; return why it was refused, empty when not."""
        await connection.send_command(*self._command)
        for _ in self._command[1:]:
            try:
                await connection.read_response(disconnect_on_error=False)
            except ResponseError:
                return f"{place} refuses {self._command[0]}; allow the user the channels '__keyspace@*'"
        return ""

    async def _listen(self, connection: AbstractConnection, place: str) -> None:
        """Pass on notifications until the connection ends or falls silent."""
        asked = False
        try:
            while True:
                message = await connection.read_response(timeout=SILENCE_SECONDS, disconnect_on_error=False)
                if message is not None:
                    asked = False
                    if message[0] in (b"message", b"pmessage"):
                        self._signal.set()
                elif asked:
                    raise TimeoutError
                else:
                    asked = True
                    await connection.send_command("PING", check_health=False)
        except CancelledError:
            raise
        except (RedisError, OSError, TimeoutError) as exc:
            reason = "gives no more signs of life" if isinstance(exc, TimeoutError) else "closed the connection"
            self._failure = UnavailableError(f"{place}: {reason}; changes are looked for on a new one")
            self._signal.set()


def merge_flags(present: str) -> str:
    """Return the value of `notify-keyspace-events` that adds what is missing to what is there."""
    known = present + (_ALL if "A" in present else "")
    return present + "".join(flag for flag in NEEDED if flag not in known)


async def _turn_on(connection: AbstractConnection, place: str) -> str:
    """Make a server notify; return why it may not, empty when it does."""
    try:
        _, present = await _ask(connection, "CONFIG", "GET", "notify-keyspace-events")
        flags = present.decode()
        merged = merge_flags(flags)
        if merged != flags:
            await _ask(connection, "CONFIG", "SET", "notify-keyspace-events", merged)
    except (ResponseError, ValueError):
        return (
            f"{place} does not let the user read and set notify-keyspace-events; allow it CONFIG, or set the field to "
            f"{NEEDED} or more and allow CONFIG GET"
        )
    return ""


async def _ask(connection: AbstractConnection, *command: str) -> Any:
    await connection.send_command(*command)
    return await connection.read_response(disconnect_on_error=False)
