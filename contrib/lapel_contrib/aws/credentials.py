"""Credentials that expire, renewed without holding up the event loop."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from aiobotocore.credentials import AioCredentials
from botocore.credentials import ReadOnlyCredentials, RefreshableCredentials

__all__ = ["Keys", "RenewedCredentials", "assumed_role", "from_chain", "in_own_loop", "run_now"]

AHEAD_SECONDS = 600.0
"""How long before their end credentials are renewed; a third of their life if that is less."""

T = TypeVar("T")


class Keys(NamedTuple):
    """Keys and the seconds that they are valid from now."""

    frozen: ReadOnlyCredentials
    seconds: float


class RenewedCredentials(AioCredentials):  # type: ignore[misc]  # published without types
    """Credentials that `renew` brings; it is told whether a service called the last ones expired, and uses threads.

    Renewed ahead of time, and before the next request after `expire`. Requests wait for that.
    """

    def __init__(self, method: str, renew: Callable[[bool], Awaitable[Keys]]) -> None:
        super().__init__("", "", method=method)
        self._renew = renew
        self._frozen: ReadOnlyCredentials | None = None
        self._renewing = asyncio.Lock()
        self._renew_at = 0.0
        self._expired = False

    def expire(self) -> None:
        """Note that a service called them expired, whatever their time says."""
        self._expired = True

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return credentials that are valid now. Raises what the SDK raises."""
        if self._frozen is None or self._due():
            async with self._renewing:
                if self._frozen is None or self._due():
                    self._frozen, seconds = await self._renew(self._expired)
                    self._renew_at = time.monotonic() + seconds - min(AHEAD_SECONDS, seconds / 3)
                    self._expired = False
        return self._frozen

    def get_deferred_property(self, property_name: str) -> Callable[[], Any]:
        """Return no account id: endpoints that depend on it are not used."""
        return lambda: None

    def _due(self) -> bool:
        return self._expired or time.monotonic() >= self._renew_at


def from_chain(source: RefreshableCredentials) -> RenewedCredentials:
    """Return credentials that the SDK found in its default chain and knows how to renew."""

    async def renew(expired: bool) -> Keys:
        if expired:
            # The SDK then sees a time to live that has passed, which is what the service said.
            source._expiry_time = datetime.now(UTC)
        frozen = await in_own_loop(source.get_frozen_credentials())
        return Keys(frozen, source._seconds_remaining())

    return RenewedCredentials(source.method, renew)


def assumed_role(make_client: Callable[[], Any], role: str, session_name: str) -> RenewedCredentials:
    """Return the credentials of a role; `make_client` returns a client of STS, to be used as context, each time."""

    async def assume(sts: Any) -> Any:
        try:
            return await sts.assume_role(RoleArn=role, RoleSessionName=session_name)
        finally:
            await sts.close()

    def ask() -> Any:
        return asyncio.run(assume(run_now(make_client().__aenter__())))["Credentials"]

    async def renew(expired: bool) -> Keys:
        found = await asyncio.to_thread(ask)
        frozen = ReadOnlyCredentials(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], None)
        return Keys(frozen, (found["Expiration"] - datetime.now(UTC)).total_seconds())

    return RenewedCredentials("assume-role", renew)


async def in_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the SDK that reads files and asks services, on a loop in a thread, and return its result."""
    try:
        return await asyncio.to_thread(asyncio.run, work)
    except asyncio.CancelledError:
        if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
            work.close()
        raise


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing, without an event loop, and return its result."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("the SDK waits for something while it makes a client")
