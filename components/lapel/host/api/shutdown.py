"""Shutdown: the application asks its host to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..http import NO_CONTENT, Request, Response
from ..routing import Route

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["routes"]


def routes(host: Host) -> list[Route]:
    """Return the route of this API."""

    async def shutdown(request: Request) -> Response:
        # Whoever runs the host waits for this and lets calls under way finish, this one included.
        host.stopping.set()
        return NO_CONTENT

    return [Route(("POST",), "/v1.0/shutdown", shutdown, "shutdown", "End the host gracefully", answers=(204,))]
