"""Settings of the components that keep everything in the memory of the process."""

from __future__ import annotations

from lapel.lock.settings import LockSettings
from lapel.pubsub.settings import PubSubSettings
from lapel.settings import setting
from lapel.state.settings import StateSettings

__all__ = ["MemoryLockSettings", "MemoryPubSubSettings", "MemoryStateSettings"]


class MemoryStateSettings(StateSettings):
    """Settings of state.in-memory, which has no fields of its own."""


class MemoryLockSettings(LockSettings):
    """Settings of lock.in-memory, which has no fields of its own."""


class MemoryPubSubSettings(PubSubSettings):
    """Settings of pubsub.in-memory."""

    max_pending: int = setting(
        "maxPendingMessages",
        default=10_000,
        minimum=1,
        doc="How many messages may wait for one consumer group. Publishing waits while there are as many.",
    )
