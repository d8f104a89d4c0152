"""What a fault suite has to know about the backend that it cuts a driver off from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["FaultBackend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultBackend:
    """Where a backend listens, how a component file says so, and how the backend is restarted.

    `host` and `port` are one TCP address that all traffic of the component can go through. `fields` returns, for the
    address of the backend or of the proxy in front of it, the metadata of the component file that lead there, with
    everything else that is needed to log in. `restart` stops the backend and starts it again on the same port with the
    data it had; it may block, and returns when the backend answers; None when it cannot be restarted.

    `proxy_port` is the port that the proxy is to listen on, 0 for any that is free. Name one for a backend that tells
    its clients where to connect, and let it advertise that port. Such a backend needs a second listener that advertises
    itself, whose address `fields` returns for `host` and `port`.
    """

    host: str
    port: int
    fields: Callable[[str, int], Mapping[str, str]]
    restart: Callable[[], object] | None = None
    proxy_port: int = 0
