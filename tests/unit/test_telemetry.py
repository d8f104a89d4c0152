"""Spans and metrics: right when OpenTelemetry is set up, free when it is not, and never with data in them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import opentelemetry.metrics
import opentelemetry.trace
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.unit.plain_component import WRITE, Clock, Gate, box, raising

from lapel.descriptor import Descriptor, Kind
from lapel.errors import DeadlineExceededError, NotFoundError, OperationFailedError, UnavailableError
from lapel.policy import Effect, Operation
from lapel.telemetry import RECHECK_SECONDS, Telemetry

QUIET = Operation("quiet", Effect.SAFE, traced=False)


class Sdk:
    """An SDK whose providers the test sets when it likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def set_tracers(self) -> None:
        self._monkeypatch.setattr(opentelemetry.trace, "get_tracer_provider", lambda: self.tracers)

    def set_meters(self) -> None:
        self._monkeypatch.setattr(opentelemetry.metrics, "get_meter_provider", lambda: self.meters)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    @property
    def points(self) -> dict[str, list[HistogramDataPoint]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    assert metric.unit == "s"
                    found[metric.name] = list(metric.data.data_points)
        return found


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Sdk:
    return Sdk(monkeypatch)


async def answer() -> str:
    return "answer"


async def test_without_a_provider_nothing_is_made() -> None:
    async with box() as component:
        await component.do(answer)
        assert not component._telemetry.active


async def test_a_call_is_one_span_with_the_names_of_the_conventions(sdk: Sdk) -> None:
    sdk.set_tracers()
    async with box() as component:
        assert await component.do(answer) == "answer"
        assert await component.do(answer, WRITE) == "answer"
        assert await component.do(answer, QUIET) == "answer"
    assert [span.name for span in sdk.spans] == ["read", "write"]
    span = sdk.spans[0]
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "db.operation.name": "read",
        "db.system.name": "plain",
        "lapel.component.name": "box",
        "lapel.component.type": "state.plain",
    }


async def test_spans_hang_below_the_callers_own(sdk: Sdk) -> None:
    sdk.set_tracers()
    async with box() as component:
        with sdk.tracers.get_tracer("app").start_as_current_span("request") as request:
            await component.do(answer)
    parent = sdk.spans[0].parent
    assert parent is not None
    assert parent.span_id == request.get_span_context().span_id


@pytest.mark.parametrize("which", ["tracers", "meters"])
async def test_a_provider_set_after_opening_is_noticed_within_a_second(which: str, sdk: Sdk) -> None:
    clock = Clock()
    async with box() as component:
        await component.do(answer)
        if which == "tracers":
            sdk.set_tracers()
        else:
            sdk.set_meters()
        clock.advance(RECHECK_SECONDS)
        await component.do(answer)
    if which == "tracers":
        assert [span.name for span in sdk.spans] == ["read"]
        assert sdk.points == {}
    else:
        assert sum(point.count for point in sdk.points["db.client.operation.duration"]) == 1
        assert sdk.spans == ()


async def test_a_busy_component_looks_for_providers_once_a_second_only(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, looks = Clock(), 0

    def count() -> TracerProvider | opentelemetry.trace.ProxyTracerProvider:
        nonlocal looks
        looks += 1
        return opentelemetry.trace.ProxyTracerProvider()

    monkeypatch.setattr(opentelemetry.trace, "get_tracer_provider", count)
    async with box() as component:
        for _ in range(1000):
            await component.do(answer)
        assert looks <= 3
        before = looks
        clock.advance(RECHECK_SECONDS)
        await component.do(answer)
        assert looks == before + 1


@pytest.mark.parametrize(
    ("raised", "seen"),
    [(NotFoundError("no order canary-7d1b93"), NotFoundError), (ValueError("canary-7d1b93"), OperationFailedError)],
)
async def test_a_failure_is_marked_by_its_class_and_nothing_of_its_text(
    raised: Exception, seen: type[Exception], sdk: Sdk
) -> None:
    sdk.set_tracers()
    sdk.set_meters()
    async with box() as component:
        with pytest.raises(seen):
            await component.do(raising(raised))
    span = sdk.spans[0]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == seen.__name__
    assert (span.attributes or {})["error.type"] == seen.__name__
    assert span.events == ()
    assert "canary" not in span.to_json()
    (point,) = sdk.points["db.client.operation.duration"]
    assert (point.attributes or {})["error.type"] == seen.__name__
    assert "canary" not in repr(point)


async def test_a_missed_deadline_is_what_the_span_says_not_how_it_was_done(sdk: Sdk) -> None:
    clock, gate = Clock(), Gate()
    sdk.set_tracers()
    async with box() as component:
        call = asyncio.create_task(component.do(gate))
        await gate.reached.wait()
        clock.advance(5)
        with pytest.raises(DeadlineExceededError):
            await call
    assert (sdk.spans[0].attributes or {})["error.type"] == "DeadlineExceededError"


async def test_all_tries_of_a_call_are_one_span(sdk: Sdk) -> None:
    sdk.set_tracers()
    failures = [UnavailableError("busy"), UnavailableError("busy")]

    async def mended() -> None:
        if failures:
            raise failures.pop()

    async with box() as component:
        await component.do(mended)
    assert [span.status.status_code for span in sdk.spans] == [StatusCode.UNSET]


async def test_durations_are_recorded_in_buckets_made_for_seconds(sdk: Sdk) -> None:
    sdk.set_meters()
    async with box() as component:
        for _ in range(3):
            await component.do(answer)
    (point,) = sdk.points["db.client.operation.duration"]
    assert point.count == 3
    assert 0 <= point.sum < 60
    assert min(point.explicit_bounds) == 0.001
    assert dict(point.attributes or {}) == {
        "db.operation.name": "read",
        "db.system.name": "plain",
        "lapel.component.name": "box",
        "lapel.component.type": "state.plain",
    }


@pytest.mark.parametrize(
    ("kind", "metric", "expected"),
    [
        (Kind.PUBSUB, "messaging.client.operation.duration", {"messaging.operation.name", "messaging.system"}),
        (Kind.LOCK, "lapel.client.operation.duration", {"lapel.operation.name"}),
    ],
)
def test_other_kinds_have_their_own_names(kind: Kind, metric: str, expected: set[str], sdk: Sdk) -> None:
    sdk.set_tracers()
    sdk.set_meters()
    telemetry = Telemetry(Descriptor(kind=kind, name="x", driver="m:C", settings="m:S", summary="X."), "name")
    telemetry.refresh()
    with telemetry.operation("do", target="orders", kind=SpanKind.PRODUCER, attributes={"extra": 1}) as span:
        assert span is not None
    assert sdk.spans[0].name == "do orders"
    assert sdk.spans[0].kind is SpanKind.PRODUCER
    (point,) = sdk.points[metric]
    common = {"extra", "lapel.component.name", "lapel.component.type"}
    assert set(point.attributes or {}) == set(sdk.spans[0].attributes or {}) == expected | common


def test_a_program_without_opentelemetry_never_imports_it() -> None:
    program = """
import asyncio, json, sys
import lapel

async def main():
    async with lapel.open_state("in-memory") as store:
        await store.set("key", "value")
        assert (await store.get("key")).json() == "value"
    async with lapel.open_pubsub("in-memory") as bus:
        seen = asyncio.Event()
        async def handle(message):
            seen.set()
        await bus.subscribe("topic", handle)
        await bus.publish("topic", 1)
        await seen.wait()

asyncio.run(main())
print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []


def test_numbers_of_a_subscription_are_gauges(sdk: Sdk) -> None:
    telemetry = Telemetry(Descriptor(kind=Kind.PUBSUB, name="plain", driver="", settings="", summary=""), "bus")
    telemetry.measure({"lag": 1}, {})
    sdk.set_meters()
    telemetry.refresh()
    for lag in (5, 7):
        telemetry.measure({"lag": lag, "rebalances": 2}, {"messaging.destination.name": "orders"})
    data = sdk.reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric.data for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    (point,) = metrics["lapel.subscription.lag"].data_points
    assert isinstance(point, NumberDataPoint)
    assert point.value == 7
    assert dict(point.attributes or {}) == {
        "lapel.component.name": "bus",
        "lapel.component.type": "pubsub.plain",
        "messaging.system": "plain",
        "messaging.destination.name": "orders",
    }
    assert "lapel.subscription.rebalances" in metrics
