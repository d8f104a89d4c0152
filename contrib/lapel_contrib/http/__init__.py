"""Requests to HTTP servers."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind

__all__ = ["BINDING"]

BINDING = Descriptor(
    kind=Kind.BINDINGS,
    name="http",
    driver="lapel_contrib.http.binding:HttpBinding",
    settings="lapel_contrib.http.settings:HttpSettings",
    summary="Requests to one HTTP server.",
    capabilities=Capability.OUTPUT,
    operations=("create", "get", "head", "post", "put", "patch", "delete", "options", "trace"),
    extra="http",
)
