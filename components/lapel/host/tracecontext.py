"""The trace of a caller, as its headers say, for APIs that hand it on."""

from __future__ import annotations

from .http import Request

__all__ = ["trace_of"]

_HEADERS = ((b"traceparent", "traceparent"), (b"tracestate", "tracestate"), (b"baggage", "baggage"))


def trace_of(request: Request) -> dict[str, str]:
    """Return the trace headers of a request; empty when there are none, or when a span of ours is current.

    A component puts its own span into what it sends, which is then the one to hand on.
    """
    if request.header(b"traceparent") is None:
        return {}
    from opentelemetry.trace import get_current_span

    if get_current_span().get_span_context().is_valid:
        return {}
    found = ((key, request.header(name)) for name, key in _HEADERS)
    return {key: value for key, value in found if value}
