"""Carry traces across a broker in the W3C format. Imports OpenTelemetry only when a provider is set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .cloudevents import InvalidEventError
from .message import Message

__all__ = ["current_trace", "links_to", "parent_of"]


def current_trace() -> tuple[str, str]:
    """Return traceparent and tracestate of the current span, empty when there is none."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", ""), carrier.get("tracestate", "")


def parent_of(message: Message) -> Any:
    """Return the context of the span that published a message, an empty one when it is not known."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name: message.metadata.get(name, "") for name in ("traceparent", "tracestate")}
    if not carrier["traceparent"]:
        try:
            event = message.event
        except InvalidEventError:
            return Context()
        carrier = {"traceparent": event.traceparent, "tracestate": event.tracestate}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def links_to(messages: Sequence[Message]) -> list[Any]:
    """Return links to the spans that published these messages."""
    from opentelemetry.trace import Link, get_current_span

    spans = (get_current_span(parent_of(message)).get_span_context() for message in messages)
    return [Link(span) for span in spans if span.is_valid]
