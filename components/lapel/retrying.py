"""Repeat a failed call as the policy allows, without ever claiming more about its outcome than is known."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from .coalesce import mark_not_sent
from .errors import EtagMismatchError, LapelError, OutcomeUnknownError
from .policy import Effect, Operation

__all__ = ["Retries", "try_again"]

_R = TypeVar("_R")
_T = TypeVar("_T")


class Retries(Protocol):
    """What decides about repetitions: `RetryPolicy`, or one from a resiliency document."""

    def allows(self, error: LapelError, effect: Effect, tries: int) -> bool:
        """Tell whether a call that failed with `error` after `tries` tries is sent again."""

    def delay(self, tries: int) -> float:
        """Return the pause in seconds after `tries` tries."""


async def try_again(
    policy: Retries,
    operation: Operation,
    method: Callable[[_R], Awaitable[_T]],
    request: _R,
    error: LapelError,
    ends_at: float,
    *,
    pause: Callable[[float], Awaitable[bool | None]] = asyncio.sleep,
) -> _T:
    """Go on after the first try of a call failed with `error`: repeat it, or raise.

    Nothing is begun whose pause would last until `ends_at` (the loop's time): the error in hand says more than a
    missed deadline. `pause` waits for so many seconds; when it returns true, nobody wants another try. Once the
    outcome of one try is unknown, a failure of a later one leaves it unknown, and so does a cancellation, whatever it
    is marked as.
    """
    time = asyncio.get_running_loop().time
    unknown = error if isinstance(error, OutcomeUnknownError) else None
    tries = 1
    while policy.allows(error, operation.effect, tries):
        seconds = policy.delay(tries)
        if time() + seconds >= ends_at:
            break
        try:
            if await pause(seconds):
                break
        except CancelledError as exc:
            if unknown is None:
                mark_not_sent(exc)
            raise
        tries += 1
        try:
            return await method(request)
        except EtagMismatchError as exc:
            if unknown is None:
                raise
            raise OutcomeUnknownError(
                "the reply to the first try was lost and the repeated one found another etag: "
                "either try may have been the one that changed it; read the item to find out"
            ) from exc
        except LapelError as exc:
            error = exc
            if isinstance(exc, OutcomeUnknownError) and (unknown is None or not exc.repeatable):
                unknown = exc
        except CancelledError as exc:
            if unknown is None:
                raise
            raise CancelledError(*exc.args) from None
    if unknown is not None and operation.effect is not Effect.SAFE:
        raise unknown
    raise error
