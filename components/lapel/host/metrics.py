"""Prometheus metrics: requests by Dapr's names, what waits and what is under way, and the core's own measurements."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..errors import UnavailableError

if TYPE_CHECKING:
    from .host import Host
    from .http import Request
    from .routing import Route

__all__ = ["Metrics", "serve_metrics"]

_MILLISECONDS = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 650, 800),
    *(1000, 2000, 5000, 10000, 20000, 50000, 100000),
)


class Metrics:
    """A `RequestHook` that counts, and the registry that a scrape reads. Paths are templates, so they are few."""

    def __init__(self, host: Host) -> None:
        self.registry = CollectorRegistry()
        self._app_id = host.options.app_id or ""
        labels = ("app_id", "method", "path", "status")
        self._requests = Counter("dapr_http_server_request_count", "Requests answered", labels, registry=self.registry)
        self._latency = Histogram(
            "dapr_http_server_latency",
            "Milliseconds from request to answer",
            labels,
            buckets=_MILLISECONDS,
            registry=self.registry,
        )
        self._counters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.registry.register(_Inside(host))

    def started(self, request: Request, route: Route) -> Any:
        """Start the clock of a request."""
        return request.method, route.template, time.perf_counter()

    def finished(self, token: Any, status: int) -> None:
        """Count an answer."""
        method, path, began = token
        elapsed = (time.perf_counter() - began) * 1000
        found = self._counters.get((method, path, status))
        if found is None:
            labels = (self._app_id, method, path, str(status))
            found = self._requests.labels(*labels), self._latency.labels(*labels)
            self._counters[method, path, status] = found
        requests, latency = found
        requests.inc()
        latency.observe(elapsed)


class _Inside(Collector):
    """What the host looks like at the moment of a scrape. Read from another thread, so it only looks."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        host = self._host
        ready = GaugeMetricFamily("lapel_host_ready", "Whether the host serves")
        ready.add_metric([], float(host.ready))
        yield ready
        if not host.started:
            return
        loaded = GaugeMetricFamily("dapr_runtime_component_loaded", "Components that are open", labels=["app_id"])
        loaded.add_metric([host.options.app_id or ""], len(host.components))
        yield loaded
        if host.app is None:
            return
        in_flight = GaugeMetricFamily(
            "lapel_subscription_in_flight", "Messages held by a subscription", labels=["component", "topic"]
        )
        for (component, topic), armed in list(host.app.armed().items()):
            held = getattr(armed, "in_flight", None)
            if held is not None:
                in_flight.add_metric([component, topic or ""], held)
        yield in_flight


def serve_metrics(metrics: Metrics, address: str, port: int) -> Any:
    """Serve the registry at `/metrics` from a thread of its own; return what `shutdown` ends.

    Raises `UnavailableError` when the port is taken.
    """
    try:
        server, _ = start_http_server(port, address, registry=metrics.registry)
    except OSError as exc:
        text = f"cannot serve metrics on {address} port {port}: {exc.strerror or exc}; choose another --metrics-port"
        raise UnavailableError(text) from exc
    return server
