"""bindings.redis."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any, TypeVar

from lapel.bindings import BindingDriver, BindingResponse, InvokeRequest
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, NotFoundError
from lapel.policy import Effect, RetryPolicy
from lapel.pubsub.request_metadata import ttl_of

from . import BINDING
from .client import LARGE, ClientLease, RedisClient
from .component_settings import RedisBindingSettings
from .errors import ReplyError
from .scripts import Argument, Call, Script

__all__ = ["RedisBinding"]

LONGEST_VALUE = 512 * 1024 * 1024
"""Redis' own limit, in bytes."""

# GETDEL is missing in servers before 6.2.
_TAKE_OUT = Script(
    "bindings.redis get and delete",
    "local value = redis.call('GET', KEYS[1])\nif value then redis.call('DEL', KEYS[1]) end\nreturn value",
)
_INCREMENT = Script(
    "bindings.redis increment",
    # Lua's numbers are not exact above 2**53, so the new value is read as text.
    "redis.call('INCR', KEYS[1])\n"
    "if ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end\n"
    "return redis.call('GET', KEYS[1])",
)

T = TypeVar("T")


class RedisBinding(BindingDriver[RedisBindingSettings]):
    """Texts in Redis, under the request metadata `key`, as it is.

    `create` stores the data, replacing what is there, and `increment` adds 1 to a whole number (missing: 0) and answers
    the new one in decimal digits; both take a lifetime in `ttl` or `ttlInSeconds`, set together with the value, and
    without it `create` makes the value last and `increment` leaves the lifetime as it is. `get` answers the value, with
    metadata `delete` of `true` removing it in the same step; `delete` removes it. Both raise `NotFoundError` for a
    key that is not there. Values are held in memory, also those given as a stream. No operation is repeated, not even
    `get`, for it may remove. `unwrap(redis.asyncio.Redis)` gives a client of its own, on a single node.
    """

    descriptor = BINDING

    def __init__(self, settings: RedisBindingSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._lease = ClientLease(settings.options(), context.shared)
        self._client: RedisClient | None = None

    @property
    def call_timeout(self) -> float | None:
        return self.settings.call_timeout

    @property
    def retry_policy(self) -> RetryPolicy | None:
        return self.settings.retry_policy

    def effect(self, operation: str) -> Effect:
        return Effect.UNSAFE

    async def open(self) -> None:
        self._client = await self._lease.acquire()

    async def close(self) -> None:
        self._client = None
        await self._lease.release()

    async def ping(self) -> None:
        await self._opened().call("PING", writes=False)

    def unwrap(self, kind: type[T]) -> T:
        found = None if self._client is None else self._client.unwrap(kind)
        return super().unwrap(kind) if found is None else found

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        key = request.metadata.get("key")
        if not key:
            raise InvalidArgumentError(f"{request.operation} needs the request metadata 'key'")
        try:
            key.encode()
        except UnicodeEncodeError:
            raise InvalidArgumentError("the request metadata 'key' holds a lone surrogate, which is not text") from None
        match request.operation:
            case "create":
                return await self._create(key, request)
            case "get":
                return await self._get(key, take_out=request.metadata.get("delete") == "true")
            case "delete":
                if not await self._opened().call("DEL", key, key=key):
                    raise NotFoundError("there is no such key")
                return BindingResponse()
        lifetime = _milliseconds(request)
        args = () if lifetime is None else (lifetime,)
        return BindingResponse(await self._opened().run(_INCREMENT, (key,), args))

    async def _create(self, key: str, request: InvokeRequest) -> BindingResponse:
        lifetime = _milliseconds(request)
        data = await _whole(request.data)
        command: tuple[Argument, ...] = ("SET", key, data)
        if lifetime is not None:
            command += ("PX", lifetime)
        if len(data) < LARGE:
            await self._opened().call(*command, key=key)
        else:
            await self._apart(command, key, writes=True)
        return BindingResponse()

    async def _get(self, key: str, *, take_out: bool) -> BindingResponse:
        # Nothing is known about the size of the value, so it must not be in the way of others.
        command = Call(_TAKE_OUT, (key,), ()) if take_out else ("GET", key)
        value = await self._apart(command, key, writes=take_out)
        if value is None:
            raise NotFoundError("there is no such key")
        return BindingResponse(value)

    async def _apart(self, command: Call | tuple[Argument, ...], key: str, *, writes: bool) -> Any:
        client = self._opened()
        (reply,) = await client.apart(command, key=key, writes=writes)
        if isinstance(reply, ReplyError):
            raise client.translate(reply) from None
        return reply

    def _opened(self) -> RedisClient:
        assert self._client is not None, "the component makes no call before open or after close"
        return self._client


def _milliseconds(request: InvokeRequest) -> int | None:
    """Return the lifetime that the metadata give, at least 1 where they give any; a duration of 0 is none."""
    seconds = ttl_of(request.metadata)
    return max(1, round(seconds * 1000)) if seconds else None


async def _whole(data: bytes | AsyncIterable[bytes] | None) -> bytes:
    if data is None or isinstance(data, bytes):
        found = data or b""
        _check_length(len(found))
        return found
    collected = bytearray()
    async for chunk in data:
        _check_length(len(collected) + len(chunk))
        collected += chunk
    return bytes(collected)


def _check_length(length: int) -> None:
    if length > LONGEST_VALUE:
        raise InvalidArgumentError(f"the data has more than the {LONGEST_VALUE} bytes that Redis keeps under a key")
