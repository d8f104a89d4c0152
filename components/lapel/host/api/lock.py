"""Locks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...descriptor import Kind
from ...errors import InvalidArgumentError, LapelError
from ...lock import LockStore
from ..errors import HostError, malformed, reason
from ..http import Request, Response
from ..protojson import Fields
from ..routing import Handler, Route
from .lookup import find

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["routes"]


def routes(host: Host) -> list[Route]:
    """Return the routes of this API. Dapr serves `v1.0-alpha1`; its documentation's examples say `v1.0-alpha`."""

    def store_of(name: str, resource: str, owner: str) -> LockStore:
        if not host.has(Kind.LOCK):
            raise HostError(500, "ERR_LOCK_STORE_NOT_CONFIGURED", "lock store is not configured")
        if not resource:
            raise malformed(f"ResourceId is empty in lock store {name}")
        if not owner:
            raise malformed(f"LockOwner is empty in lock store {name}")

        def missing() -> HostError:
            return HostError(400, "ERR_LOCK_STORE_NOT_FOUND", f"lock store {name} not found")

        return find(host, Kind.LOCK, host.components.lock, name, none=missing, missing=missing)

    async def lock(request: Request) -> Response:
        name = request.parameters[0]
        fields = Fields(request.body)
        resource, owner = fields.text("resourceId"), fields.text("lockOwner")
        expiry = fields.integer("expiryInSeconds")
        if expiry <= 0:
            raise malformed(f"ExpiryInSeconds is not positive in lock store {name}")
        store = store_of(name, resource, owner)
        try:
            grant = await store.try_lock(resource, owner, expiry)
        except InvalidArgumentError as exc:
            raise malformed(reason(exc)) from exc
        except LapelError as exc:
            raise HostError(500, "ERR_TRY_LOCK", f"failed to try acquiring lock: {reason(exc)}") from exc
        return Response.json({"success": bool(grant)})

    async def unlock(request: Request) -> Response:
        name = request.parameters[0]
        fields = Fields(request.body)
        resource, owner = fields.text("resourceId"), fields.text("lockOwner")
        store = store_of(name, resource, owner)
        try:
            status = await store.unlock(resource, owner)
        except InvalidArgumentError as exc:
            raise malformed(reason(exc)) from exc
        except LapelError as exc:
            raise HostError(500, "ERR_UNLOCK", f"failed to release lock: {reason(exc)}") from exc
        return Response.json({"status": int(status)})

    held = {"resourceId": str, "lockOwner": str}
    wanted = {**held, "expiryInSeconds": int}

    def post(version: str, group: str, handler: Handler, summary: str, accepts: Mapping[str, type]) -> Route:
        return Route(("POST",), f"/{version}/{group}/{{store}}", handler, group, summary, "whole", accepts=accepts)

    return [
        route
        for version in ("v1.0-alpha1", "v1.0-alpha")
        for route in (
            post(version, "lock", lock, "Take a lock if it is free", wanted),
            post(version, "unlock", unlock, "Give a lock back", held),
        )
    ]
