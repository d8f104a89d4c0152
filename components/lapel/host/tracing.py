"""Spans of requests, in the trace that the caller began, and where they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..errors import MissingExtraError
from .configuration import TracingOptions

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from .http import Request
    from .routing import Route

__all__ = ["Tracing", "tracer_provider"]

_PROPAGATOR = TraceContextTextMapPropagator()
_FAILED = 500


class Tracing:
    """A `RequestHook` that runs each request in a span of its own, the child of the caller's where there is one."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("lapel.host")

    def started(self, request: Request, route: Route) -> Any:
        """Begin the span and make it the current one."""
        carrier = {name: value for name in ("traceparent", "tracestate") if (value := request.header(name.encode()))}
        span = self._tracer.start_span(
            f"{request.method} {route.template}",
            context=_PROPAGATOR.extract(carrier) if carrier else context.Context(),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": request.method, "http.route": route.template},
        )
        return span, context.attach(trace.set_span_in_context(span))

    def finished(self, token: Any, status: int) -> None:
        """End the span."""
        span, attached = token
        context.detach(attached)
        span.set_attribute("http.response.status_code", status)
        if status >= _FAILED:
            span.set_status(Status(StatusCode.ERROR))
        span.end()


def tracer_provider(options: TracingOptions, service: str) -> TracerProvider:
    """Return a provider that sends spans where the options say; `shutdown` of it sends what is left.

    Raises `MissingExtraError` when the exporter is not installed.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(options.sampling_rate), resource=Resource.create({"service.name": service})
    )
    if options.stdout:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    if options.otlp_endpoint:
        provider.add_span_processor(BatchSpanProcessor(_otlp(options)))
    if options.zipkin_endpoint:
        provider.add_span_processor(BatchSpanProcessor(_zipkin(options.zipkin_endpoint)))
    return provider


def _otlp(options: TracingOptions) -> SpanExporter:
    address, scheme = options.otlp_endpoint or "", "https" if options.otlp_secure else "http"
    endpoint = address if "://" in address else f"{scheme}://{address}"
    if options.otlp_protocol == "grpc":
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
        except ModuleNotFoundError as exc:
            raise _missing("opentelemetry-exporter-otlp-proto-grpc") from exc
        headers = tuple((name.lower(), value) for name, value in options.headers.items())
        return GrpcExporter(endpoint=endpoint, insecure=not options.otlp_secure, headers=headers)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as exc:
        raise _missing("opentelemetry-exporter-otlp-proto-http") from exc
    if not endpoint.rstrip("/").endswith("/v1/traces"):
        endpoint = endpoint.rstrip("/") + "/v1/traces"
    return OTLPSpanExporter(endpoint=endpoint, headers=dict(options.headers))


def _zipkin(endpoint: str) -> SpanExporter:
    try:
        from opentelemetry.exporter.zipkin.json import ZipkinExporter
    except ModuleNotFoundError as exc:
        raise _missing("opentelemetry-exporter-zipkin-json") from exc
    return ZipkinExporter(endpoint=endpoint)


def _missing(package: str) -> MissingExtraError:
    command = 'pip install "lapel[tracing]"'
    return MissingExtraError(f"spans cannot be sent without {package}; type: {command}", command=command)
