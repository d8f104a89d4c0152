"""A connection of one caller's own, for commands that block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lapel.errors import UnavailableError

from .errors import ReplyError, lost, translate
from .link import Link, LinkLostError
from .scripts import Argument, pack

__all__ = ["Channel"]


class Channel:
    """Commands that may block, one after the other, on a connection that nobody else uses.

    Once it raised anything but an error reply, or a call was cancelled, it is closed: open another one.
    """

    def __init__(self, link: Link, place: str, on_close: Callable[[Channel], None]) -> None:
        self._link = link
        self._place = place
        self._on_close = on_close

    @property
    def open(self) -> bool:
        """Whether commands can be sent."""
        return self._link.open

    async def call(self, *command: Argument, timeout: float, writes: bool = False) -> Any:
        """Send a command and wait up to `timeout` seconds for its reply, which must exceed what it blocks for.

        A reply that has begun may take longer, as long as no packet of it does. Raises `UnavailableError`,
        `OutcomeUnknownError` for a write, and what `translate` makes. `MOVED` replies come as `UnavailableError`:
        refresh the client and open another channel.
        """
        if not self._link.open:
            raise UnavailableError(f"{self._place}: the connection was lost before; nothing was done")
        try:
            (reply,) = await self._link.send(pack(command), 1, timeout, pause=timeout)
        except LinkLostError as exc:
            raise lost(self._place, writes=writes, timed_out=exc.timed_out) from None
        finally:
            if not self._link.open or not self._link.idle:
                self.close()
        if isinstance(reply, ReplyError):
            raise translate(reply, self._place) from None
        return reply

    def close(self) -> None:
        """End the connection. Idempotent."""
        self._link.close()
        self._on_close(self)
