"""Health: is the host ready for the application, and are its outbound APIs ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import HostError
from ..http import NO_CONTENT, Request, Response
from ..routing import Handler, Route

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["routes"]


def routes(host: Host) -> list[Route]:
    """Return the routes of this API. They need no token, and no list of rules removes them."""

    async def healthz(request: Request) -> Response:
        app_id = request.argument("appid")
        if app_id and app_id != host.options.app_id:
            raise HostError(500, "ERR_HEALTH_APPID_NOT_MATCH", "dapr app-id does not match")
        if reasons := host.unready():
            raise HostError(500, "ERR_HEALTH_NOT_READY", f"dapr is not ready: [{' '.join(reasons)}]")
        return NO_CONTENT

    async def outbound(request: Request) -> Response:
        if not host.ready:
            raise HostError(500, "ERR_OUTBOUND_HEALTH_NOT_READY", "dapr outbound is not ready")
        return NO_CONTENT

    def get(template: str, handler: Handler, summary: str, *query: str) -> Route:
        return Route(("GET",), template, handler, "healthz", summary, open=True, query=query, answers=(204,))

    return [
        get("/v1.0/healthz", healthz, "Whether host and application are ready", "appid"),
        get("/v1.0/healthz/outbound", outbound, "Whether the components are ready"),
    ]
