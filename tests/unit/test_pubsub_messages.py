"""What of a published message reaches a handler, a handler of batches, a dead letter topic, and a trace."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from tests.unit.delivery_support import QUICK, until, virtual
from tests.unit.pubsub_support import memory

from lapel.pubsub import InvalidEventError, Message, Outcome

# messages


@virtual
async def test_a_handler_gets_payload_type_attributes_key_and_event() -> None:
    got: list[Message] = []

    async def handle(message: Message) -> None:
        got.append(message)

    async with memory() as bus:
        await bus.subscribe("t", handle)
        await bus.publish("t", {"n": 1}, key="k", metadata={"colour": "red"})
        await bus.publish("t", b"\xff\x00")
        await until(lambda: len(got) == 2)
    first, second = got
    assert (first.topic, first.key, first.attempt, first.metadata) == ("t", "k", 1, {"colour": "red"})
    assert (first.data, first.content_type, first.text()) == (b'{"n":1}', "application/json", '{"n":1}')
    assert first.json() == {"n": 1}
    assert first.json(dict[str, int]) == {"n": 1}
    assert first.event.source == "Dapr"
    assert json.loads(first.raw)["data"] == {"n": 1}
    assert second.data == b"\xff\x00"
    assert "red" not in repr(first)
    assert "n" not in repr(first).partition("<")[2].replace("bytes", "")


@virtual
async def test_a_raw_subscription_gets_the_bytes_as_they_are() -> None:
    got: list[Message] = []

    async def handle(message: Message) -> None:
        got.append(message)

    async with memory() as bus:
        await bus.subscribe("t", handle, metadata={"rawPayload": "true"})
        await bus.publish("t", b"\x00plain", content_type="text/x", raw=True)
        await until(lambda: bool(got))
    message = got[0]
    assert (message.data, message.raw, message.content_type) == (b"\x00plain", b"\x00plain", "text/x")
    assert message.event.data == b"\x00plain"
    assert message.event is message.event


@virtual
async def test_a_message_that_should_be_an_event_and_is_not_says_so_and_can_be_given_up() -> None:
    errors: list[type[Exception]] = []
    letters: list[bytes] = []

    async def handle(message: Message) -> None:
        try:
            message.json()
        except InvalidEventError as exc:
            errors.append(type(exc))
            raise

    async def bury(message: Message) -> None:
        letters.append(message.data)

    async with memory() as bus:
        await bus.subscribe("dead", bury, raw=True)
        await bus.subscribe("t", handle, max_attempts=2, dead_letter_topic="dead", backoff=QUICK)
        await bus.publish("t", b"not json", raw=True)
        await until(lambda: bool(letters))
    assert errors == [InvalidEventError] * 2
    assert letters == [b"not json"]


# dead letters


@virtual
async def test_a_dead_letter_has_the_same_bytes_and_attributes_and_says_why_it_is_one() -> None:
    originals: list[Message] = []
    letters: list[Message] = []

    async def handle(message: Message) -> Outcome:
        originals.append(message)
        return Outcome.RETRY

    async def bury(message: Message) -> None:
        letters.append(message)

    async with memory() as bus:
        await bus.subscribe("dead", bury)
        await bus.subscribe("t", handle, max_attempts=3, dead_letter_topic="dead", backoff=QUICK)
        await bus.publish("t", {"n": 1}, key="k", metadata={"colour": "red", "ttl": "5s"})
        await until(lambda: bool(letters))
    assert [message.attempt for message in originals] == [1, 2, 3]
    letter = letters[0]
    assert letter.raw == originals[0].raw
    assert (letter.topic, letter.key, letter.event.topic) == ("dead", "k", "t")
    assert letter.metadata["colour"] == "red"
    assert "ttl" not in letter.metadata
    assert letter.metadata["dead-letter-attempts"] == "3"
    assert letter.metadata["dead-letter-topic"] == "t"
    assert "retry" in letter.metadata["dead-letter-reason"]
    assert letter.metadata["dead-letter-first-seen"].startswith("20")


EXPIRED = b'{"id":"1","source":"s","type":"t","specversion":"1.0","data":1,"expiration":"2020-01-01T00:00:00Z"}'


@virtual
async def test_an_expired_event_is_not_handled_but_goes_to_the_dead_letter_topic_and_does_not_expire_there() -> None:
    handled: list[Message] = []
    batches: list[int] = []
    letters: list[str] = []

    async def handle(message: Message) -> None:
        handled.append(message)

    async def handle_all(messages: list[Message]) -> list[Outcome | None]:
        batches.append(len(messages))
        return [None] * len(messages)

    async def bury(message: Message) -> None:
        letters.append(message.metadata["dead-letter-reason"])

    async with memory() as bus:
        await bus.subscribe("dead", bury)
        await bus.subscribe("t", handle, dead_letter_topic="dead")
        await bus.subscribe("t", handle, group="no dead letters")
        await bus.bulk_subscribe("t", handle_all, group="bulk", dead_letter_topic="dead", max_wait=0.5)
        await bus.publish("t", EXPIRED, raw=True)
        await bus.publish("t", EXPIRED.replace(b"2020", b"2999"), raw=True)
        await until(lambda: len(handled) == 2 and len(letters) == 2 and bool(batches))
        assert all(health.ok for health in [await bus.health()])
    assert batches == [1]
    assert "time to live" in letters[0]


# bulk subscribe


@virtual
async def test_bulk_subscribe_hands_over_lists_of_messages() -> None:
    batches: list[list[Any]] = []

    async def handle(messages: list[Message]) -> None:
        batches.append([message.json() for message in messages])

    async with memory() as bus:
        await bus.bulk_subscribe("t", handle, max_messages=3, max_wait=timedelta(seconds=1))
        for number in range(7):
            await bus.publish("t", number)
        await until(lambda: sum(map(len, batches)) == 7)
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]


# traces


@virtual
async def test_a_trace_goes_from_the_publisher_through_the_broker_into_the_handler() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    done: list[str] = []

    async def handle(message: Message) -> None:
        with tracer.start_as_current_span(f"inner {message.topic}"):
            done.append(message.topic)

    async def handle_all(messages: list[Message]) -> None:
        done.append("bulk")

    async with memory() as bus:
        bus._telemetry._tracer, bus._telemetry.active = tracer, True
        await bus.subscribe("events", handle)
        await bus.subscribe("raw", handle, raw=True)
        await bus.bulk_subscribe("events", handle_all, group="bulk", max_wait=0.1)
        with tracer.start_as_current_span("caller") as caller:
            await bus.publish("events", 1)
            await bus.publish("raw", b"1", raw=True)
        await until(lambda: sorted(done) == ["bulk", "events", "raw"])
    trace = caller.get_span_context().trace_id
    spans = {(span.name, span.kind): span for span in exporter.get_finished_spans()}
    for topic in ("events", "raw"):
        sent = spans[f"publish {topic}", SpanKind.PRODUCER]
        processed = [
            span
            for span in exporter.get_finished_spans()
            if span.name == f"process {topic}" and span.parent is not None
        ]
        inner = spans[f"inner {topic}", SpanKind.INTERNAL]
        assert sent.context is not None
        assert sent.context.trace_id == trace
        assert [span.parent.span_id for span in processed if span.parent] == [sent.context.span_id]
        assert processed[0].kind is SpanKind.CONSUMER
        assert processed[0].context is not None
        assert inner.parent is not None
        assert inner.parent.span_id == processed[0].context.span_id
        assert (sent.attributes or {})["messaging.destination.name"] == topic
    bulk = next(span for span in exporter.get_finished_spans() if span.links)
    sent = spans["publish events", SpanKind.PRODUCER]
    assert [link.context.span_id for link in bulk.links] == [sent.context.span_id if sent.context else None]
    assert sum(1 for span in exporter.get_finished_spans() if span.name.startswith("publish")) == 2
