"""Give every call of a component a deadline with one timer for all of them.

`asyncio.timeout` costs more per call than everything else in the front together, so calls register here (two
dictionary operations) and one `loop.call_at` per component watches the oldest.
"""

from __future__ import annotations

import asyncio

import msgspec

__all__ = ["Deadlines", "Ticket"]


class Ticket(msgspec.Struct, eq=False):
    """One call under way. `expired` becomes true when its deadline passed and its task was cancelled for that."""

    task: asyncio.Task[object]
    expires_at: float
    cancelling: int
    expired: bool = False

    def timed_out(self) -> bool:
        """Tell whether the cancellation just caught was ours alone, and take it back, once.

        False when the caller cancelled the task too: its cancellation goes on.
        """
        if not self.expired:
            return False
        self.expired = False
        return self.task.uncancel() <= self.cancelling


class Deadlines:
    """The calls under way on one component, all with the same `timeout` in seconds.

    Belongs to the loop that is running when it is made. Not for use from other threads.
    """

    __slots__ = ("_loop", "_tickets", "_timer", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._loop = asyncio.get_running_loop()
        # Equal time-outs make the order of insertion the order of expiry.
        self._tickets: dict[Ticket, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, task: asyncio.Task[object], now: float | None = None) -> Ticket:
        """Start the clock for a call that runs in `task`. `now` spares a look at the loop's clock."""
        expires_at = (self._loop.time() if now is None else now) + self.timeout
        ticket = Ticket(task, expires_at, task.cancelling())
        self._tickets[ticket] = None
        if self._timer is None:
            self._timer = self._loop.call_at(ticket.expires_at, self._expire)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Stop the clock of a call."""
        self._tickets.pop(ticket, None)

    def latest(self, task: asyncio.Task[object]) -> Ticket:
        """Return the clock of the call that `task` entered last; it must be under way."""
        return next(ticket for ticket in reversed(self._tickets) if ticket.task is task)

    def restart(self, ticket: Ticket) -> None:
        """Start the clock of a call anew, unless the call is over or has run out of time."""
        if ticket in self._tickets and not ticket.expired:
            del self._tickets[ticket]
            ticket.expires_at = self._loop.time() + self.timeout
            self._tickets[ticket] = None

    @property
    def busy(self) -> bool:
        """Whether any call is under way."""
        return bool(self._tickets)

    def close(self) -> None:
        """Stop the timer. Calls under way keep running without a deadline."""
        self._stop_timer()
        self._tickets.clear()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def expire_all(self) -> int:
        """Expire every call under way now, once, and return how many there were. They count as busy until they end."""
        self._stop_timer()
        tickets = [ticket for ticket in self._tickets if not ticket.expired]
        for ticket in tickets:
            ticket.expired = True
            ticket.task.cancel()
        return len(tickets)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        expired = []
        for ticket in self._tickets:
            if ticket.expires_at > now:
                self._timer = self._loop.call_at(ticket.expires_at, self._expire)
                break
            expired.append(ticket)
        for ticket in expired:
            del self._tickets[ticket]
            ticket.expired = True
            ticket.task.cancel()
