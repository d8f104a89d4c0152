"""The status page as a part of a host."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..http import NO_CONTENT, Request, Response
from ..routing import Route
from .snapshot import Snapshots

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["StatusPage"]

HTML = b"text/html; charset=utf-8"


class StatusPage:
    """Shows a host to people. A `Part` of it.

    Anybody may load the page; what it shows needs the API token where one is set. Requests may overlap.
    """

    def __init__(self, host: Host) -> None:
        self._snapshots = Snapshots(host)
        self._page = NO_CONTENT

    async def start(self) -> None:
        """Read the page, and begin to keep what lapel logs."""
        self._page = await asyncio.to_thread(_page)
        self._snapshots.open()

    async def drain(self) -> None:
        """Do nothing: the page shows how the host ends."""

    async def stop(self) -> None:
        """Let go of the logs."""
        self._snapshots.close()

    def unready(self) -> str | None:
        """Return None: the page is no reason to wait."""
        return None

    def metadata(self) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    def routes(self) -> list[Route]:
        """Return the page and what it shows."""

        async def show(request: Request) -> Response:
            return self._page

        async def look(request: Request) -> Response:
            return Response.json(await self._snapshots.take(), headers=[(b"cache-control", b"no-store")])

        return [
            Route(("GET",), "/", show, "status", "The status page", open=True),
            Route(("GET",), "/status.json", look, "status", "What the status page shows"),
        ]


def _page() -> Response:
    html = files(__package__).joinpath("page.html").read_text("utf-8")
    headers = [
        (b"content-security-policy", _policy(html).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
    ]
    return Response(200, html.encode(), HTML, headers)


def _policy(html: str) -> str:
    """Return a policy under which nothing runs but what is in the page itself."""
    sources = {"style": "", "script": ""}
    for tag in sources:
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        sources[tag] = f"'sha256-{digest}'"
    return (
        f"default-src 'none'; connect-src 'self'; style-src {sources['style']}; script-src {sources['script']}; "
        "img-src data:; frame-ancestors 'none'; form-action 'none'"
    )
