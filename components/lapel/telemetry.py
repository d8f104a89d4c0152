"""Spans and metrics by the OpenTelemetry semantic conventions, through its API alone.

Nothing is imported or created until the application has set a real tracer or meter provider, so a program
without OpenTelemetry pays one attribute look-up per call.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .descriptor import Descriptor, Kind

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter
    from opentelemetry.trace import Span, SpanKind, Tracer

__all__ = ["RECHECK_SECONDS", "Telemetry"]

RECHECK_SECONDS = 1.0
"""How long after an application sets a provider its first spans may be missing."""

_DURATION = {
    Kind.STATE: "db.client.operation.duration",
    Kind.PUBSUB: "messaging.client.operation.duration",
}
_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""Seconds; what the conventions recommend. The SDK's own boundaries are meant for milliseconds."""
_SYSTEM = {Kind.STATE: "db.system.name", Kind.PUBSUB: "messaging.system"}
_OPERATION = {Kind.STATE: "db.operation.name", Kind.PUBSUB: "messaging.operation.name"}


class Telemetry:
    """The tracer and meter of one component. `active` is false while no provider is set."""

    __slots__ = ("_attributes", "_gauges", "_histogram", "_kind", "_meter", "_operation_key", "_tracer", "active")

    def __init__(self, descriptor: Descriptor, component: str) -> None:
        self._kind = descriptor.kind
        self._operation_key = _OPERATION.get(descriptor.kind, "lapel.operation.name")
        self._attributes: dict[str, str] = {
            "lapel.component.name": component,
            "lapel.component.type": descriptor.type,
        }
        if descriptor.kind in _SYSTEM:
            self._attributes[_SYSTEM[descriptor.kind]] = descriptor.name
        self._tracer: Tracer | None = None
        self._histogram: Histogram | None = None
        self._meter: Meter | None = None
        self._gauges: dict[str, Any] = {}
        self.active = False

    def refresh(self) -> None:
        """Look whether providers have been set. Cheap; called at open and once a second under load."""
        trace = sys.modules.get("opentelemetry.trace")
        if trace is not None and self._tracer is None:
            provider = trace.get_tracer_provider()
            if not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
                self._tracer = provider.get_tracer("lapel")
        metrics = sys.modules.get("opentelemetry.metrics")
        if metrics is not None and self._histogram is None:
            meters = metrics.get_meter_provider()
            # The proxy class is not exported; it is what the API hands out until a provider is set.
            if type(meters).__name__ not in ("_ProxyMeterProvider", "NoOpMeterProvider"):
                self._meter = meters.get_meter("lapel")
                self._histogram = self._meter.create_histogram(
                    _DURATION.get(self._kind, "lapel.client.operation.duration"),
                    unit="s",
                    description="Duration of component calls",
                    explicit_bucket_boundaries_advisory=_BUCKETS,
                )
        self.active = self._tracer is not None or self._histogram is not None

    def measure(self, values: Mapping[str, int], attributes: Mapping[str, str]) -> None:
        """Record each value in the gauge `lapel.subscription.<name>`. Does nothing while no meter provider is set."""
        if self._meter is None:
            return
        tags = {**self._attributes, **attributes}
        for name, value in values.items():
            gauge = self._gauges.get(name)
            if gauge is None:
                gauge = self._gauges[name] = self._meter.create_gauge(f"lapel.subscription.{name}")
            gauge.set(value, tags)

    @contextmanager
    def operation(
        self,
        name: str,
        *,
        target: str = "",
        kind: SpanKind | None = None,
        attributes: Mapping[str, Any] | None = None,
        links: Any = None,
        parent: Any = None,
    ) -> Iterator[Span | None]:
        """Run the body inside a span and record its duration.

        `target` is what the operation acts on (a topic, a table) and ends the span's name. `kind` None means
        CLIENT. `parent` is an OpenTelemetry context or None for the current one. An exception marks the span as
        failed by its class name only: its text could hold data.
        """
        tags = {**self._attributes, self._operation_key: name, **(attributes or {})}
        started = time.perf_counter()
        failure: str | None = None
        try:
            if self._tracer is None:
                yield None
            else:
                with self._span(name, target, kind, tags, links, parent) as span:
                    yield span
        except BaseException as exc:
            failure = type(exc).__name__
            raise
        finally:
            if self._histogram is not None:
                if failure:
                    tags["error.type"] = failure
                self._histogram.record(time.perf_counter() - started, tags)

    @contextmanager
    def _span(
        self, name: str, target: str, kind: SpanKind | None, tags: Mapping[str, Any], links: Any, parent: Any
    ) -> Iterator[Span]:
        from opentelemetry.trace import SpanKind, Status, StatusCode, use_span

        assert self._tracer is not None
        span = self._tracer.start_span(
            f"{name} {target}" if target else name,
            context=parent,
            kind=kind or SpanKind.CLIENT,
            attributes=dict(tags),
            links=links,
        )
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__name__)
                span.set_status(Status(StatusCode.ERROR, type(exc).__name__))
                raise
