"""The APIs, one module each, as routes over a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import openapi
from . import (
    bindings,
    configuration,
    crypto,
    health,
    lock,
    metadata,
    pubsub,
    secrets,
    shutdown,
    state,
    subtlecrypto,
    unimplemented,
)

if TYPE_CHECKING:
    from ..host import Host
    from ..routing import Route

__all__ = ["routes"]

_APIS = (
    state,
    pubsub,
    bindings,
    secrets,
    configuration,
    lock,
    crypto,
    subtlecrypto,
    health,
    metadata,
    shutdown,
    openapi,
    unimplemented,
)


def routes(host: Host) -> list[Route]:
    """Return every route that a host can serve, before its rules take some away."""
    return [route for api in _APIS for route in api.routes(host)]
