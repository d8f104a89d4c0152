"""Output bindings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ...bindings import OutputBinding
from ...bindings.errors import ReplyError
from ...errors import LapelError, NotFoundError, UnavailableError, UnsupportedError
from ..errors import HostError, reason
from ..http import JSON, NO_CONTENT, Request, Response, metadata_headers
from ..protojson import decode
from ..routing import Route
from ..tracecontext import present_trace

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["payload", "routes"]


class _Invocation(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, str] | None = None
    operation: str | None = None


_invocation = msgspec.json.Decoder(_Invocation)


def routes(host: Host) -> list[Route]:
    """Return the route of this API."""

    async def invoke(request: Request) -> Response:
        name = request.parameters[0]
        body = decode(_invocation, request.body, message="failed deserializing HTTP body: {}")
        try:
            binding = host.components.output_binding(name)
        except (NotFoundError, UnavailableError) as exc:
            raise _failed(name, f"couldn't find output binding {name}") from exc
        if not body.operation:
            raise _failed(name, "operation field is missing from request")
        data = None if isinstance(body.data, msgspec.UnsetType) else payload(binding, body.operation, bytes(body.data))
        try:
            response = await binding.invoke(
                body.operation, data, metadata={**(body.metadata or {}), **present_trace(request)}
            )
        except UnsupportedError as exc:
            offered = " ".join(binding.operations)
            text = f"binding {name} does not support operation {body.operation}. supported operations:{offered}"
            raise _failed(name, text) from exc
        except ReplyError as exc:
            raise _failed(name, reason(exc), metadata_headers(exc.response.metadata)) from exc
        except LapelError as exc:
            raise _failed(name, reason(exc)) from exc
        headers = metadata_headers(response.metadata)
        if response.data is None:
            return Response(204, b"", None, headers) if headers else NO_CONTENT
        return Response(200, await response.read(), JSON, headers)

    return [
        Route(
            ("POST", "PUT"),
            "/v1.0/bindings/{name}",
            invoke,
            "bindings",
            "Invoke an output binding",
            "whole",
            accepts=_Invocation,
            answers=(200, 204),
        ),
    ]


def payload(binding: OutputBinding, operation: str, data: bytes) -> bytes:
    """Return what JSON means to an operation: as it is, but for a string that is to be the content of something."""
    if data[:1] == b'"' and operation.lower() in binding.driver.content_operations:
        text: str = msgspec.json.decode(data)
        return text.encode()
    return data


def _failed(name: str, why: str, headers: list[tuple[bytes, bytes]] | None = None) -> HostError:
    text = f"error invoking output binding {name}: {why}"
    return HostError(500, "ERR_INVOKE_OUTPUT_BINDING", text, headers=headers or ())
