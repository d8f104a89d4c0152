"""The pub/sub component: what goes to a driver, what reaches a handler, who may use which topic, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from tests.unit.delivery_support import now, until, virtual

from lapel.component import ComponentOptions, HealthState
from lapel.delivery import Backoff
from lapel.descriptor import Capability, Descriptor, Kind, Limits
from lapel.driver import DriverContext
from lapel.errors import (
    ClosedError,
    ConfigurationError,
    InvalidArgumentError,
    LapelError,
    NotOpenError,
    OperationFailedError,
    OutcomeUnknownTimeoutError,
    TopicForbiddenError,
    UnavailableError,
    UnsupportedError,
)
from lapel.pubsub import (
    BulkPublishRequest,
    CloudEvent,
    Consumer,
    InvalidEventError,
    Message,
    Outcome,
    PublishEntry,
    PublishRequest,
    PubSub,
    PubSubDriver,
    PubSubSettings,
    SubscribeRequest,
)
from lapel_contrib.memory.pubsub import MemoryPubSub
from lapel_contrib.memory.settings import MemoryPubSubSettings

QUICK = Backoff(initial=1.0, maximum=1.0, jitter=0.0)
# The first use of a settings class compiles it, which reads files; components do that off the loop.
PubSubSettings()
MemoryPubSubSettings()
NOTHING = Capability(0)
CLOUD_EVENT = "application/cloudevents+json"


class Recorder(PubSubDriver[PubSubSettings]):
    """Keeps what it is given."""

    descriptor: ClassVar[Descriptor] = Descriptor(
        kind=Kind.PUBSUB, name="recorder", driver="", settings="", summary="", limits=Limits(value_bytes=10_000)
    )

    def __init__(self, capabilities: Capability = NOTHING, app_id: str | None = None, **fields: Any) -> None:
        super().__init__(PubSubSettings(**fields), DriverContext(component="bus", app_id=app_id))
        self._capabilities = capabilities
        self.requests: list[PublishRequest] = []
        self.bulks: list[BulkPublishRequest] = []
        self.subscribed: list[SubscribeRequest] = []
        self.failure: Exception | None = None

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def publish(self, request: PublishRequest) -> None:
        if request.topic == "slow":
            await asyncio.sleep(1000)
        if self.failure:
            raise self.failure
        self.requests.append(request)

    async def bulk_publish(self, request: BulkPublishRequest) -> Sequence[LapelError | None]:
        self.bulks.append(request)
        return [UnavailableError("full") if entry.data == b"x" else None for entry in request.entries]

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        self.subscribed.append(request)
        raise self.failure or UnavailableError("not here")

    @property
    def last(self) -> PublishRequest:
        return self.requests[-1]


def recording(
    capabilities: Capability = NOTHING, *, app_id: str | None = None, envelope: bool = True, **fields: Any
) -> tuple[PubSub, Recorder]:
    driver = Recorder(capabilities, app_id, **fields)
    return PubSub(driver, options=ComponentOptions(app_id=app_id, envelope=envelope)), driver


def memory(name: str = "bus", *, options: ComponentOptions | None = None, **fields: Any) -> PubSub:
    return PubSub(MemoryPubSub(MemoryPubSubSettings(**fields), DriverContext(component=name)), options=options)


# publish


@pytest.mark.parametrize(
    ("data", "content_type", "sent", "sent_type"),
    [
        (b"\x00\xff", None, b"\x00\xff", None),
        (b"{}", "text/plain", b"{}", "text/plain"),
        (bytearray(b"ab"), "x/y", b"ab", "x/y"),
        ({"a": 1.0}, None, b'{"a":1.0}', "application/json"),
        ("text", None, b'"text"', "application/json"),
        ("text", "text/plain", b"text", "text/plain"),
        (None, None, b"null", "application/json"),
    ],
)
async def test_raw_messages_are_bytes_as_they_are_and_other_values_json(
    data: Any, content_type: str | None, sent: bytes, sent_type: str | None
) -> None:
    bus, driver = recording()
    async with bus:
        await bus.publish("t", data, content_type=content_type, raw=True, key="k")
    assert (driver.last.data, driver.last.content_type, driver.last.key) == (sent, sent_type, "k")


async def test_messages_are_wrapped_in_a_cloudevent() -> None:
    bus, driver = recording(app_id="shop")
    async with bus:
        await bus.publish("orders", {"n": 1}, metadata={"cloudevent.type": "paid"})
    event = json.loads(driver.last.data)
    assert driver.last.content_type == CLOUD_EVENT
    assert {name: event[name] for name in ("topic", "pubsubname", "source", "type", "data", "datacontenttype")} == {
        "topic": "orders",
        "pubsubname": "bus",
        "source": "shop",
        "type": "paid",
        "data": {"n": 1},
        "datacontenttype": "application/json",
    }


@pytest.mark.parametrize("data", [b'{"id":"7","specversion":"1.0","data":1}', {"id": "7", "data": 1}])
async def test_data_that_is_a_cloudevent_already_is_not_wrapped_again(data: Any) -> None:
    bus, driver = recording()
    async with bus:
        await bus.publish("t", data, content_type=CLOUD_EVENT + "; charset=utf-8")
    event = json.loads(driver.last.data)
    assert (event["id"], event["data"], event["topic"]) == ("7", 1, "t")


async def test_a_received_event_can_be_published_on() -> None:
    bus, driver = recording()
    async with bus:
        await bus.publish("next", CloudEvent(id="7", source="s", type="t", topic="old", pubsubname="p", data=b"1"))
    event = json.loads(driver.last.data)
    assert (event["id"], event["source"], event["topic"], event["pubsubname"]) == ("7", "s", "next", "bus")


@pytest.mark.parametrize(
    ("argument", "metadata", "envelope", "raw"),
    [
        (None, {}, True, False),
        (None, {"rawPayload": "true"}, True, True),
        (None, {"RAWPAYLOAD": "1"}, True, True),
        (False, {"rawPayload": "true"}, True, False),
        (True, {"rawPayload": "false"}, True, True),
        (None, {}, False, True),
        (False, {}, False, False),
    ],
)
async def test_the_argument_then_metadata_then_the_component_say_whether_there_is_an_envelope(
    argument: bool | None, metadata: dict[str, str], envelope: bool, raw: bool
) -> None:
    bus, driver = recording(envelope=envelope)
    async with bus:
        await bus.publish("t", b"x", raw=argument, metadata=metadata)
    assert (driver.last.data == b"x") is raw


async def test_a_lifetime_goes_to_the_broker_where_it_can_and_else_into_the_envelope() -> None:
    native, driver = recording(Capability.MESSAGE_TTL)
    async with native:
        await native.publish("t", b"x", ttl=timedelta(seconds=90))
        assert driver.last.ttl == 90
        assert b"expiration" not in driver.last.data
        await native.publish("t", b"x", ttl=2.5, metadata={"ttlInSeconds": "9"}, raw=True)
        assert driver.last.ttl == 2.5
        await native.publish("t", b"x", metadata={"ttl": "1m"})
        assert driver.last.ttl == 60
    wrapped, driver = recording()
    async with wrapped:
        await wrapped.publish("t", b"x", metadata={"ttlInSeconds": "9"})
        assert driver.last.ttl is None
        assert b"expiration" in driver.last.data
        await wrapped.publish("t", b"x", ttl=1.5, metadata={"TTL": "100h"})
        event = json.loads(driver.last.data)
        assert event["expiration"][:10] == event["time"][:10] or event["time"][11:13] == "23"
        with pytest.raises(UnsupportedError, match="MESSAGE_TTL"):
            await wrapped.publish("t", b"x", ttl=5, raw=True)


@pytest.mark.parametrize(
    "ttl", [0, -1, True, "5", float("nan"), float("inf"), timedelta(0), pytest.param(10**400, id="huge")]
)
async def test_lifetimes_that_make_no_sense_are_refused(ttl: Any) -> None:
    bus, driver = recording(Capability.MESSAGE_TTL)
    async with bus:
        with pytest.raises(InvalidArgumentError, match="bus"):
            await bus.publish("t", b"x", ttl=ttl)
        with pytest.raises(InvalidArgumentError):
            await bus.publish("t", b"x", metadata={"ttlInSeconds": "0"})
    assert driver.requests == []


async def test_a_delay_needs_a_broker_that_can() -> None:
    bus, driver = recording()
    async with bus:
        with pytest.raises(UnsupportedError, match="DELAYED_DELIVERY"):
            await bus.publish("t", b"x", delay=5)
    bus, driver = recording(Capability.DELAYED_DELIVERY)
    async with bus:
        await bus.publish("t", b"x", delay=timedelta(minutes=1))
        assert driver.last.delay == 60
        with pytest.raises(InvalidArgumentError):
            await bus.publish("t", b"x", delay=-1)


async def test_empty_topics_and_oversized_messages_are_refused_before_anything_is_sent() -> None:
    bus, driver = recording()
    async with bus:
        for topic, data in (("", b"x"), ("t", b"x" * 10_000)):
            with pytest.raises(InvalidArgumentError, match="publish"):
                await bus.publish(topic, data)
    assert driver.requests == []


async def test_metadata_reaches_the_driver_and_the_callers_mapping_stays_as_it_was() -> None:
    bus, driver = recording(Capability.ATTRIBUTES)
    metadata = MappingProxyType({"priority": "3"})
    async with bus:
        await bus.publish("t", b"x", metadata=metadata, ttl=5)
    assert driver.last.metadata == {"priority": "3"}


@virtual
async def test_a_publish_that_gets_no_answer_has_an_unknown_outcome_and_is_not_repeated() -> None:
    bus, driver = recording()
    async with bus:
        with pytest.raises(OutcomeUnknownTimeoutError):
            await bus.publish("slow", b"x")
        driver.failure = UnavailableError("down")
        with pytest.raises(UnavailableError, match=r"component 'bus' \(pubsub.recorder\) publish: down"):
            await bus.publish("t", b"x")


async def test_publishing_needs_an_open_component() -> None:
    bus, _ = recording()
    with pytest.raises(NotOpenError):
        await bus.publish("t", b"x")
    async with bus:
        pass
    for call in (bus.publish("t", b"x"), bus.bulk_publish("t", []), bus.subscribe("t", _ignore)):
        with pytest.raises(ClosedError):
            await call


# bulk publish


@pytest.mark.parametrize("native", [Capability.BULK_PUBSUB, Capability(0)], ids=["native", "one by one"])
async def test_bulk_publish_gives_one_outcome_for_each_entry_in_order(native: Capability) -> None:
    bus, driver = recording(native)
    async with bus:
        outcomes = await bus.bulk_publish(
            "t",
            [b"a", PublishEntry(data=b"x" * 20_000, entry_id="big"), PublishEntry(data={"n": 1}, entry_id="ok")],
            raw=True,
        )
    assert [outcome.entry_id for outcome in outcomes] == ["0", "big", "ok"]
    assert isinstance(outcomes[1].error, InvalidArgumentError)
    assert [outcome.error for outcome in outcomes][::2] == [None, None]
    sent = driver.bulks[0].entries if native else driver.requests
    assert [request.data for request in sent] == [b"a", b'{"n":1}']


async def test_a_native_bulk_call_reports_each_entry_and_respects_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorder, "limits", Limits(bulk_items=2))
    bus, driver = recording(Capability.BULK_PUBSUB)
    async with bus:
        outcomes = await bus.bulk_publish("t", [b"a", b"b", b"c", b"x", b"e"], raw=True)
    assert [len(bulk.entries) for bulk in driver.bulks] == [2, 2, 1]
    assert [outcome.error is None for outcome in outcomes] == [True, True, True, False, True]
    assert "component 'bus'" in str(outcomes[3].error)


async def test_a_native_bulk_call_with_the_wrong_number_of_answers_fails_every_entry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def short(self: Recorder, request: BulkPublishRequest) -> Sequence[LapelError | None]:
        return [None]

    monkeypatch.setattr(Recorder, "bulk_publish", short)
    bus, _ = recording(Capability.BULK_PUBSUB)
    async with bus:
        outcomes = await bus.bulk_publish("t", [b"a", b"b"])
    assert all(isinstance(outcome.error, OperationFailedError) for outcome in outcomes)


@virtual
async def test_one_by_one_keeps_the_order_of_a_key_and_runs_the_others_side_by_side() -> None:
    began: list[tuple[float, bytes]] = []

    class Slow(Recorder):
        async def publish(self, request: PublishRequest) -> None:
            began.append((now(), request.data))
            await asyncio.sleep(1)

    bus = PubSub(Slow())
    async with bus:
        entries = [PublishEntry(data=str(n).encode(), key="k" if n < 3 else None) for n in range(10)]
        start = now()
        assert all(outcome.error is None for outcome in await bus.bulk_publish("t", entries, raw=True))
    assert now() - start == pytest.approx(3)
    assert [data for _, data in began if data < b"3"] == [b"0", b"1", b"2"]
    assert sum(1 for moment, _ in began if moment == start) == 8


async def test_entry_metadata_wins_over_that_of_the_call() -> None:
    bus, driver = recording()
    entry = PublishEntry(data=b"a", metadata=MappingProxyType({"x": "entry"}))
    async with bus:
        await bus.bulk_publish("t", [entry, b"b"], metadata=MappingProxyType({"x": "call", "rawPayload": "true"}))
    assert [(request.data, request.metadata["x"]) for request in driver.requests] == [(b"a", "entry"), (b"b", "call")]


@pytest.mark.parametrize("ids", [("a", "a"), ("1", None), ("", "b")])
async def test_entry_ids_must_be_unique(ids: tuple[str | None, str | None]) -> None:
    bus, driver = recording()
    async with bus:
        with pytest.raises(InvalidArgumentError, match="unique"):
            await bus.bulk_publish("t", [PublishEntry(data=b"", entry_id=name) for name in ids])
        assert await bus.bulk_publish("t", []) == []
    assert driver.requests == []


# topic scopes

SCOPES: dict[str, Any] = {
    "allowed_topics": ("a", "b", "c", "p"),
    "protected_topics": ("p",),
    "publishing_scopes": " app1 = a , p ; app2 = ",
    "subscription_scopes": "app1=b",
}


@pytest.mark.parametrize(
    ("app", "publishes", "subscribes"),
    [("app1", {"a", "p"}, {"b"}), ("app2", set(), {"a", "b", "c"}), ("app3", {"a", "b", "c"}, {"a", "b", "c"})],
)
async def test_topic_scopes_say_who_may_use_what(app: str, publishes: set[str], subscribes: set[str]) -> None:
    bus, driver = recording(app_id=app, **SCOPES)
    denied = r"app '{}' may not .* topic '{}'"
    async with bus:
        for topic in ("a", "b", "c", "p", "z"):
            if topic in publishes:
                await bus.publish(topic, b"")
            else:
                with pytest.raises(TopicForbiddenError, match=denied.format(app, topic)):
                    await bus.publish(topic, b"")
            with pytest.raises(UnavailableError if topic in subscribes else TopicForbiddenError):
                await bus.subscribe(topic, _ignore)
    assert {request.topic for request in driver.requests} == publishes


async def test_without_an_app_id_topic_scopes_do_not_apply() -> None:
    bus, driver = recording(**SCOPES)
    async with bus:
        await bus.publish("z", b"")
    assert driver.last.topic == "z"


async def test_a_dead_letter_topic_must_be_one_that_the_app_may_publish_to() -> None:
    bus, _ = recording(app_id="app1", **SCOPES)
    async with bus:
        with pytest.raises(TopicForbiddenError, match="publish to topic 'c'"):
            await bus.subscribe("b", _ignore, dead_letter_topic="c")


def test_a_scope_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="publishing_scopes"):
        recording(app_id="app1", publishing_scopes="app1:a")


# subscribe


async def _ignore(message: Message) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("group", "consumer_id", "app_id", "expected"),
    [
        ("g", "c", "a", "g"),
        (None, "c", "a", "c"),
        (None, None, "a", "a"),
        (None, None, None, "bus"),
    ],
)
async def test_the_consumer_group_is_the_argument_then_the_field_then_the_app_then_the_component(
    group: str | None, consumer_id: str | None, app_id: str | None, expected: str
) -> None:
    bus, driver = recording(app_id=app_id, consumer_id=consumer_id)
    async with bus:
        with pytest.raises(UnavailableError, match=r"component 'bus' \(pubsub.recorder\) subscribe"):
            await bus.subscribe("t", _ignore, group=group, metadata={"x": "y"})
        assert bus.subscriptions == frozenset()
    assert driver.subscribed[0].group == expected
    assert driver.subscribed[0].metadata == {"x": "y"}
    assert driver.subscribed[0].prefetch == 20


@pytest.mark.parametrize(
    "options",
    [
        {"ordering": "sideways"},
        {"concurrency": 0},
        {"max_attempts": 0},
        {"drain_timeout": -1},
        {"dead_letter_topic": "t"},
        {"dead_letter_topic": ""},
        {"metadata": {"rawPayload": "maybe"}},
    ],
)
async def test_wrong_arguments_of_subscribe_are_refused(options: Mapping[str, Any]) -> None:
    bus, driver = recording()
    async with bus:
        with pytest.raises(InvalidArgumentError, match="component 'bus'"):
            await bus.subscribe("t", _ignore, **options)
        with pytest.raises(InvalidArgumentError):
            await bus.subscribe("", _ignore)
        with pytest.raises(InvalidArgumentError):
            await bus.bulk_subscribe("t", _ignore_all, max_messages=0)
    assert driver.subscribed == []


async def _ignore_all(messages: list[Message]) -> None:
    """Do nothing."""


@pytest.mark.parametrize("ordering", ["key", "all"])
async def test_an_order_that_the_driver_does_not_keep_is_refused(ordering: str) -> None:
    bus, _ = recording()
    async with bus:
        with pytest.raises(UnsupportedError, match="ORDER"):
            await bus.subscribe("t", _ignore, ordering=ordering)


async def test_a_foreign_error_of_a_driver_becomes_ours() -> None:
    bus, driver = recording()
    driver.failure = KeyError("x")
    async with bus:
        with pytest.raises(OperationFailedError, match="KeyError"):
            await bus.subscribe("t", _ignore)


async def test_subscribing_where_nobody_answers_ends_with_the_init_timeout() -> None:
    @virtual
    async def scenario() -> None:
        class Mute(Recorder):
            async def subscribe(self, request: SubscribeRequest) -> Consumer:
                await asyncio.sleep(1000)
                raise AssertionError

        bus = PubSub(Mute(), options=ComponentOptions(init_timeout=timedelta(seconds=3)))
        async with bus:
            with pytest.raises(UnavailableError, match="3 s"):
                await bus.subscribe("t", _ignore)

    await asyncio.to_thread(scenario)


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


# health, pause, end


@virtual
async def test_health_of_the_component_is_that_of_its_worst_subscription() -> None:
    async def fail(message: Message) -> None:
        raise ValueError

    async with memory() as bus:
        await bus.subscribe("fine", _ignore)
        sick = await bus.subscribe("sick", fail, backoff=QUICK, drain_timeout=0)
        assert (await bus.health()).ok
        await bus.publish("sick", 1)
        await asyncio.sleep(20)
        health = await bus.health()
        assert health.state is HealthState.DEGRADED
        assert "sick (bus)" in str(health.reason)
        assert set(health.details) == {"fine (bus)", "sick (bus)"}
        await sick.aclose()
        assert sick.health().state is HealthState.CLOSED
        assert (await bus.health()).ok
        assert {item.topic for item in bus.subscriptions} == {"fine"}


@virtual
async def test_pause_and_resume_twice_each() -> None:
    got: list[Any] = []

    async def handle(message: Message) -> None:
        got.append(message.json())

    async with memory() as bus, await bus.subscribe("t", handle) as subscription:
        await subscription.pause()
        await subscription.pause()
        assert subscription.paused
        await bus.publish("t", 1)
        await asyncio.sleep(60)
        assert got == []
        assert await subscription.lag() == 1
        await subscription.resume()
        await subscription.resume()
        await until(lambda: got == [1])
        assert await subscription.lag() == 0
        assert subscription.in_flight == 0


@virtual
async def test_pause_needs_a_driver_that_can() -> None:
    class Rigid(MemoryPubSub):
        async def open(self) -> None:
            self.withdraw(Capability.PAUSE, "not today")

    async with PubSub(Rigid(MemoryPubSubSettings(), DriverContext(component="bus"))) as bus:
        subscription = await bus.subscribe("t", _ignore)
        with pytest.raises(UnsupportedError, match="not today"):
            await subscription.pause()


@virtual
async def test_publishing_stays_possible_until_the_last_handler_has_ended_but_subscribing_does_not() -> None:
    log: list[str] = []

    async def handle(message: Message) -> None:
        await asyncio.sleep(8)
        await bus.publish("other", b"")
        assert [outcome.error for outcome in await bus.bulk_publish("other", [b""])] == [None]
        log.append("published")
        with pytest.raises(ClosedError):
            await bus.subscribe("t", _ignore)
        log.append("refused")

    bus = memory()
    async with bus:
        await bus.subscribe("t", handle)
        await bus.publish("t", b"")
        await asyncio.sleep(1)
    assert log == ["published", "refused"]
    with pytest.raises(ClosedError):
        await bus.publish("t", b"")


@virtual
async def test_no_handler_starts_after_the_component_began_to_close() -> None:
    started: list[bytes] = []
    release = asyncio.Event()

    async def handle(message: Message) -> None:
        started.append(message.data)
        await release.wait()

    bus = memory()
    await bus.open()
    await bus.subscribe("t", handle, concurrency=1)
    await bus.publish("t", b"1")
    await bus.publish("t", b"2")
    await until(lambda: bool(started))
    closing = asyncio.create_task(bus.aclose())
    await asyncio.sleep(0)
    release.set()
    await closing
    assert started == [b"1"]


@virtual
async def test_a_handler_can_close_its_component() -> None:
    log: list[str] = []

    async def handle(message: Message) -> None:
        began = now()
        await bus.aclose()
        assert now() - began < 1
        log.append("closing")
        await asyncio.sleep(3)
        log.append("handler ends")

    bus = memory()
    await bus.open()
    await bus.subscribe("t", handle)
    await bus.publish("t", b"")
    await until(lambda: bool(log))
    await bus.aclose()
    log.append("closed")
    assert log == ["closing", "handler ends", "closed"]
    assert (await bus.health()).state is HealthState.CLOSED


@virtual
async def test_a_subscription_that_arms_while_the_component_closes_is_taken_back() -> None:
    entered = asyncio.Event()

    class Slow(MemoryPubSub):
        async def subscribe(self, request: SubscribeRequest) -> Consumer:
            consumer = await super().subscribe(request)
            entered.set()
            await asyncio.sleep(1)
            return consumer

    bus = PubSub(Slow(MemoryPubSubSettings(), DriverContext(component="bus")))
    await bus.open()
    arming = asyncio.create_task(bus.subscribe("t", _ignore))
    await entered.wait()
    await bus.aclose()
    with pytest.raises(ClosedError):
        await arming
    assert bus.subscriptions == frozenset()
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


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
