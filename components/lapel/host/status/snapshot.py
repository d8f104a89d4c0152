"""What the status page shows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...bindings import Reading
from ...descriptor import capability_names
from ...health import Health
from ..api.metadata import RELEASE
from ..logs import RecentProblems

if TYPE_CHECKING:
    from ..app import AppSide
    from ..host import Host

__all__ = ["Snapshots"]

FRESH_SECONDS = 1.0
"""How long a snapshot serves all who ask, so that many viewers cost no more than one."""


class Snapshots:
    """Looks at a host, at most once a second. Keeps the last problems that lapel logged while it was open."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._problems = RecentProblems()
        self._taken: dict[str, Any] = {}
        self._until = 0.0
        self._lock = asyncio.Lock()

    def open(self) -> None:
        """Begin to keep what is logged."""
        logging.getLogger("lapel").addHandler(self._problems)

    def close(self) -> None:
        """Take no further notice of logs."""
        logging.getLogger("lapel").removeHandler(self._problems)

    async def take(self) -> Mapping[str, Any]:
        """Return the present snapshot. Bounded by the call deadlines of the components."""
        async with self._lock:
            if time.monotonic() >= self._until:
                self._taken = await self._look()
                self._until = time.monotonic() + FRESH_SECONDS
        return self._taken

    async def _look(self) -> dict[str, Any]:
        host = self._host
        waits = host.unready()
        return {
            "appId": host.options.app_id or "",
            "release": RELEASE,
            "ready": not waits,
            "waitsFor": waits,
            "components": await self._components(),
            "subscriptions": [] if host.app is None else await _subscriptions(host.app),
            "problems": self._problems.entries(),
        }

    async def _components(self) -> list[dict[str, Any]]:
        components = self._host.components
        health = await components.health()
        shown: dict[str, dict[str, Any]] = {}
        for component in components:
            entry = shown.setdefault(
                component.name,
                {
                    "name": component.name,
                    "type": component.type,
                    "version": component.descriptor.version,
                    "capabilities": [],
                    **_health(health[component.name]),
                },
            )
            entry["capabilities"] += [
                name for name in capability_names(component.capabilities) if name not in entry["capabilities"]
            ]
        for name, error in components.failures.items():
            manifest = components.manifests[name]
            shown[name] = {
                "name": name,
                "type": manifest.type,
                "version": manifest.version,
                "capabilities": [],
                "health": "left out",
                "reason": str(error),
            }
        return [shown[name] for name in sorted(shown)]


async def _subscriptions(app: AppSide) -> list[dict[str, Any]]:
    armed = app.armed()
    shown = []
    for one in app.subscriptions:
        running = armed.get((one.pubsub, one.topic))
        entry: dict[str, Any] = {
            "component": one.pubsub,
            "topic": one.topic,
            "paths": [rule.path for rule in one.rules.rules],
            "origin": one.origin.lower(),
        }
        if running is None or isinstance(running, Reading):
            entry |= {"health": "not armed", "reason": None, "inFlight": None, "lag": None}
        else:
            lag = await _lag(running)
            entry |= {**_health(running.health()), "inFlight": running.in_flight, "lag": lag}
        shown.append(entry)
    for (component, topic), running in armed.items():
        if topic is None:
            entry = {"component": component, "topic": "", "paths": [], "origin": "input binding"}
            shown.append({**entry, **_health(running.health()), "inFlight": None, "lag": None})
    return shown


async def _lag(running: Any) -> int | None:
    try:
        async with asyncio.timeout(2.0):
            lag: int | None = await running.lag()
            return lag
    except Exception:
        return None


def _health(health: Health) -> dict[str, Any]:
    return {"health": health.state.value, "reason": health.reason}
