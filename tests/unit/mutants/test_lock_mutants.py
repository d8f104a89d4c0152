"""Wrong lock stores: each is killed by the row it names, while the right one passes that row."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from lapel.driver import DriverContext
from lapel.lock import LockGrant, RenewRequest, TryLockRequest, UnlockRequest, UnlockStatus
from lapel.testing import LockSuite, Mutant, assert_killed, judge, row
from lapel.testing.lock import base
from lapel.testing.report import ComponentReport
from lapel_contrib.memory.lock import MemoryLock
from lapel_contrib.memory.settings import MemoryLockSettings


class LetsTheOwnerInAgain(MemoryLock):
    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        held = self._live(request.resource)
        if held is not None and held.owner == request.owner:
            return LockGrant(True, self._token)
        return await super().try_lock(request)


class LetsEverybodyUnlock(MemoryLock):
    async def unlock(self, request: UnlockRequest) -> UnlockStatus:
        held = self._live(request.resource)
        return await super().unlock(request if held is None else UnlockRequest(request.resource, held.owner))


class NeverExpires(MemoryLock):
    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        return await super().try_lock(msgspec.structs.replace(request, expiry=3600))


class ExpiresEarly(MemoryLock):
    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        grant = await super().try_lock(request)
        if grant:
            held = self._locks[request.resource]
            self._locks[request.resource] = held._replace(ends=held.ends - request.expiry * 0.2)
        return grant


class ForgetsToLookAtTheOwnerAfterExpiry(MemoryLock):
    """Deletes by the name of the resource, trusting that a caller who once held the lock still does."""

    def __init__(self, settings: MemoryLockSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._owners: set[tuple[str, str]] = set()

    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        grant = await super().try_lock(request)
        if grant:
            self._owners.add((request.resource, request.owner))
        return grant

    async def unlock(self, request: UnlockRequest) -> UnlockStatus:
        if (request.resource, request.owner) in self._owners and request.resource in self._locks:
            del self._locks[request.resource]
            return UnlockStatus.SUCCESS
        return await super().unlock(request)


class LooksAndThenTakes(MemoryLock):
    """Is interrupted between looking and taking."""

    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        if self._live(request.resource) is not None:
            return LockGrant(False)
        await asyncio.sleep(0)
        self._locks.pop(request.resource, None)
        return await super().try_lock(request)


class GivesToTwo(MemoryLock):
    """Forgets, now and then, that the lock is held."""

    tries = 0

    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        self.tries += 1
        if self.tries % 50 == 0:
            self._locks.pop(request.resource, None)
        return await super().try_lock(request)


class StartsTokensAgain(MemoryLock):
    async def unlock(self, request: UnlockRequest) -> UnlockStatus:
        status = await super().unlock(request)
        if status is UnlockStatus.SUCCESS:
            self._token = 0
        return status


class RenewsWithoutEffect(MemoryLock):
    async def renew(self, request: RenewRequest) -> bool:
        held = self._live(request.resource)
        return held is not None and held.owner == request.owner


# The module's fixture runs many suites, and locks expire in real time.
pytestmark = pytest.mark.timeout(300)

MUTANTS = [
    Mutant(LetsTheOwnerInAgain, "LK-03"),
    Mutant(LetsEverybodyUnlock, "LK-05"),
    Mutant(NeverExpires, "LK-07"),
    Mutant(ExpiresEarly, "stricter-098"),
    Mutant(ForgetsToLookAtTheOwnerAfterExpiry, "stricter-097"),
    Mutant(LooksAndThenTakes, "stricter-095"),
    Mutant(GivesToTwo, "stricter-096"),
    Mutant(StartsTokensAgain, "stricter-104"),
    Mutant(RenewsWithoutEffect, "stricter-104"),
]


@pytest.fixture(scope="module")
def outcomes() -> Mapping[str, ComponentReport]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "PATIENCE", 2.5)
        return judge(LockSuite, MemoryLock, MemoryLockSettings.parse({}), MUTANTS)


@row("stricter-140")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.id}-{mutant.row}")
def test_a_wrong_lock_store_is_caught(outcomes: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(outcomes, mutant)
