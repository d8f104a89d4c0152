"""Configuration: read items, and have the application told of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...configuration import ConfigurationItem, ConfigurationStore
from ...descriptor import Kind
from ...errors import LapelError
from ..errors import HostError, reason
from ..http import NO_CONTENT, Request, Response
from ..routing import Route
from .lookup import find

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["item_data", "routes"]


def routes(host: Host) -> list[Route]:
    """Return the routes of this API."""
    api = _Configuration(host)
    group = "configuration"
    return [
        route
        for version in ("v1.0", "v1.0-alpha1")
        for route in (
            Route(
                ("GET",),
                f"/{version}/configuration/{{store}}",
                api.get,
                group,
                "Read items",
                query=("key",),
                answers=(200, 204),
            ),
            Route(
                ("GET",),
                f"/{version}/configuration/{{store}}/subscribe",
                api.subscribe,
                group,
                "Watch items",
                query=("key",),
            ),
            Route(
                ("GET",),
                f"/{version}/configuration/{{store}}/{{id}}/unsubscribe",
                api.unsubscribe,
                group,
                "End a subscription",
            ),
        )
    ]


def item_data(item: ConfigurationItem) -> dict[str, Any]:
    """Return an item as the API shows it: `version` and `metadata` only when there are any."""
    shown: dict[str, Any] = {"value": item.value}
    if item.version:
        shown["version"] = item.version
    if item.metadata:
        shown["metadata"] = dict(item.metadata)
    return shown


class _Configuration:
    def __init__(self, host: Host) -> None:
        self._host = host

    async def get(self, request: Request) -> Response:
        name = request.parameters[0]
        store = self._store(name)
        keys = _keys(request)
        try:
            items = await store.get(keys, metadata=request.metadata())
        except LapelError as exc:
            text = f"failed to get [{' '.join(keys)}] from Configuration store {name}: {reason(exc)}"
            raise HostError(500, "ERR_CONFIGURATION_GET", text) from exc
        if not items:
            return NO_CONTENT
        return Response.json({key: item_data(item) for key, item in items.items()})

    async def subscribe(self, request: Request) -> Response:
        name = request.parameters[0]
        store = self._store(name)
        app = self._host.app
        if app is None:
            raise HostError(500, "ERR_APP_CHANNEL_NIL", "app channel is not initialized")
        keys = _keys(request)
        try:
            subscription = await store.subscribe(keys, app.on_configuration(name), metadata=request.metadata())
        except LapelError as exc:
            text = f"failed to subscribe [{' '.join(keys)}] from Configuration store {name}: {reason(exc)}"
            raise HostError(500, "ERR_CONFIGURATION_SUBSCRIBE", text) from exc
        return Response.json({"id": subscription})

    async def unsubscribe(self, request: Request) -> Response:
        name, subscription = request.parameters
        store = self._store(name)
        try:
            await store.unsubscribe(subscription)
        except LapelError as exc:
            return Response.json({"message": reason(exc)}, 500)
        return Response.json({"ok": True})

    def _store(self, name: str) -> ConfigurationStore:
        code = "ERR_CONFIGURATION_STORE_NOT_"
        return find(
            self._host,
            Kind.CONFIGURATION,
            self._host.components.configuration,
            name,
            none=lambda: HostError(500, code + "CONFIGURED", "configuration stores not configured"),
            missing=lambda: HostError(400, code + "FOUND", f"configuration store {name} not found"),
        )


def _keys(request: Request) -> list[str]:
    return [value for key, value in request.query if key == "key" and value]
