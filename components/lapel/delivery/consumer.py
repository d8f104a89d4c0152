"""The source of messages that a driver of pub/sub or of an input binding offers to the dispatcher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence

from .types import Delivery, Settled

__all__ = ["Consumer", "Revoked"]

Revoked = Callable[[Sequence[Delivery], float], Awaitable[None]]
"""Told by a consumer that deliveries are no longer its own; the float is how many seconds are left to settle them.

Returns when the dispatcher has let go of them.
"""


class Consumer(ABC):
    """One armed subscription: what was published after it was returned will be received.

    The dispatcher calls `receive` from one task and the other methods from others; they may overlap. A consumer
    neither runs handlers, nor retries, nor counts attempts that its broker does not count. An error other than
    `UnavailableError` in `receive` ends this consumer as well: the supervisor closes it and subscribes anew.
    """

    lease_seconds: float | None = None
    """How long the broker leaves a delivery to us without `extend`; None when it never takes one back."""

    redelivers: bool = True
    """Whether a settlement of RETRY brings the delivery back after its delay. Where false, the dispatcher keeps a
    failed delivery and runs its handler again itself, as it also does for ordered ones and where nobody counts."""

    on_revoked: Revoked | None = None
    """What to call when deliveries are taken away (a rebalance); set on the consumers of input bindings, and part of
    the request of subscriptions."""

    ends: bool = False
    """True once a source that comes to an end has given everything; `receive` then returns nothing."""

    @abstractmethod
    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        """Return up to `max_messages`, as soon as there is one, or nothing after `max_wait` seconds.

        Must be safe to cancel: a message taken from the broker is then either returned by the next call or handed
        back. Raises `UnavailableError` when the connection is lost.
        """

    @abstractmethod
    async def settle(self, settled: Sequence[Settled]) -> None:
        """Tell the broker what became of deliveries. Returns when it knows.

        Raises `UnavailableError` when that failed for all; the dispatcher then counts on redelivery. A lease that
        ran out or a partition that was lost is not an error here: log it at INFO.
        """

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew the lease of deliveries and return those that are lost. Called often enough to keep it."""
        return ()

    async def release(self, deliveries: Sequence[Delivery]) -> None:  # noqa: B027 - a default, not a gap
        """Hand back deliveries that were never started, uncounted where the broker can, for others to take now."""

    async def pause(self) -> None:  # noqa: B027 - a default, not a gap
        """Stop taking messages without leaving the group. The dispatcher stops calling `receive` as well.

        Also called when the subscription closes while handlers run: `settle`, `extend` and `release` still come then.
        """

    async def resume(self) -> None:  # noqa: B027 - a default, not a gap
        """Take messages again."""

    async def lag(self) -> int | None:
        """Return how many messages wait behind this subscription, None when the broker does not tell."""
        return None

    def measurements(self) -> Mapping[str, int]:
        """Return numbers for metrics under short names, such as `lag` and `rebalances`, without asking the broker."""
        return {}

    @abstractmethod
    async def close(self) -> None:
        """Leave. Bounded, idempotent; a message not settled by then is the broker's again."""
