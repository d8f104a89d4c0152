"""What passes between a source of messages and the code that handles them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Any

import msgspec

from ..errors import InvalidArgumentError

__all__ = ["Backoff", "Delivery", "DispatchPolicy", "Dropped", "Ordering", "Outcome", "Reply", "Settled", "Settlement"]

NO_METADATA: Mapping[str, str] = {}


class Outcome(StrEnum):
    """What a handler says of a message. Returning None is SUCCESS, raising is RETRY."""

    SUCCESS = "SUCCESS"
    RETRY = "RETRY"
    """Deliver again after the back-off, until the attempts are used up."""
    DROP = "DROP"
    """Give up at once: to the dead-letter topic if one is set."""


class Ordering(StrEnum):
    """Which messages wait for each other."""

    NONE = "none"
    KEY = "key"
    """Messages of one key are handled one after another, in the order of the broker."""
    ALL = "all"
    """All messages are; implies a concurrency of 1."""


class Settlement(Enum):
    """What is to become of a delivery."""

    ACK = "ack"
    """Done: never again."""
    RETRY = "retry"
    """Deliver again, not before the delay; counts as an attempt."""
    DEAD_LETTER = "dead-letter"
    """Move to the broker's own dead-letter place. Only with `Capability.DEAD_LETTER`."""


class Delivery(msgspec.Struct, eq=False):
    """One message as a source hands it over.

    `handle` is the driver's own. `key` is what `Ordering.KEY` goes by; None is no key. `attempt` counts deliveries
    from 1 where the broker counts, else None. `content_type` None means the broker carries none.
    """

    handle: Any
    topic: str
    data: bytes
    metadata: Mapping[str, str] = NO_METADATA
    content_type: str | None = None
    key: str | None = None
    attempt: int | None = None


class Dropped(msgspec.Struct, frozen=True):
    """A handler's answer like `Outcome.DROP`, with the reason that dead letters and logs show."""

    reason: str


class Reply(msgspec.Struct, frozen=True):
    """A handler's answer like `Outcome.SUCCESS`, with what goes back to a source that takes replies."""

    value: Any


class Settled(msgspec.Struct, frozen=True, eq=False):
    """The end of one delivery. `delay` in seconds is for RETRY; `reply` is the handler's answer, for REPLY sources."""

    delivery: Delivery
    settlement: Settlement
    delay: float = 0.0
    reply: Any = None


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """The pauses between attempts, in seconds: `initial * multiplier ** (n - 1)`, at most `maximum`, with jitter.

    `jitter` is the share of the pause that is drawn at random. Equal `initial` and `maximum` make it constant.
    """

    initial: float = 0.5
    maximum: float = 60.0
    multiplier: float = 2.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not (0 <= self.initial <= self.maximum and self.multiplier >= 1 and 0 <= self.jitter <= 1):
            raise InvalidArgumentError(
                "a back-off needs 0 <= initial <= maximum, a multiplier of at least 1 and a jitter between 0 and 1"
            )

    def delay(self, attempt: int) -> float:
        """Return the pause in seconds after attempt `attempt`, which counts from 1."""
        try:
            pause = min(self.maximum, self.initial * self.multiplier ** (attempt - 1))
        except OverflowError:
            pause = self.maximum
        return pause * (1 - self.jitter * random.random())  # noqa: S311 - spreads load; nothing secret depends on it


class DispatchPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How deliveries are handled. `max_attempts` None is without limit; `drain_timeout` is in seconds.

    `broker_dead_letter`: what is given up is settled with DEAD_LETTER unless a dead-letter function is set.
    """

    ordering: Ordering = Ordering.NONE
    concurrency: int = 10
    max_attempts: int | None = None
    backoff: Backoff = Backoff()
    drain_timeout: float = 30.0
    broker_dead_letter: bool = False

    def __post_init__(self) -> None:
        if type(self.concurrency) is not int or self.concurrency < 1:
            raise InvalidArgumentError(f"concurrency must be a whole number from 1, got {self.concurrency!r}")
        if self.max_attempts is not None and (type(self.max_attempts) is not int or self.max_attempts < 1):
            raise InvalidArgumentError(f"max_attempts must be a whole number from 1 or None, got {self.max_attempts!r}")
        if not isinstance(self.backoff, Backoff):
            raise InvalidArgumentError(f"backoff must be a Backoff or None, not {type(self.backoff).__name__}")
        if type(self.drain_timeout) not in (int, float) or not 0 <= self.drain_timeout < math.inf:
            raise InvalidArgumentError(f"drain_timeout must be seconds, not negative, got {self.drain_timeout!r}")
