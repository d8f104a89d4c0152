"""Locks: mutual exclusion between processes, with renewal and fencing tokens."""

from .driver import LockDriver
from .settings import LockSettings
from .store import HeldLock, LockStore
from .types import LockGrant, RenewRequest, TryLockRequest, UnlockRequest, UnlockStatus

__all__ = [
    "HeldLock",
    "LockDriver",
    "LockGrant",
    "LockSettings",
    "LockStore",
    "RenewRequest",
    "TryLockRequest",
    "UnlockRequest",
    "UnlockStatus",
]
