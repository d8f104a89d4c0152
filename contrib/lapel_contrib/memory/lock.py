"""lock.in-memory."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from lapel.driver import DriverContext
from lapel.lock import LockDriver, LockGrant, RenewRequest, TryLockRequest, UnlockRequest, UnlockStatus

from . import LOCK
from .settings import MemoryLockSettings

__all__ = ["MemoryLock"]

SWEEP_AT = 1024
"""From this many locks on, expired ones that nobody asked for again are dropped now and then."""

_REFUSED = LockGrant(False)


class _Held(NamedTuple):
    owner: str
    ends: float


class MemoryLock(LockDriver[MemoryLockSettings]):
    """Keeps locks in a dictionary, for the tasks of one event loop. No operation gives up the event loop.

    Locks expire by the loop's clock. Tokens start at the wall clock's microseconds when the component opens and then
    count, so they also grow across restarts, unless the clock was set back in between.
    """

    descriptor = LOCK

    def __init__(self, settings: MemoryLockSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._locks: dict[str, _Held] = {}
        self._token = 0
        self._sweep_at = SWEEP_AT

    async def open(self) -> None:
        self._token = time.time_ns() // 1000

    async def close(self) -> None:
        self._locks.clear()

    async def ping(self) -> None:
        pass

    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        now = asyncio.get_running_loop().time()
        held = self._locks.get(request.resource)
        if held is not None and held.ends > now:
            return _REFUSED
        self._locks[request.resource] = _Held(request.owner, now + request.expiry)
        if len(self._locks) >= self._sweep_at:
            self._locks = {resource: held for resource, held in self._locks.items() if held.ends > now}
            self._sweep_at = max(SWEEP_AT, 2 * len(self._locks))
        self._token += 1
        return LockGrant(True, self._token)

    async def unlock(self, request: UnlockRequest) -> UnlockStatus:
        held = self._live(request.resource)
        if held is None:
            return UnlockStatus.LOCK_DOES_NOT_EXIST
        if held.owner != request.owner:
            return UnlockStatus.LOCK_BELONGS_TO_OTHERS
        del self._locks[request.resource]
        return UnlockStatus.SUCCESS

    async def renew(self, request: RenewRequest) -> bool:
        held = self._live(request.resource)
        if held is None or held.owner != request.owner:
            return False
        ends = asyncio.get_running_loop().time() + request.expiry
        self._locks[request.resource] = _Held(request.owner, ends)
        return True

    def _live(self, resource: str) -> _Held | None:
        held = self._locks.get(resource)
        return held if held is not None and held.ends > asyncio.get_running_loop().time() else None
