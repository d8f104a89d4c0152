"""Resiliency documents: time-outs, retries and circuit breakers by name, and the targets that they are for.

Source: Dapr's resiliency overview and policy pages. The one owner of retries, `lapel.retrying`, carries them out.
"""

from __future__ import annotations

from .breaker import CircuitBreaker
from .documents import RESILIENCY_API, Resiliency, read_resiliency
from .guard import Guard
from .policies import (
    AppPolicies,
    CircuitBreakerPolicy,
    ComponentPolicies,
    Policies,
    ResiliencyRetry,
)

__all__ = [
    "RESILIENCY_API",
    "AppPolicies",
    "CircuitBreaker",
    "CircuitBreakerPolicy",
    "ComponentPolicies",
    "Guard",
    "Policies",
    "Resiliency",
    "ResiliencyRetry",
    "read_resiliency",
]
