"""The messages that a consumer has, wherever they are in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from lapel.delivery import Delivery

from .pubsub_entries import Taken
from .pubsub_member import Member
from .pubsub_retries import Retries

__all__ = ["Claims"]

_NEVER = float("inf")


class Claims:
    """What is at work, what waits in `buffer` to be asked for, and what waits for a retry.

    `freed` is called when less is at work.
    """

    def __init__(self, member: Member, lease: float | None, freed: Callable[[], None]) -> None:
        self.held: dict[bytes, Taken] = {}
        """All but the retries, by id; what is in `buffer` is in here too."""
        self.buffer: list[Delivery] = []
        self.retries = Retries()
        self.leaving: set[bytes] = set()
        """Those of which the server is just told that they are done or handed back."""
        self._member = member
        self._lease = lease
        self._freed = freed
        self._loop = asyncio.get_running_loop()

    @property
    def at_work(self) -> int:
        """How many were returned by `receive` and are neither settled nor lost."""
        return len(self.held) - len(self.buffer)

    def holds(self, delivery: Delivery) -> bool:
        """Tell whether this delivery, and not a later one of the same message, is held."""
        return self.held.get(delivery.handle.id) is delivery.handle

    def sure(self, since: float) -> float:
        """Return until when a message is surely its own whose lease began at `since`."""
        return _NEVER if self._lease is None else since + self._lease / 2

    def stale(self) -> bool:
        """Tell whether something in the buffer has not most of its lease ahead."""
        if self._lease is None or not self.buffer:
            return False
        oldest: float = min(delivery.handle.sure_until for delivery in self.buffer)
        return oldest < self._loop.time() + self._lease / 4

    def known(self) -> set[bytes]:
        """Return the ids of all."""
        return {*self.held, *self.leaving, *self.retries.ids()}

    def add(self, deliveries: list[Delivery]) -> None:
        """Put messages into the buffer; they replace earlier deliveries of theirs."""
        count = len(self.held) + len(deliveries)
        for delivery in deliveries:
            taken: Taken = delivery.handle
            self.held[taken.id] = taken
            self.retries.discard(taken.id)
        if len(self.held) != count:
            self._sort_out()
        self.buffer += deliveries

    def leave(self, deliveries: Sequence[Delivery]) -> list[bytes]:
        """Move those that are held to `leaving`, until `left`; return their ids."""
        ids = [delivery.handle.id for delivery in deliveries if self.holds(delivery)]
        for id_ in ids:
            del self.held[id_]
        self.leaving.update(ids)
        self._freed()
        return ids

    def clear(self) -> None:
        """Forget all."""
        self.buffer.clear()
        self.held.clear()
        self.retries.clear()

    async def extend(self, deliveries: Sequence[Delivery]) -> set[bytes]:
        """Begin the lease of messages anew and forget those that are lost; return the ids of these."""
        handles: list[Taken] = [delivery.handle for delivery in deliveries if self.holds(delivery)]
        began, held = self._loop.time(), self.held
        lost = await self._member.extend([taken.id for taken in handles])
        for taken in handles:
            if taken.id not in lost:
                taken.sure_until = self.sure(began)
            elif held.get(taken.id) is taken:
                del held[taken.id]
        if lost:
            self._sort_out()
            self._freed()
        return lost

    async def extend_waiting(self) -> None:
        """Begin the lease anew of what is not at work. What is overdue is left to others, should they be quicker."""
        await self.extend(self.buffer)
        for id_ in await self._member.extend(self.retries.after(self._loop.time())):
            self.retries.discard(id_)

    def _sort_out(self) -> None:
        self.buffer = [delivery for delivery in self.buffer if self.holds(delivery)]
