"""Who waits for a call, where somebody may stop waiting without cancelling it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

__all__ = ["Caller", "caller"]


class Caller(Protocol):
    """Whoever a call is made for, such as the client of a request."""

    async def left(self) -> None:
        """Return once nobody waits for the answer any more. May be cancelled and called again."""


caller: ContextVar[Caller | None] = ContextVar("lapel_caller", default=None)
"""The one that the code in this context works for; None when nobody can leave."""
