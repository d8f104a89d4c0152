"""What the pub/sub component makes of a publish, of one message or of many, before it goes to the driver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
from tests.unit.delivery_support import now, virtual
from tests.unit.pubsub_support import Recorder, recording

from lapel.descriptor import Capability, Limits
from lapel.errors import (
    InvalidArgumentError,
    LapelError,
    OperationFailedError,
    OutcomeUnknownTimeoutError,
    UnavailableError,
    UnsupportedError,
)
from lapel.pubsub import BulkPublishRequest, CloudEvent, PublishEntry, PublishRequest, PubSub

CLOUD_EVENT = "application/cloudevents+json"


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
