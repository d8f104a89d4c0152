"""What travels with a message, and what a queue is declared with."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic

from lapel.errors import InvalidArgumentError
from lapel.pubsub.driver import PubSubDriver
from lapel_contrib.rabbitmq.messages import attributes_of, event_metadata, properties_of
from lapel_contrib.rabbitmq.pubsub import RabbitPubSub
from lapel_contrib.rabbitmq.pubsub_settings import RabbitPubSubSettings
from lapel_contrib.rabbitmq.topology import QueuePlan, exchange_declaration, plan

KEPT = {"deletedWhenUnused": "false"}


def properties(metadata: dict[str, str], **terms: Any) -> Basic.Properties:
    given: dict[str, Any] = {"content_type": None, "ttl": None, **terms}
    return properties_of(metadata, **given)[0]


def planned(metadata: dict[str, str] | None = None, *, ordered: bool = False, **fields: Any) -> QueuePlan:
    return plan(RabbitPubSubSettings.parse({**KEPT, **fields}), "orders", "shop", metadata or {}, ordered=ordered)


def test_metadata_become_properties_and_headers() -> None:
    found, special = properties_of(
        {
            "MessageID": "m",
            "correlationId": "c",
            "type": "t",
            "priority": "300",
            "contentType": "text/csv",
            "routingKey": "key",
            "origin": "here",
        },
        content_type="text/plain",
        ttl=1.5,
        key="lane",
        skipped=frozenset({"routingkey"}),
    )
    assert (found.message_id, found.correlation_id, found.message_type) == ("m", "c", "t")
    assert (found.priority, found.content_type, found.expiration, found.delivery_mode) == (255, "text/csv", "1500", 2)
    assert found.headers == {"origin": "here", "lapel-key": "lane"}
    assert special == {"routingkey": "key"}
    assert properties({"priority": "-7"}).priority == 0
    assert properties({}, ttl=0.0001).expiration == "1"
    assert properties({}).content_type is None


def test_a_lifetime_that_the_broker_has_no_bits_for_is_refused() -> None:
    assert properties({}, ttl=4_294_967.0).expiration == "4294967000"
    with pytest.raises(InvalidArgumentError, match="time to live"):
        properties({}, ttl=4_294_968.0)


def test_the_binding_sends_all_metadata_as_headers() -> None:
    metadata = {"priority": "3", "ttl": "5s", "messageID": "m", "other": "x"}
    found = properties(metadata, all_headers=True, skipped=frozenset({"ttl"}))
    assert (found.priority, found.message_id) == (3, "m")
    assert found.headers == metadata


@pytest.mark.parametrize(
    "metadata",
    [
        {"priority": "high"},
        {"priority": "1.5"},
        {"CC": "elsewhere"},
        {"BCC": "elsewhere"},
        {"n" * 129: "x"},
        {"messageID": "m" * 256},
        {"correlationID": "ü" * 128},
        {"big": "x" * 100_001},
    ],
)
def test_what_amqp_cannot_carry_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidArgumentError):
        properties(metadata)


def test_headers_of_any_kind_arrive_as_text_and_the_brokers_own_stay_away() -> None:
    received = Basic.Properties(
        headers={
            "text": "x",
            "bytes": b"y",
            "number": 5,
            "flag": True,
            "table": {"a": [1, 2]},
            "lapel-key": "lane",
            "x-death": [{"count": 1}],
            "x-delivery-count": 3,
            "x-first-death-queue": "q",
            "CC": ["other"],
        },
        message_id="m",
        content_type="text/plain",
    )
    attributes, key = attributes_of(received, expose_properties=False)
    assert attributes == {"text": "x", "bytes": "y", "number": "5", "flag": "true", "table": '{"a":[1,2]}'}
    assert key == "lane"
    exposed, _ = attributes_of(received, expose_properties=True)
    assert exposed["metadata.messageid"] == "m"
    assert exposed["metadata.contenttype"] == "text/plain"
    assert exposed["metadata.text"] == "x"
    assert "metadata.correlationid" not in exposed
    assert event_metadata(Basic.Properties(headers={"a b": "x", "n": 1})) == {"a+b": "x"}


def test_a_queue_is_declared_as_dapr_does() -> None:
    found = planned()
    assert (found.exchange, found.queue, found.exchange_kind) == ("orders", "shop-orders", "fanout")
    assert (found.durable, found.auto_delete, found.routing_keys) == (True, False, ("",))
    assert found.arguments == {"x-queue-type": "classic"}
    found = planned(enableDeadLetter="true", maxLen="5", maxLenBytes="50", exchangeKind="topic", durable="false")
    assert (found.dead_letters, found.exchange_kind, found.durable) == (True, "topic", False)
    lengths = {"x-max-length": 5, "x-max-length-bytes": 50}
    assert found.lengths == lengths
    assert found.arguments == {"x-queue-type": "classic", "x-dead-letter-exchange": "dlx-shop-orders", **lengths}


def test_metadata_of_a_subscription_win_over_the_component() -> None:
    found = planned(
        {
            "queueName": "mine",
            "routingKey": "a.*,b",
            "maxPriority": "1000",
            "singleActiveConsumer": "yes",
            "maxLen": "7",
        },
        maxLen="5",
        maxPriority="2",
    )
    assert (found.queue, found.routing_keys) == ("mine", ("a.*", "b"))
    assert found.arguments == {
        "x-queue-type": "classic",
        "x-max-length": 7,
        "x-max-priority": 255,
        "x-single-active-consumer": True,
    }
    found = planned({"queueType": "quorum", "deliveryLimit": "4"})
    assert found.quorum
    assert found.arguments == {"x-queue-type": "quorum", "x-delivery-limit": 4}
    assert planned(ordered=True).arguments["x-single-active-consumer"] is True
    assert planned({"singleActiveConsumer": "no"}, ordered=True).single_active
    assert not planned({"singleActiveConsumer": "no"}, singleActiveConsumer="true").single_active


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("false", None), (None, None)])
def test_without_an_order_a_single_active_consumer_is_there_only_where_it_is_asked_for(
    text: str | None, expected: bool | None
) -> None:
    found = planned({} if text is None else {"singleActiveConsumer": text})
    assert found.arguments.get("x-single-active-consumer") is expected
    assert found.single_active is bool(expected)


def test_asking_for_an_order_changes_the_queue_for_others() -> None:
    assert PubSubDriver.order_is_free
    assert not RabbitPubSub.order_is_free


@pytest.mark.parametrize(
    ("metadata", "fields"),
    [
        ({"queueType": "stream"}, {}),
        ({"queueType": "quorum"}, {"deletedWhenUnused": "true"}),
        ({"queueType": "quorum"}, {"durable": "false"}),
        ({"queueType": "quorum", "maxPriority": "3"}, {}),
        ({"deliveryLimit": "3"}, {}),
        ({"maxLen": "-1"}, {}),
        ({"maxLen": "many"}, {}),
        ({"queueName": "q" * 256}, {}),
        ({"routingKey": "a,ü" + "k" * 254}, {}),
        ({"queueName": "q" * 252}, {"enableDeadLetter": "true"}),
    ],
)
def test_a_queue_that_cannot_be_is_refused(metadata: dict[str, str], fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        planned(metadata, **fields)


def test_only_exchanges_that_may_vanish_are_declared_with_every_message() -> None:
    assert exchange_declaration(RabbitPubSubSettings.parse(KEPT), "orders").again is None
    again = exchange_declaration(RabbitPubSubSettings.parse({}), "orders").again
    assert again is not None
    assert (again.exchange, again.nowait, again.auto_delete) == ("orders", True, True)  # type: ignore[attr-defined]
