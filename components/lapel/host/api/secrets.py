"""Secrets: one, or all that may be read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...descriptor import Capability, Kind
from ...errors import LapelError
from ...secretstores import SecretStore
from ..errors import HostError, reason
from ..http import Request, Response
from ..routing import Route
from .lookup import find

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["routes"]

_log = logging.getLogger("lapel.host")


def routes(host: Host) -> list[Route]:
    """Return the routes of this API."""

    def store_of(name: str) -> SecretStore:
        return find(
            host,
            Kind.SECRETSTORES,
            host.components.secret_store,
            name,
            none=lambda: HostError(500, "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store is not configured"),
            missing=lambda: HostError(
                401, "ERR_SECRET_STORE_NOT_FOUND", f"failed finding secret store with key {name}"
            ),
        )

    warned: set[str] = set()

    def versionless(store: SecretStore, metadata: Mapping[str, str]) -> Mapping[str, str]:
        """Leave out a version that the store cannot have: Dapr's stores ignore it, so that one can stand for another.

        In a program this is an error, here it is a warning, once for each store.
        """
        if "version_id" not in metadata or Capability.SECRET_VERSIONS in store.capabilities:
            return metadata
        if store.name not in warned:
            warned.add(store.name)
            _log.warning("secret store %s keeps no versions; metadata version_id is ignored", store.name)
        return {name: value for name, value in metadata.items() if name != "version_id"}

    async def get(request: Request) -> Response:
        name, key = request.parameters
        store = store_of(name)
        if not host.rules.allows_secret(name, key):
            text = f'access denied by policy to get "{key}" from "{name}"'
            raise HostError(403, "ERR_PERMISSION_DENIED", text)
        try:
            values = await store.get(key, metadata=versionless(store, request.metadata()))
        except LapelError as exc:
            text = f"failed getting secret with key {key} from secret store {name}: {reason(exc)}"
            raise HostError(500, "ERR_SECRET_GET", text) from exc
        return Response.json(dict(values))

    async def bulk(request: Request) -> Response:
        name = request.parameters[0]
        store = store_of(name)
        try:
            found = await store.bulk_get(metadata=request.metadata())
        except LapelError as exc:
            text = f"failed getting secrets from secret store {name}: {reason(exc)}"
            raise HostError(500, "ERR_SECRET_GET", text) from exc
        return Response.json(
            {key: dict(values) for key, values in found.items() if host.rules.allows_secret(name, key)}
        )

    return [
        Route(("GET",), "/v1.0/secrets/{store}/{name}", get, "secrets", "Read one secret"),
        Route(("GET",), "/v1.0/secrets/{store}/bulk", bulk, "secrets", "Read all secrets"),
    ]
