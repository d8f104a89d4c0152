"""How components are, as operators see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Health", "HealthState"]


class HealthState(StrEnum):
    """The states of a component, as operators see them."""

    INIT = "init"
    READY = "ready"
    DEGRADED = "degraded"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One look at a component. `reason` says why it is not ready; `details` holds numbers of the kind."""

    state: HealthState
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the component does its job."""
        return self.state is HealthState.READY
