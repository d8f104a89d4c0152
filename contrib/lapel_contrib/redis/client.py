"""The connections that all Redis components with the same settings share."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool

from lapel.coalesce import mark_not_sent
from lapel.driver import SharedClients
from lapel.errors import LapelError, UnavailableError

from .channel import Channel
from .endpoint import Endpoint
from .errors import ReplyError, translate
from .link import connection_arguments, connection_class
from .options import Address, RedisOptions
from .scripts import Argument, Call, Script, pack
from .tls import make_context
from .topology import SlotTable, find_primary, slot_of

__all__ = ["LARGE", "ClientLease", "RedisClient"]

LARGE = 64 * 1024
"""From this many bytes on a call uses a connection of the pool, so that it holds nobody up."""
REDIRECTIONS = 5

T = TypeVar("T")


class RedisClient:
    """Commands on a node, on the primary that sentinels name, or on a cluster.

    Nothing is sent twice, but what a server certainly did not do: a script that it did not know, a key of a slot that
    moved. Replies are RESP2: bytes, int, None, lists. Calls may overlap and belong to one event loop; they have no
    deadline but readTimeout, which ends the connection. All raise `UnavailableError` (nothing was done, or it only
    reads), `OutcomeUnknownError` (a write whose reply was lost), and what `errors.translate` makes of error replies.
    """

    def __init__(self, options: RedisOptions, tls: ssl.SSLContext | None) -> None:
        self.options = options
        self._tls = tls
        self._table = SlotTable(options, tls) if options.mode == "cluster" else None
        self._endpoints: dict[Address | None, Endpoint] = {}
        self._channels: set[Channel] = set()
        self._redis: Redis | None = None
        self._closing = False
        if self._table is None:
            self._single = self._endpoint(None)
            self.submit = self._single.pipeline.submit
        else:
            self.submit = self._submit_anywhere

    @classmethod
    async def open(cls, options: RedisOptions) -> RedisClient:
        """Connect and log in. Raises `UnavailableError`, `PermissionDeniedError`, `ConfigurationError`."""
        client = cls(options, await asyncio.to_thread(make_context, options) if options.tls else None)
        try:
            if client._table is None:
                await client._single.pipeline.connected()
            else:
                await client._table.refresh()
                first = client._table.primaries[:1]
                await client._endpoint(first[0] if first else None).pipeline.connected()
        except BaseException:
            await client.close()
            raise
        return client

    async def close(self) -> None:
        """End all connections, after at most two seconds for calls under way. Idempotent."""
        self._closing = True
        for channel in [*self._channels]:
            channel.close()
        if self._table is not None:
            await self._table.close()
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints.values()))
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.aclose()

    # what it is

    @property
    def place(self) -> str:
        """Names the server in error texts."""
        return self.options.place

    @property
    def cluster(self) -> bool:
        """Whether keys live in slots, so that a command takes keys of one slot only."""
        return self._table is not None

    @property
    def primaries(self) -> list[Address | None]:
        """The servers that hold the data, to be passed as `node`: those of a cluster, else only None."""
        return [None] if self._table is None else [*self._table.primaries]

    def node_of(self, key: str | bytes) -> Address | None:
        """Return the node of a cluster that serves a key; None otherwise, and when it is not known."""
        return None if self._table is None else self._table.address(slot_of(key))

    async def refresh(self) -> None:
        """Ask a cluster anew which node serves what; otherwise do nothing."""
        if self._table is not None:
            await self._table.refresh()

    # the shared connection

    submit: Callable[[Call, int], Coroutine[Any, Any, Any]]
    """`submit(call, size)` sends a `Call` with the next buffer and returns its reply, to be awaited at once.

    `size` is in bytes, less than `LARGE`. On a cluster all keys of the call must be in one slot."""

    def call(self, *command: Argument, key: str | bytes | None = None, writes: bool = True) -> Coroutine[Any, Any, Any]:
        """Send one command that does not block, and return its reply, to be awaited at once.

        `key` says where it goes on a cluster; None: to any node. `writes` false: it only reads.
        """
        keys = () if key is None else (key,)
        return self.submit(Call(None, keys, command, writes), 0)

    def run(
        self, script: Script, keys: Sequence[str | bytes], args: Sequence[Argument] = (), *, writes: bool = True
    ) -> Coroutine[Any, Any, Any]:
        """Run a script over keys of one slot and return its reply, to be awaited at once.

        With a stride: the reply of one key, a list for several, in which the error of a key is a `ReplyError` for
        `translate`.
        """
        return self.submit(Call(script, tuple(keys), tuple(args), writes), 0)

    def translate(self, error: ReplyError) -> LapelError:
        """Return the error of lapel for an error reply; raise it `from None`."""
        return translate(error, self.place, failover=self.options.mode == "sentinel")

    # connections of the pool

    async def apart(
        self,
        *commands: Sequence[Argument] | Call,
        key: str | bytes | None = None,
        node: Address | None = None,
        writes: bool = True,
        timeout: float | None = None,
    ) -> list[Any]:
        """Send commands in one go on a connection that no other call uses meanwhile; return the reply to each.

        For large values, scans, queries and `WAIT`. Error replies are `ReplyError` objects in the list. On a cluster
        `key`, or `node`, one of `primaries`, says where they go. `timeout` in seconds takes the place of readTimeout.
        What follows a script may be sent twice, so it must do no harm then.
        """
        if timeout is None:
            timeout = self.options.read_timeout
        slot = None if key is None or self._table is None else slot_of(key)
        asked: Address | None = None
        replies: list[Any] = []
        for _ in range(REDIRECTIONS):
            home = await self._home(slot, node)
            try:
                replies = await _exchange(home, commands, writes, timeout, asked)
            except UnavailableError:
                if not await self._moved_away(slot):
                    raise
                continue
            moved = replies[0]
            if self._table is None or slot is None or not (_is(moved, "MOVED") or _is(moved, "ASK")):
                break
            target = _target(moved, home.host if asked is None else asked[0])
            asked = target if moved.code == "ASK" else None
            if asked is None:
                self._table.move(slot, target)
        if not replies:
            raise UnavailableError(f"{self.place}: slot {slot} keeps moving; nothing was done")
        if self.options.mode == "sentinel" and any(_is(reply, "READONLY") for reply in replies):
            self._single.forget_idle()
        return replies

    async def channel(self, key: str | bytes | None = None) -> Channel:
        """Open a connection of the caller's own, for commands that block. The caller closes it.

        On a cluster it leads to the node of `key`, and is to be replaced when that changes.
        """
        slot = None if key is None or self._table is None else slot_of(key)
        home = await self._home(slot, None)
        channel = Channel(await home.connect(), home.place, self._channels.discard)
        self._channels.add(channel)
        return channel

    # redis-py

    async def subscriber(self, node: Address | None = None) -> Redis:
        """Return a client of redis-py for subscriptions, with connections of its own; the caller closes it.

        It leads to the primary as it is now, on a cluster to `node`; after a failover ask for another one. Nothing is
        repeated by it, reads have no time-out of their own.
        """
        address = node or await self._address(None)
        arguments = connection_arguments(self.options, self._tls)
        pool = ConnectionPool(
            connection_class=connection_class(self._tls), host=address[0], port=address[1], **arguments
        )
        return Redis.from_pool(pool)

    def unwrap(self, kind: type[T]) -> T | None:
        """Return a `redis.asyncio.Redis` with connections of its own, closed with this client; None for other classes.

        Only for a single node. Nothing is repeated by it.
        """
        if kind is not Redis or self.options.mode != "node":
            return None
        if self._redis is None:
            host, port = self.options.hosts[0]
            arguments = connection_arguments(self.options, self._tls) | {"socket_timeout": self.options.read_timeout}
            self._redis = Redis.from_pool(
                ConnectionPool(connection_class=connection_class(self._tls), host=host, port=port, **arguments)
            )
        return self._redis  # type: ignore[return-value]  # `kind` is its class

    # inside

    def _endpoint(self, address: Address | None) -> Endpoint:
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            place = self.place if address is None else f"Redis node {address[0]}:{address[1]}"
            endpoint = Endpoint(self.options, self._tls, partial(self._address, address), place, self._look_around)
            # Nodes of a cluster come and go, under ever new addresses.
            for other in [one for one in self._endpoints if one and self._table and not self._table.knows(one)]:
                if self._endpoints[other].leave():
                    del self._endpoints[other]
            self._endpoints[address] = endpoint
        return endpoint

    async def _address(self, address: Address | None) -> Address:
        if address is not None:
            return address
        if self.options.mode == "sentinel":
            return await find_primary(self.options, self._tls)
        if self._table is not None:
            return (self._table.primaries or list(self.options.hosts))[0]
        return self.options.hosts[0]

    async def _home(self, slot: int | None, node: Address | None) -> Endpoint:
        if self._table is None:
            return self._single
        if slot is None:
            return self._endpoint(node or await self._address(None))
        address = self._table.address(slot)
        if address is None:
            await self._table.refresh()
            address = self._table.address(slot)
            if address is None:
                raise UnavailableError(f"{self.place}: no node serves slot {slot}; nothing was done")
        return self._endpoint(address)

    async def _submit_anywhere(self, call: Call, size: int = 0) -> Any:
        """Submit on a cluster, where the answer may be that another node serves the key."""
        assert self._table is not None
        slot = slot_of(call.keys[0]) if call.keys else None
        redirection: ReplyError | None = None
        for _ in range(REDIRECTIONS):
            try:
                home = await self._home(slot, None)
            except CancelledError as exc:
                mark_not_sent(exc)
                raise
            try:
                return await home.pipeline.submit(call, size)
            except ReplyError as exc:
                redirection = exc
            except UnavailableError:
                if home.pipeline.link is not None or not await self._moved_away(slot):
                    raise
                continue
            if slot is None:
                break
            if redirection.code == "ASK":
                return await self._ask_elsewhere(home, call, _target(redirection, home.host))
            self._table.move(slot, _target(redirection, home.host))
        assert redirection is not None
        raise self.translate(redirection) from None

    def _look_around(self) -> None:
        """Have the slots looked up, whether or not a caller stays to wait for it."""
        if self._table is not None and not self._closing:
            self._table.start_refresh()

    async def _moved_away(self, slot: int | None) -> bool:
        """Look, after a node gave no answer, whether another one serves the slot now."""
        if self._table is None:
            return False
        before = None if slot is None else self._table.address(slot)
        with suppress(LapelError):
            await self._table.refresh()
        return slot is not None and self._table.address(slot) != before

    async def _ask_elsewhere(self, home: Endpoint, call: Call, address: Address) -> Any:
        (reply,) = await _exchange(home, (call,), call.writes, self.options.patience, address)
        if type(reply) is list and call.script is not None and call.script.stride is not None and len(call.keys) == 1:
            reply = reply[0]
        if isinstance(reply, ReplyError):
            raise self.translate(reply) from None
        return reply


class ClientLease:
    """A component's share in a client. Components of one assembly with equal options have the same.

    `acquire` once, then `release`; not to be used again.
    """

    def __init__(self, options: RedisOptions, shared: SharedClients) -> None:
        self._options = options
        self._shared = shared
        self._key: Hashable | None = None

    async def acquire(self) -> RedisClient:
        """Connect, or join those who have. Raises as `RedisClient.open` does."""
        key = ("redis", self._options)
        client = await self._shared.acquire(key, lambda: RedisClient.open(self._options), RedisClient.close)
        self._key = key
        return client

    async def release(self) -> None:
        """Give the client back; the last one closes it. Idempotent, and without effect when nothing was acquired."""
        key, self._key = self._key, None
        if key is not None:
            await self._shared.release(key)


_ASKING = pack(("ASKING",))


def _packed(command: Sequence[Argument] | Call, *, in_full: bool = False) -> bytes:
    return command.pack(in_full=in_full) if isinstance(command, Call) else pack(command)


async def _exchange(
    home: Endpoint,
    commands: Sequence[Sequence[Argument] | Call],
    writes: bool,
    timeout: float | None,
    asked: Address | None,
) -> list[Any]:
    """Send commands on a connection of the pool, scripts in full where the server did not know them.

    With an unknown script all that follows it is sent again, because it was meant to come after: `WAIT` for what the
    script writes, for one. So nothing that must not be done twice may follow a script.
    """
    prefix = b"" if asked is None else _ASKING
    each = 1 if asked is None else 2
    replies: list[Any] = [None] * len(commands)
    waiting, in_full = list(range(len(commands))), False
    while waiting:
        packed = [prefix + _packed(commands[number], in_full=in_full) for number in waiting]
        answers = await home.exchange(packed, count=each * len(packed), writes=writes, timeout=timeout, address=asked)
        for number, answer in zip(waiting, answers[each - 1 :: each], strict=True):
            replies[number] = answer
        unknown = [number for number in waiting if _is(replies[number], "NOSCRIPT")]
        waiting = list(range(unknown[0], len(commands))) if unknown and not in_full else []
        in_full = True
    return replies


def _is(reply: Any, code: str) -> bool:
    return type(reply) is ReplyError and reply.code == code


def _target(redirection: ReplyError, answered: str) -> Address:
    """Read `MOVED 3999 127.0.0.1:6381`; without a host it is the one that `answered`."""
    host, _, port = str(redirection).split(" ")[2].rpartition(":")
    return host or answered, int(port)
