"""What `subscribe` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from ..component import Health
from ..delivery import Dispatcher, Supervisor

__all__ = ["Subscription"]


class Subscription:
    """A running subscription, restored after every outage.

    It ends with `aclose`, with its `async with` block, or with the component.
    """

    def __init__(
        self, topic: str, group: str, dispatcher: Dispatcher, supervisor: Supervisor, need_pause: Callable[[], None]
    ) -> None:
        self.topic = topic
        self.group = group
        self._need_pause = need_pause
        self._dispatcher = dispatcher
        self._supervisor = supervisor

    @property
    def in_flight(self) -> int:
        """How many messages are held: in handlers, about to start, or waiting for a retry."""
        return self._dispatcher.in_flight

    @property
    def paused(self) -> bool:
        """Whether `pause` is in force."""
        return self._supervisor.paused

    async def pause(self) -> None:
        """Start no handler and take no messages until `resume`; stay in the group. Handlers that run go on.

        Idempotent, and kept up across reconnects. Needs `Capability.PAUSE`.
        """
        self._need_pause()
        await self._supervisor.pause()

    async def resume(self) -> None:
        """Go on after `pause`. Idempotent."""
        await self._supervisor.resume()

    async def lag(self) -> int | None:
        """Return how many messages wait in the broker for the group; None when it does not tell."""
        return await self._supervisor.lag()

    def health(self) -> Health:
        """Return its state, judged by whether messages are being fetched, with numbers in `details`."""
        return self._supervisor.health()

    async def aclose(self) -> None:
        """Stop taking messages, hand back those not started, and wait for handlers up to the drain time-out.

        Handlers that need longer are cancelled. What did not finish is delivered again, to whoever subscribes.
        Idempotent; always returns. Called by a handler of this subscription it does not wait for that handler.
        """
        await self._supervisor.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Subscription {self.topic!r} group={self.group!r} {self.health().state.value}>"
