"""lock.redis."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TypeVar

from lapel.driver import DriverContext
from lapel.errors import ConfigurationError, InvalidArgumentError, OperationFailedError
from lapel.lock import LockDriver, LockGrant, RenewRequest, TryLockRequest, UnlockRequest, UnlockStatus
from lapel.policy import RetryPolicy

from . import LOCK
from .client import ClientLease, RedisClient
from .component_settings import RedisLockSettings
from .scripts import Script
from .state_items import count_replicas
from .topology import SLOTS, slot_of

__all__ = ["TOKEN_KEY", "RedisLock"]

TOKEN_KEY = "lock||||token"  # noqa: S105  # the name of a key
"""The key of the last fencing token; on a cluster `TOKEN_KEY||{tag}` in each hash slot that has had a lock.

It starts as all locks of Dapr's layout do, so that a user whose keys are limited to those may use it, and is none of
them, because no application has an empty id.
"""

# A token is at least the server's clock in microseconds, and more than the last one: so it also grows when the key was
# lost with the memory of the server, was evicted, or is behind after a failover. Microseconds fit into Lua's numbers
# until the year 2255. The counter is written first: if memory runs out in between, only a number is lost.
_TAKE = Script(
    "lock.redis take",
    """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local time = redis.call('TIME')
local token = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
if last and last >= token then token = last + 1 end
redis.call('SET', KEYS[2], string.format('%.0f', token))
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return token
""",
)

# Something that is not text holds the key as firmly as another owner does.
_OWNER = """
local owner = redis.pcall('GET', KEYS[1])
if type(owner) == 'table' then
  if string.sub(owner['err'], 1, 9) == 'WRONGTYPE' then return 2 end
  return owner
end
if not owner then return 1 end
if owner ~= ARGV[1] then return 2 end
"""
_FREE = Script("lock.redis free", _OWNER + "redis.call('DEL', KEYS[1])\nreturn 0")
_EXTEND = Script("lock.redis extend", _OWNER + "redis.call('EXPIRE', KEYS[1], ARGV[2])\nreturn 0")

_REFUSED = LockGrant(False)
T = TypeVar("T")


class RedisLock(LockDriver[RedisLockSettings]):
    """Keeps a lock as a text, the owner, that expires: as Dapr does, so a sidecar and this driver exclude each other.

    The server's clock counts. Fencing tokens come from one more key, `TOKEN_KEY`, for all locks of the database (on a
    cluster one for each hash slot), so nothing is left behind by resources that are not used any more. Tokens grow
    unless that key is lost and the server's clock was set back too; a lock that a sidecar took has none, and the next
    one here is greater all the same. Exclusion does not survive a failover, which sentinels and clusters do on their
    own: replicas may lack the newest locks. A single node with replicas, which somebody might make the primary by hand,
    is refused. A cluster, which Dapr refuses, is no weaker than sentinels: each lock is in one place there too.
    `unwrap(redis.asyncio.Redis)` gives a client of its own, on a single node.
    """

    descriptor = LOCK

    def __init__(self, settings: RedisLockSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = ClientLease(settings.options(), context.shared)
        self._client: RedisClient | None = None
        self._tags: tuple[str, ...] = ()

    @property
    def call_timeout(self) -> float | None:
        return self.settings.call_timeout

    @property
    def retry_policy(self) -> RetryPolicy | None:
        return self.settings.retry_policy

    async def open(self) -> None:
        client = await self._lease.acquire()
        if client.options.mode == "node" and await count_replicas(client, None):
            raise ConfigurationError(
                f"{client.place} has replicas; a lock could be lost when one of them becomes the primary. Use failover "
                "with sentinelMasterName, or a server without replicas"
            )
        if client.cluster:
            self._tags = await asyncio.to_thread(_slot_tags)
        self._client = client

    async def close(self) -> None:
        self._client = None
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().call("PING", writes=False)

    def unwrap(self, kind: type[T]) -> T:
        found = None if self._client is None else self._client.unwrap(kind)
        return super().unwrap(kind) if found is None else found

    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        resource = request.resource
        if resource.startswith(TOKEN_KEY):
            raise InvalidArgumentError(f"a resource id must not begin with {TOKEN_KEY!r}, where the tokens are kept")
        token_key = f"{TOKEN_KEY}||{{{self._tags[slot_of(resource)]}}}" if self._tags else TOKEN_KEY
        token = await self._opened().run(_TAKE, (resource, token_key), (request.owner, request.expiry))
        return LockGrant(True, token) if token else _REFUSED

    async def unlock(self, request: UnlockRequest) -> UnlockStatus:
        return UnlockStatus(await self._held(_FREE, request.resource, request.owner))

    async def renew(self, request: RenewRequest) -> bool:
        return await self._held(_EXTEND, request.resource, request.owner, request.expiry) == 0

    async def _held(self, script: Script, resource: str, owner: str, *args: int) -> int:
        client = self._opened()
        reply = await client.run(script, (resource,), (owner, *args))
        if type(reply) is not int:
            raise OperationFailedError(f"{client.place}: a script returned what it should not")
        return reply

    def _opened(self) -> RedisClient:
        assert self._client is not None, "the component makes no call before open or after close"
        return self._client


@cache
def _slot_tags() -> tuple[str, ...]:
    """Return for each hash slot a short text that is in it. Takes a tenth of a second."""
    tags: dict[int, str] = {}
    number = 0
    while len(tags) < SLOTS:
        tags.setdefault(slot_of(text := f"{number:x}"), text)
        number += 1
    return tuple(tags[slot] for slot in range(SLOTS))
