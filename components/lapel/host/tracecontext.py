"""The trace of a caller, as its headers say, for APIs that hand it on."""

from __future__ import annotations

from ..pubsub.tracing import current_trace
from .http import Request

__all__ = ["present_trace", "trace_of"]

_HEADERS = ((b"traceparent", "traceparent"), (b"tracestate", "tracestate"), (b"baggage", "baggage"))


def trace_of(request: Request) -> dict[str, str]:
    """Return the trace headers of a request; empty when there are none, or when a span of ours is current.

    A pub/sub component puts its own span into what it sends, which is then the one to hand on.
    """
    if request.header(b"traceparent") is None:
        return {}
    from opentelemetry.trace import get_current_span

    if get_current_span().get_span_context().is_valid:
        return {}
    found = ((key, request.header(name)) for name, key in _HEADERS)
    return {key: value for key, value in found if value}


def present_trace(request: Request) -> dict[str, str]:
    """Return the headers of the trace that goes on from here: our span's where one is current, else the caller's."""
    parent, state = current_trace()
    if not parent:
        return trace_of(request)
    found = {"traceparent": parent, "tracestate": state, "baggage": request.header(b"baggage") or ""}
    return {key: value for key, value in found.items() if value}
