"""The OpenAPI document of a host, made from its routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from .http import Request, Response
from .routing import Route

if TYPE_CHECKING:
    from .host import Host

__all__ = ["document", "routes"]

_ERROR = {
    "type": "object",
    "properties": {
        "errorCode": {"type": "string"},
        "message": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object"}},
    },
}
_TYPES: dict[type, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bytes: {"type": "string", "contentEncoding": "base64"},
}
_REFERENCE = "#/components/schemas/"
_BINARY = "application/octet-stream"
_PARAMETER = re.compile(r"\{(\w+)(?:\.\.\.)?\}")
RELEASE = version("lapel")


def routes(host: Host) -> list[Route]:
    """Return the route of the document, which shows what this host serves and no more."""

    async def get(request: Request) -> Response:
        return Response.json(document(host.router.routes))

    return [Route(("GET",), "/v1.0/openapi.json", get, "openapi", "This document")]


def document(served: Iterable[Route]) -> dict[str, Any]:
    """Return the document of these routes, without those that answer nothing but an error, or that people look at."""
    shown = [route for route in served if route.answers and route.group != "status"]
    structs = [route.accepts for route in shown if _is_described_by_msgspec(route.accepts)]
    bodies, schemas = msgspec.json.schema_components(structs, ref_template=_REFERENCE + "{name}")
    # The structs are private to their modules, their names here are not.
    bodies, schemas = msgspec.json.decode(
        msgspec.json.encode((bodies, {name.lstrip("_"): schema for name, schema in schemas.items()})).replace(
            f"{_REFERENCE}_".encode(), _REFERENCE.encode()
        )
    )
    for schema in schemas.values():
        schema.pop("additionalProperties", None)  # unknown fields are left out, not refused
    described = dict(zip((id(struct) for struct in structs), bodies, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        entry = paths.setdefault(_PARAMETER.sub(r"{\1}", route.template), {})
        for method in route.methods:
            entry[method.lower()] = _operation(route, described)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Dapr's HTTP API, served by lapel", "version": RELEASE},
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR, **schemas},
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "dapr-api-token"}},
        },
    }


def _operation(route: Route, described: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    parameters = [_parameter(name, "path") for name in _PARAMETER.findall(route.template)]
    parameters += [_parameter(name, "query") for name in route.query]
    parameters += [_parameter(name, "header") for name in route.headers]
    operation: dict[str, Any] = {
        "summary": route.summary,
        "tags": [route.group],
        "parameters": parameters,
        "responses": {str(status): _success(route, status) for status in route.answers},
    }
    operation["responses"]["default"] = {
        "description": "Not done; the error says why.",
        "content": {
            "application/json": {"schema": {"$ref": _REFERENCE + "Error"}},
            "text/plain": {"schema": {"type": "string"}},
        },
    }
    if not route.open:
        operation["security"] = [{}, {"token": []}]
    if route.body == "stream":
        operation["requestBody"] = {"required": True, "content": {_BINARY: {}}}
    elif route.accepts is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.accepts, described)}
    return operation


def _parameter(name: str, place: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if place == "path":
        schema["minLength"] = 1
    if name == "key" and place == "query":
        schema = {"type": "array", "items": schema}
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _success(route: Route, status: int) -> dict[str, Any]:
    if status == 204:
        return {"description": "Done, or there is nothing."}
    kind = _BINARY if route.body == "stream" else "application/json"
    return {"description": "Done.", "content": {kind: {}}}


def _content(accepts: Any, described: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    if accepts is str:
        return {"text/plain": {"schema": _TYPES[str]}}
    if accepts is bytes:
        return {"application/json": {}, "text/plain": {}, _BINARY: {}}
    if isinstance(accepts, Mapping):
        properties = {name: _TYPES.get(kind, {}) for name, kind in accepts.items()}
        return {"application/json": {"schema": {"type": "object", "properties": properties}}}
    return {"application/json": {"schema": described[id(accepts)]}}


def _is_described_by_msgspec(accepts: Any) -> bool:
    return accepts is not None and accepts not in (str, bytes) and not isinstance(accepts, Mapping)
