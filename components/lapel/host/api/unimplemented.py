"""APIs of Dapr that this host does not have: they say so."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import HostError, error_body
from ..http import Request, Response
from ..routing import Route

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["no_route", "routes"]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
_ABSENT = (
    ("/v1.0/invoke/{target...}", "invoke"),
    ("/v1.0/actors/{actor...}", "actors"),
    ("/v1.0/workflows/{workflow...}", "workflows"),
    ("/v1.0-beta1/workflows/{workflow...}", "workflows"),
    ("/v1.0-alpha1/workflows/{workflow...}", "workflows"),
    ("/v1.0/jobs/{job...}", "jobs"),
    ("/v1.0-alpha1/jobs/{job...}", "jobs"),
    ("/v1.0-alpha1/conversation/{conversation...}", "conversation"),
    ("/v1.0-alpha2/conversation/{conversation...}", "conversation"),
    ("/placement/{path...}", "placement"),
)
_UNIMPLEMENTED = HostError(501, "ERR_API_UNIMPLEMENTED", "this API is currently not implemented")
_NO_APP = HostError(
    404,
    "ERR_DIRECT_INVOKE",
    "failed getting app id either from the URL path or the header dapr-app-id",
)


def routes(host: Host) -> list[Route]:
    """Return routes that answer 501."""

    async def absent(request: Request) -> Response:
        raise _UNIMPLEMENTED

    return [Route(_METHODS, template, absent, group, "Not implemented", answers=()) for template, group in _ABSENT]


def no_route(headers: Iterable[tuple[bytes, bytes]]) -> Response:
    """Answer a path that no API has: it is an invocation when the headers name an application."""
    error = _UNIMPLEMENTED if _names_application(headers) else _NO_APP
    return Response(error.status, error_body(error))


def _names_application(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name == b"dapr-app-id" and value:
            return True
        if name == b"authorization" and value[:6].lower() == b"basic ":
            try:
                credentials = base64.b64decode(value[6:], validate=True)
            except binascii.Error:
                continue
            if credentials.startswith(b"dapr-app-id:") and len(credentials) > len(b"dapr-app-id:"):
                return True
    return False
