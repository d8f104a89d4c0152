"""Credentials that expire, renewed without holding up the event loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from asyncio import Task
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from aiobotocore.credentials import AioCredentials
from botocore.credentials import ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import ConnectionClosedError, CredentialRetrievalError, ReadTimeoutError

__all__ = ["Keys", "RenewedCredentials", "assumed_role", "from_chain", "in_own_loop", "run_now"]

AHEAD_SECONDS = 600.0
"""How long before their end credentials are renewed; a third of their life if that is less."""
SPARE_SECONDS = 30.0
"""How long before their end credentials are too old for a request that can have new ones; a sixth if that is less."""
AGAIN_SECONDS = 5.0
"""How long after a failed renewal the next is tried, while the credentials in hand are still valid."""
RENEWAL_SECONDS = 30.0
"""How long one renewal may take."""

T = TypeVar("T")
_log = logging.getLogger("lapel.aws")


class Keys(NamedTuple):
    """Keys and the seconds that they are valid from now."""

    frozen: ReadOnlyCredentials
    seconds: float


class RenewedCredentials(AioCredentials):  # type: ignore[misc]  # published without types
    """Credentials that `renew` brings; it is told whether a service called the last ones expired, and where to run.

    Renewed ahead of time, while requests go on with those in hand, and again some seconds later when that failed.
    Requests wait for new ones only when there are none that are valid: near their end, and after `expire`. There is one
    renewal at a time, which all requests share and no request's deadline ends. `close` once.
    """

    def __init__(self, method: str, renew: Callable[[bool, Executor], Awaitable[Keys]]) -> None:
        super().__init__("", "", method=method)
        self._renew = renew
        # One thread: what the SDK renews by itself has a lock that belongs to the event loop of that thread.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="lapel-aws-credentials")
        self._frozen: ReadOnlyCredentials | None = None
        self._renewing: Task[ReadOnlyCredentials] | None = None
        self._renew_at = 0.0
        self._wait_from = 0.0
        self._end = 0.0
        self._expired = False
        self._closed = False

    def expire(self) -> None:
        """Note that a service called them expired, whatever their time says."""
        self._expired = True

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return credentials that are valid now. Raises what the SDK raises."""
        now = time.monotonic()
        frozen = None if self._expired or now >= self._end else self._frozen
        if frozen is not None and now < self._renew_at:
            return frozen
        renewing = self._renewing or self._start()
        if frozen is not None and now < self._wait_from:
            return frozen
        await asyncio.wait((renewing,))
        if renewing.cancelled():
            raise CredentialRetrievalError(provider=self.method, error_msg="the component is closed")
        error = renewing.exception()
        if error is None:
            return renewing.result()
        if frozen is not None and not self._expired and time.monotonic() < self._end:
            return frozen
        raise error

    def get_deferred_property(self, property_name: str) -> Callable[[], Any]:
        """Return no account id: endpoints that depend on it are not used."""
        return lambda: None

    async def close(self) -> None:
        """End a renewal that is under way. What its thread still does comes to its end by itself."""
        self._closed = True
        renewing = self._renewing
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait((renewing,))
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> Task[ReadOnlyCredentials]:
        if self._closed:
            raise CredentialRetrievalError(provider=self.method, error_msg="the component is closed")
        # An empty context: the renewal is for everybody, not for the caller's trace.
        name = f"lapel renew {self.method} credentials"
        renewing = asyncio.get_running_loop().create_task(self._bring(), name=name, context=Context())
        renewing.add_done_callback(self._ended)
        self._renewing = renewing
        return renewing

    async def _bring(self) -> ReadOnlyCredentials:
        keys = await self._renew(self._expired, self._threads)
        now = time.monotonic()
        self._end = now + keys.seconds
        self._renew_at = self._end - min(AHEAD_SECONDS, keys.seconds / 3)
        self._wait_from = self._end - min(SPARE_SECONDS, keys.seconds / 6)
        self._frozen, self._expired = keys.frozen, False
        return keys.frozen

    def _ended(self, renewing: Task[ReadOnlyCredentials]) -> None:
        self._renewing = None
        if renewing.cancelled() or (error := renewing.exception()) is None:
            return
        now = time.monotonic()
        self._renew_at = now + AGAIN_SECONDS
        if not self._expired and now < self._end:
            text = "credentials of AWS (%s) could not be renewed and go on for %.0f s, next try in %g s: %s"
            _log.warning(text, self.method, self._end - now, AGAIN_SECONDS, type(error).__name__)


def from_chain(source: RefreshableCredentials) -> RenewedCredentials:
    """Return credentials that the SDK found in its default chain and knows how to renew."""

    async def renew(expired: bool, threads: Executor) -> Keys:
        if expired:
            # The SDK then sees a time to live that has passed, which is what the service said.
            source._expiry_time = datetime.now(UTC)
        frozen = await in_own_loop(source.get_frozen_credentials(), threads)
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
        # The client is made before there is a loop, for that reads megabytes of JSON.
        return asyncio.run(asyncio.wait_for(assume(run_now(make_client().__aenter__())), RENEWAL_SECONDS))

    async def renew(expired: bool, threads: Executor) -> Keys:
        with _renewal_trouble():
            found = (await asyncio.get_running_loop().run_in_executor(threads, ask))["Credentials"]
        frozen = ReadOnlyCredentials(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], None)
        return Keys(frozen, (found["Expiration"] - datetime.now(UTC)).total_seconds())

    return RenewedCredentials("assume-role", renew)


async def in_own_loop(work: Coroutine[Any, Any, T], threads: Executor | None = None) -> T:
    """Run a coroutine of the SDK that reads files and asks services, on a loop in a thread, and return its result."""
    in_time = asyncio.wait_for(work, RENEWAL_SECONDS)
    try:
        with _renewal_trouble():
            return await asyncio.get_running_loop().run_in_executor(threads, asyncio.run, in_time)
    except asyncio.CancelledError:
        for each in (in_time, work):
            if inspect.getcoroutinestate(each) == inspect.CORO_CREATED:
                each.close()
        raise


@contextmanager
def _renewal_trouble() -> Iterator[None]:
    """Say that it is the credentials which were not had in time; else that passes for the fate of what they are for."""
    try:
        yield
    except (TimeoutError, ConnectionClosedError, ReadTimeoutError) as exc:
        raise CredentialRetrievalError(provider="AWS", error_msg=type(exc).__name__) from None


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing, without an event loop, and return its result."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("the SDK waits for something while it makes a client")
