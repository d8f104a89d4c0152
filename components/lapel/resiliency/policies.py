"""What resiliency documents define, as values."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from ..delivery.types import Backoff
from ..errors import (
    CircuitOpenError,
    ConfigurationError,
    CryptoError,
    EtagError,
    InvalidArgumentError,
    LapelError,
    LifecycleError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    UnsupportedError,
)
from ..policy import Effect

if TYPE_CHECKING:
    from .guard import Guard

__all__ = [
    "ANSWERS",
    "BUILT_IN_RETRIES",
    "DISCOVERY_RETRIES",
    "NONE",
    "AppPolicies",
    "CircuitBreakerPolicy",
    "CodeRanges",
    "ComponentPolicies",
    "Counts",
    "Policies",
    "ResiliencyRetry",
    "five_in_a_row",
    "http_status_of",
]

EXPONENTIAL_SECONDS = 0.5
EXPONENTIAL_FACTOR = 1.5
EXPONENTIAL_JITTER = 0.5
EXPONENTIAL_TOTAL_SECONDS = 900.0

ANSWERS = (
    ConfigurationError,
    CryptoError,
    EtagError,
    InvalidArgumentError,
    LifecycleError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedError,
)
"""Failures that are the answer to the question asked: to ask again changes nothing, and the backend is well."""

CodeRanges = tuple[range, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResiliencyRetry:
    """A retry policy. Times are in seconds; `max_retries` None is without end, 0 never.

    `constant` pauses `duration` before each retry. `exponential` begins with half a second, grows by half, at most
    `max_interval`, each pause drawn from 50 % to 150 % of it, and ends after 15 minutes in all. With
    `http_status_codes` or `grpc_status_codes` a failure that carries such a code is retried only when it is listed; one
    without a code always is.
    """

    policy: Literal["constant", "exponential"] = "constant"
    duration: float = 5.0
    max_interval: float = 60.0
    max_retries: int | None = None
    http_status_codes: CodeRanges | None = None
    grpc_status_codes: CodeRanges | None = None

    @property
    def total(self) -> float:
        """How long retrying goes on at most."""
        return EXPONENTIAL_TOTAL_SECONDS if self.policy == "exponential" else math.inf

    @property
    def attempts(self) -> int | None:
        """How often something is tried in all; None is without end."""
        return None if self.max_retries is None else self.max_retries + 1

    def allows(self, error: LapelError, effect: Effect, tries: int) -> bool:
        """Tell whether a call that failed with `error` after `tries` tries is sent again.

        What may have happened is never repeated where that would do it twice, whatever the policy says.
        """
        if self.max_retries is not None and tries > self.max_retries:
            return False
        if isinstance(error, OutcomeUnknownError):
            return error.repeatable and effect is not Effect.UNSAFE
        status = http_status_of(error)
        if status is not None and self.http_status_codes is not None:
            return self.retries_http(status)
        return not isinstance(error, (*ANSWERS, CircuitOpenError))

    def retries_http(self, status: int) -> bool:
        """Tell whether a reply with this HTTP status is to be retried."""
        return self.http_status_codes is None or any(status in codes for codes in self.http_status_codes)

    def delay(self, tries: int) -> float:
        """Return the pause after `tries` tries."""
        if self.policy == "constant":
            return self.duration
        try:
            pause = min(self.max_interval, EXPONENTIAL_SECONDS * EXPONENTIAL_FACTOR ** (tries - 1))
        except OverflowError:
            pause = self.max_interval
        return pause * random.uniform(1 - EXPONENTIAL_JITTER, 1 + EXPONENTIAL_JITTER)  # noqa: S311  # spreads load only

    def backoff(self) -> Backoff:
        """Return the pauses between deliveries of one message."""
        if self.policy == "constant":
            return Backoff(initial=self.duration, maximum=self.duration, jitter=0.0)
        return Backoff(
            initial=min(EXPONENTIAL_SECONDS, self.max_interval),
            maximum=self.max_interval,
            multiplier=EXPONENTIAL_FACTOR,
            jitter=EXPONENTIAL_JITTER,
        )


DISCOVERY_RETRIES = "DaprBuiltInInitializationRetries"
BUILT_IN_RETRIES = {
    "DaprBuiltInServiceRetries": ResiliencyRetry(duration=1.0, max_retries=3),
    "DaprBuiltInActorRetries": ResiliencyRetry(duration=1.0, max_retries=3),
    "DaprBuiltInActorReminderRetries": ResiliencyRetry(policy="exponential"),
    DISCOVERY_RETRIES: ResiliencyRetry(policy="exponential", max_interval=1.0, max_retries=3),
    "DaprBuiltInActorNotFoundRetries": ResiliencyRetry(duration=1.0, max_retries=5),
}
"""The retry policies that are there without a document, by their names in Dapr; a document may redefine them."""


def http_status_of(error: LapelError) -> int | None:
    """Return the HTTP status that an error, or what it came from, carries: its own, or that of a binding's reply."""
    status = getattr(error, "status", None) or getattr(error.__cause__, "status", None)
    if isinstance(status, int):
        return status
    metadata = getattr(getattr(error, "response", None), "metadata", None) or {}
    text = metadata.get("statusCode", "")
    return int(text) if text.isdecimal() else None


Counts = Mapping[str, int]
"""`requests`, `totalSuccesses`, `totalFailures`, `consecutiveSuccesses` and `consecutiveFailures`."""


def five_in_a_row(counts: Counts) -> bool:
    """Tell whether a breaker trips that says nothing about it: after more than five failures one after another."""
    return counts["consecutiveFailures"] > 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerPolicy:
    """A circuit breaker policy. Times are in seconds.

    Open for `timeout`, then half-open: `max_requests` calls may pass, and as many successes close it. While closed the
    counts start anew every `interval`; 0 is never. `trip` is asked after each failure.
    """

    name: str
    max_requests: int = 1
    interval: float = 0.0
    timeout: float = 60.0
    trip: Callable[[Counts], bool] = five_in_a_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What one target is called under: a retry of (a circuit breaker around (a time-out for each try))."""

    timeout: timedelta | None = None
    retry: ResiliencyRetry | None = None
    circuit_breaker: CircuitBreakerPolicy | None = None

    def __bool__(self) -> bool:
        return self != NONE


NONE = Policies()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentPolicies:
    """The policies of one component: `outbound` for calls to it, `inbound` for what it hands to the application."""

    outbound: Policies = NONE
    inbound: Policies = NONE

    def outbound_guard(self, component: str) -> Guard | None:
        """Return what carries out the outbound policies; None when there are none."""
        return self._guard(self.outbound, f"component {component!r}")

    def inbound_guard(self, component: str) -> Guard | None:
        """Return what carries out the inbound policies; None when there are none."""
        return self._guard(self.inbound, f"the application, for component {component!r}")

    @staticmethod
    def _guard(policies: Policies, target: str) -> Guard | None:
        if not policies:
            return None
        from .guard import Guard  # which needs asyncio, and most components have no policies

        return Guard(policies, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppPolicies:
    """The policies of calls to one application; `cache_size` is for how many of its endpoints breakers are kept."""

    policies: Policies = NONE
    cache_size: int = 100
