"""The lock store that an application holds."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from ..component import Component, ComponentOptions
from ..descriptor import Capability
from ..errors import DeadlineExceededError, LapelError, LockLostError, OutcomeUnknownError
from ..keyprefix import BARS, key_prefix
from ..policy import Effect, Operation
from .driver import LockDriver
from .types import (
    NO_METADATA,
    LockGrant,
    RenewRequest,
    TryLockRequest,
    UnlockRequest,
    UnlockStatus,
)

__all__ = ["HeldLock", "LockStore"]

TRY_LOCK = Operation("try_lock", Effect.UNSAFE)
UNLOCK = Operation("unlock", Effect.CONDITIONAL)
RENEW = Operation("renew", Effect.CONDITIONAL)
LONGEST_EXPIRY = 2**31 - 1


class HeldLock:
    """A lock held by `LockStore.hold`. `token` is the fencing token, None without `Capability.FENCING_TOKEN`."""

    def __init__(self, resource: str, owner: str, token: int | None) -> None:
        self.resource = resource
        self.owner = owner
        self.token = token
        self.lost = False


class LockStore(Component[LockDriver[Any]]):
    """Mutual exclusion between processes. All calls may overlap.

    A lock expires by the backend's clock, is never re-entrant, and its exclusion is only as strong as the backend:
    it does not survive an asynchronous failover. Protect what must never be written twice with the fencing token.
    """

    def __init__(self, driver: LockDriver[Any], *, options: ComponentOptions | None = None) -> None:
        super().__init__(driver, options=options)
        self._tasks: set[asyncio.Task[None]] = set()
        """Locks being given back; a cancelled caller does not wait for them, `aclose` does."""

    def _use(self, driver: LockDriver[Any]) -> None:
        super()._use(driver)
        self._prefix = key_prefix(driver.settings.key_prefix, self.name, self.options, before="lock")

    async def try_lock(
        self, resource: str, owner: str, expiry: timedelta | int, *, metadata: Mapping[str, str] = NO_METADATA
    ) -> LockGrant:
        """Take the lock if nobody holds it, never waiting; the answer is false when somebody does, also `owner`.

        `expiry` is whole seconds, at least 1. Raises `OutcomeUnknownError` when the reply was lost: the lock is then
        free again after `expiry` at the latest.
        """
        request = TryLockRequest(
            self._resource(resource, "try_lock"),
            self._owner(owner, "try_lock"),
            self._expiry(expiry, "try_lock"),
            metadata,
        )
        return await self._call(TRY_LOCK, self._driver.try_lock, request)

    async def unlock(self, resource: str, owner: str, *, metadata: Mapping[str, str] = NO_METADATA) -> UnlockStatus:
        """Release the lock if `owner` holds it, and say what was found. Never raises for a lock that is not held."""
        request = UnlockRequest(self._resource(resource, "unlock"), self._owner(owner, "unlock"), metadata)
        return await self._call(UNLOCK, self._driver.unlock, request)

    async def renew(
        self, resource: str, owner: str, expiry: timedelta | int, *, metadata: Mapping[str, str] = NO_METADATA
    ) -> bool:
        """Extend the lock to `expiry` from now if `owner` holds it; False when not. Needs `Capability.RENEW`."""
        self._need(Capability.RENEW, "renew")
        request = RenewRequest(
            self._resource(resource, "renew"),
            self._owner(owner, "renew"),
            self._expiry(expiry, "renew"),
            metadata,
        )
        return await self._call(RENEW, self._driver.renew, request)

    @asynccontextmanager
    async def hold(
        self,
        resource: str,
        *,
        expiry: timedelta | int = 15,
        wait: timedelta | float | None = None,
        owner: str | None = None,
    ) -> AsyncIterator[HeldLock]:
        """Hold the lock while the block runs, renewing it every third of `expiry`.

        Waits for the lock up to `wait` (seconds, or None for no limit) and then raises `DeadlineExceededError`. When
        the lock is lost, or cannot be proved ours before it expires, the block is cancelled and
        `LockLostError` raised; an error that the block itself raises is passed on instead. A block that holds up the
        event loop for longer than `expiry` learns of the loss only afterwards: what must never happen twice needs
        the fencing token. `owner` None makes a unique one; one that is given must not be used by anybody else. Needs
        `Capability.RENEW`.
        """
        self._need(Capability.RENEW, "hold")
        seconds = self._expiry(expiry, "hold")
        limit = wait.total_seconds() if isinstance(wait, timedelta) else wait
        if limit is not None and (type(limit) not in (int, float) or not limit >= 0):
            raise self._invalid("wait must be None, or seconds that are not negative", "hold")
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        taken_at, held = await self._acquire(resource, owner, seconds, limit)
        keeper = asyncio.create_task(self._keep(held, seconds, taken_at + seconds, task), name=f"lapel lock {resource}")
        try:
            yield held
        except asyncio.CancelledError:
            if held.lost and task.uncancel() <= cancelling:
                raise self._lost(resource) from None
            raise
        except BaseException:
            if held.lost:
                task.uncancel()
            raise
        else:
            # The block swallowed the cancellation.
            if held.lost and task.uncancel() <= cancelling:
                raise self._lost(resource)
        finally:
            # At once: from here on it must not cancel this task any more.
            keeper.cancel()
            await self._shielded(self._end(keeper, held))

    async def _acquire(
        self, resource: str, given: str | None, seconds: int, limit: float | None
    ) -> tuple[float, HeldLock]:
        loop = asyncio.get_running_loop()
        owner = str(uuid.uuid4()) if given is None else given
        end = None if limit is None else loop.time() + limit
        pause = 0.01
        while True:
            # The moment before the request: the backend's clock for this lock cannot have started earlier.
            asked_at = loop.time()
            try:
                grant = await self.try_lock(resource, owner, seconds)
            except (asyncio.CancelledError, OutcomeUnknownError):
                # The request may have been sent; without this the lock would stay taken until it expires. An owner
                # that was given may hold it elsewhere, against its promise, so that one is left to expire.
                if given is None:
                    await self._shielded(self._give_back(resource, owner))
                raise
            if grant:
                return asked_at, HeldLock(resource, owner, grant.token)
            now = loop.time()
            if end is not None and now >= end:
                raise DeadlineExceededError(
                    f"the lock on {resource!r} was still held by another after {limit:g} s",
                    component=self.name,
                    driver=self.type,
                    operation="hold",
                )
            nap = pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load only
            await asyncio.sleep(nap if end is None else min(nap, end - now))
            pause = min(pause * 1.5, 0.5)

    async def _keep(self, held: HeldLock, seconds: int, expires_at: float, block: asyncio.Task[Any]) -> None:
        """Renew until cancelled. Cancel the block when ownership can no longer be proved by our own clock."""
        loop = asyncio.get_running_loop()
        pause = seconds / 3
        while True:
            await asyncio.sleep(min(pause, max(0.0, expires_at - loop.time())))
            asked_at = loop.time()
            renewed = False
            try:
                if asked_at < expires_at:
                    async with asyncio.timeout_at(expires_at):
                        renewed = await self.renew(held.resource, held.owner, seconds)
                        if not renewed:
                            expires_at = asked_at
            except (LapelError, TimeoutError) as exc:
                self._driver.context.logger.warning("renewing the lock on %r failed: %s", held.resource, exc)
            if renewed:
                expires_at, pause = asked_at + seconds, seconds / 3
            elif loop.time() >= expires_at:
                held.lost = True
                block.cancel()
                return
            else:
                pause = min(1.0, seconds / 10)

    async def _end(self, keeper: asyncio.Task[None], held: HeldLock) -> None:
        await asyncio.wait([keeper])
        if not held.lost:
            await self._give_back(held.resource, held.owner)

    async def _shielded(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, even when this task is cancelled (again) meanwhile."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _drain(self) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _give_back(self, resource: str, owner: str) -> None:
        try:
            await self.unlock(resource, owner)
        except LapelError as exc:
            self._driver.context.logger.warning(
                "the lock on %r was not given back and will expire by itself: %s", resource, exc
            )

    def _resource(self, resource: str, operation: str) -> str:
        if not isinstance(resource, str) or not resource or "\0" in resource:
            raise self._invalid("the resource id must be text that is not empty and holds no NUL", operation)
        if self._prefix and BARS in resource:
            raise self._invalid("the resource id holds '||', which separates it from the key prefix", operation)
        return self._text(self._prefix + resource, "resource id", operation)

    def _owner(self, owner: str, operation: str) -> str:
        if not isinstance(owner, str) or not owner or "\0" in owner:
            raise self._invalid("the lock owner must be text that is not empty and holds no NUL", operation)
        return self._text(owner, "lock owner", operation)

    def _text(self, text: str, what: str, operation: str) -> str:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise self._invalid(f"the {what} holds a lone surrogate, which is not text", operation) from None
        limit = self.limits.key_bytes
        if limit is not None and size > limit:
            raise self._invalid(f"the {what} has {size} bytes; this store takes at most {limit}", operation)
        return text

    def _expiry(self, expiry: timedelta | int, operation: str) -> int:
        seconds = expiry.total_seconds() if isinstance(expiry, timedelta) else expiry
        if isinstance(seconds, float) and seconds.is_integer():
            seconds = int(seconds)
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            raise self._invalid("expiry must be a timedelta or a number, of whole seconds", operation)
        if not 1 <= seconds <= LONGEST_EXPIRY:
            raise self._invalid(f"expiry must be from 1 to {LONGEST_EXPIRY} seconds", operation)
        return seconds

    def _lost(self, resource: str) -> LockLostError:
        return LockLostError(
            f"the lock on {resource!r} was lost while its block ran; the block was cancelled",
            component=self.name,
            driver=self.type,
            operation="hold",
        )
