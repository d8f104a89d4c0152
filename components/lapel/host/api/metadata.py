"""Metadata: what is running here, and attributes that applications add."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ...bindings import InputBinding
from ...component import Component
from ...descriptor import Capability, Kind, capability_names
from ..http import NO_CONTENT, Request, Response
from ..routing import Route

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["routes"]

RELEASE = version("lapel")
_SHOWN = (
    Capability.ETAG
    | Capability.TRANSACTIONAL
    | Capability.TTL
    | Capability.QUERY_API
    | Capability.KEYS_LIKE
    | Capability.DELETE_WITH_PREFIX
    | Capability.PARTITION_KEY
    | Capability.MESSAGE_TTL
    | Capability.SUBSCRIBE_WILDCARDS
    | Capability.BULK_PUBSUB
    | Capability.BULK_SUBSCRIBE_IMMEDIATE
    | Capability.MULTIPLE_KEY_VALUES_PER_SECRET
)
"""Flags that Dapr knows. Clients may read the names as an enumeration, so ours stay out of it."""
_ACTOR = Capability.ETAG | Capability.TRANSACTIONAL


def routes(host: Host) -> list[Route]:
    """Return the routes of this API."""

    async def get(request: Request) -> Response:
        document: dict[str, Any] = {
            "id": host.options.app_id or "",
            "runtimeVersion": RELEASE,
            "components": _components(host),
            "extended": {"daprRuntimeVersion": RELEASE, **host.attributes},
            "actorRuntime": {"runtimeStatus": "DISABLED"},
        }
        for part in host.parts:
            document |= part.metadata()
        return Response.json({name: value for name, value in document.items() if value not in ("", [], {})})

    async def put(request: Request) -> Response:
        host.attributes[request.parameters[0]] = request.body.decode(errors="replace")
        return NO_CONTENT

    return [
        Route(("GET",), "/v1.0/metadata", get, "metadata", "What is running here"),
        Route(
            ("PUT",),
            "/v1.0/metadata/{key}",
            put,
            "metadata",
            "Set a custom attribute",
            "whole",
            accepts=str,
            answers=(204,),
        ),
    ]


def _components(host: Host) -> list[dict[str, Any]]:
    shown: dict[str, dict[str, Any]] = {}
    for component in host.components:
        descriptor = component.descriptor
        entry = shown.setdefault(
            component.name,
            {"name": component.name, "type": component.type, "version": descriptor.version, "capabilities": []},
        )
        entry["capabilities"] += [name for name in _capabilities(component) if name not in entry["capabilities"]]
    return [{name: value for name, value in shown[key].items() if value != []} for key in sorted(shown)]


def _capabilities(component: Component[Any]) -> list[str]:
    flags = component.capabilities
    if component.descriptor.kind is Kind.BINDINGS:
        return ["INPUT_BINDING" if isinstance(component, InputBinding) else "OUTPUT_BINDING"]
    names = capability_names(flags & _SHOWN)
    if component.descriptor.kind is Kind.STATE and flags & _ACTOR == _ACTOR:
        names.append("ACTOR")
    return names
