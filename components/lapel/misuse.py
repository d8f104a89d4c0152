"""What a component says of calls that cannot be made, and of those that were not answered in time."""

from __future__ import annotations

from typing import TypedDict

from .errors import (
    ClosedError,
    DeadlineExceededError,
    LapelError,
    NotOpenError,
    OutcomeUnknownTimeoutError,
    UnavailableError,
    WrongLoopError,
)

__all__ = ["Place", "timed_out", "unusable"]


class Place(TypedDict):
    """Where an error happened, as `LapelError` takes it."""

    component: str
    driver: str
    operation: str


def unusable(state: str, failure: str | None, place: Place, *, reviving: bool) -> LapelError:
    """Return the error of a call that came in this state. `failure` is why it did not open, `reviving` that it will."""
    if state == "open":
        text = "used from another event loop than the one that opened it; open one per loop or use lapel.blocking"
        return WrongLoopError(text, **place)
    if state == "forked":
        return WrongLoopError("was opened before fork; open it in the child process", **place)
    if state in ("closing", "closed"):
        return ClosedError("is closed; open a new one", **place)
    if reviving:
        return UnavailableError(f"is not open yet and keeps trying; last failure: {failure}", **place)
    if state == "failed":
        return ClosedError(f"did not open, open a new one; the failure was: {failure}", **place)
    return NotOpenError("is not open; use `async with` or call `open()` first", **place)


def timed_out(text: str, *, unknown: bool, place: Place) -> LapelError:
    """Return the error of a call that ran out of time. `unknown`: a write was sent, and may have been done."""
    if not unknown:
        return DeadlineExceededError(text, **place)
    return OutcomeUnknownTimeoutError(f"{text}; the backend may or may not have done it", **place)
