"""The circuit breaker: stop calling what keeps failing, and try again a little later.

Own code, because the breakers that PyPI has count failures in a row and nothing else; `trip` needs five counts, an
interval, and a half-open state that lets several calls pass.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..errors import CircuitOpenError
from .policies import CircuitBreakerPolicy

__all__ = ["CircuitBreaker"]

_log = logging.getLogger("lapel.resiliency")


class CircuitBreaker:
    """One circuit breaker. Ask `enter` before a call and tell `leave` what became of it. One thread; never waits.

    `target` is what it protects, for errors and logs. `clock` returns seconds.
    """

    def __init__(
        self, policy: CircuitBreakerPolicy, target: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.policy = policy
        self._target = target
        self._clock = clock
        self._state = "closed"
        self._generation = 0
        self._until = clock() + policy.interval if policy.interval else None
        self._counts = _zero()

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        self._look()
        return self._state

    def enter(self) -> int:
        """Begin a call and return what `leave` wants. Raises `CircuitOpenError` when it must not be made now."""
        self._look()
        if self._state == "open" or (
            self._state == "half-open" and self._counts["requests"] >= self.policy.max_requests
        ):
            assert self._until is not None or self._state == "half-open"
            left = max(0.0, (self._until or 0.0) - self._clock())
            when = f"is open for another {left:.3g} s" if self._state == "open" else "is half-open and being tried"
            raise CircuitOpenError(f"was not called: the circuit breaker {self.policy.name!r} of {self._target} {when}")
        self._counts["requests"] += 1
        return self._generation

    def leave(self, generation: int, success: bool | None) -> None:
        """End a call. None says that it ended without an outcome: cancelled by whoever made it."""
        self._look()
        if generation != self._generation:
            return  # The counts are about calls that began later.
        counts = self._counts
        if success is None:
            counts["requests"] -= 1
        elif success:
            counts["totalSuccesses"] += 1
            counts["consecutiveSuccesses"] += 1
            counts["consecutiveFailures"] = 0
            if self._state == "half-open" and counts["consecutiveSuccesses"] >= self.policy.max_requests:
                self._become("closed", self.policy.interval or None)
        else:
            counts["totalFailures"] += 1
            counts["consecutiveFailures"] += 1
            counts["consecutiveSuccesses"] = 0
            if self._state == "half-open" or self.policy.trip(counts):
                self._become("open", self.policy.timeout)

    def _look(self) -> None:
        if self._until is None or self._clock() < self._until:
            return
        if self._state == "open":
            self._become("half-open", None)
        elif self._state == "closed":
            self._until = self._clock() + self.policy.interval
            self._renew()

    def _become(self, state: str, seconds: float | None) -> None:
        level = logging.WARNING if state == "open" else logging.INFO
        _log.log(level, "the circuit breaker %r of %s is %s", self.policy.name, self._target, state)
        self._state = state
        self._until = None if seconds is None else self._clock() + seconds
        self._renew()

    def _renew(self) -> None:
        self._generation += 1
        self._counts = _zero()


def _zero() -> dict[str, int]:
    return dict.fromkeys(
        ("requests", "totalSuccesses", "totalFailures", "consecutiveSuccesses", "consecutiveFailures"), 0
    )
