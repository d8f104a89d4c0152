"""The class that authors of lock drivers subclass."""

from __future__ import annotations

from abc import abstractmethod

from ..driver import Driver, SettingsT
from ..errors import UnsupportedError
from .types import LockGrant, RenewRequest, TryLockRequest, UnlockRequest, UnlockStatus

__all__ = ["LockDriver"]


class LockDriver(Driver[SettingsT]):
    """A lock service. Locks expire by the backend's clock and are never re-entrant, not even for one owner."""

    @abstractmethod
    async def try_lock(self, request: TryLockRequest) -> LockGrant:
        """Take the lock if nobody holds it, never waiting. An expired lock is free at once.

        With `FENCING_TOKEN` the token is greater than all before it for this resource, also after expiry,
        unlock and restart. Raises `OutcomeUnknownError` when the reply was lost.
        """

    @abstractmethod
    async def unlock(self, request: UnlockRequest) -> UnlockStatus:
        """Release the lock if `owner` holds it; compare and delete in one step."""

    async def renew(self, request: RenewRequest) -> bool:
        """Extend the lock if `owner` still holds it; False when it does not. Only called with `RENEW`."""
        raise UnsupportedError("is declared but not implemented", driver=self.descriptor.type, operation="renew")
