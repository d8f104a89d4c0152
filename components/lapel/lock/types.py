"""What goes between an application, `LockStore` and a `LockDriver`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import msgspec

__all__ = ["LockGrant", "RenewRequest", "TryLockRequest", "UnlockRequest", "UnlockStatus"]

NO_METADATA: Mapping[str, str] = {}


class UnlockStatus(IntEnum):
    """What `unlock` found; the numbers are Dapr's."""

    SUCCESS = 0
    LOCK_DOES_NOT_EXIST = 1
    LOCK_BELONGS_TO_OTHERS = 2
    INTERNAL_ERROR = 3


class TryLockRequest(msgspec.Struct, frozen=True):
    """Take a lock if it is free. `expiry` is in seconds, at least 1."""

    resource: str
    owner: str
    expiry: int
    metadata: Mapping[str, str] = NO_METADATA


class UnlockRequest(msgspec.Struct, frozen=True):
    """Give a lock back."""

    resource: str
    owner: str
    metadata: Mapping[str, str] = NO_METADATA


class RenewRequest(msgspec.Struct, frozen=True):
    """Extend a lock to `expiry` seconds from now if the owner still has it."""

    resource: str
    owner: str
    expiry: int
    metadata: Mapping[str, str] = NO_METADATA


class LockGrant(msgspec.Struct, frozen=True):
    """The answer to a try. True in a boolean context when the lock was taken.

    `token` grows with every acquisition of the resource, None without `FENCING_TOKEN` or when not taken. Pass it to
    whatever the lock protects, and let that refuse smaller ones.
    """

    success: bool
    token: int | None = None

    def __bool__(self) -> bool:
        return self.success
