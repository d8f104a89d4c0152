"""What is soaked: a line here is all that a further driver needs to join."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SOAKED", "Soaked"]


@dataclass(frozen=True)
class Soaked:
    """Component files of `tests/conformance/components`, without their suffix, that are under load together.

    `technology` is the name of the backend that the launcher brings up for them; None when they need none.
    """

    name: str
    files: tuple[str, ...]
    technology: str | None = None


SOAKED = (
    Soaked(
        "embedded",
        ("state.in-memory", "pubsub.in-memory", "lock.in-memory", "state.sqlite", "pubsub.sqlite", "lock.sqlite"),
    ),
    Soaked(
        "redis",
        ("state.redis", "pubsub.redis", "configuration.redis", "lock.redis", "bindings.redis"),
        technology="redis",
    ),
)
