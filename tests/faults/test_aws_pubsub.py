"""pubsub.aws.snssqs: what it makes at AWS, its order, its dead letters, and what it does when SNS refuses."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from tests.backends.aws import AwsBackend
from tests.backends.aws_proxy import AwsProxy, Reply
from tests.conformance.aws_subject import client

import lapel
from lapel.errors import NotFoundError, OutcomeUnknownError
from lapel.pubsub import Message, Outcome
from lapel.testing import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

HALF_MINUTE: Any = {"init_timeout": timedelta(seconds=30), "call_timeout": timedelta(seconds=30)}
QUICK = {"messageVisibilityTimeout": "5", "messageWaitTimeSeconds": "1", "assetsManagementTimeoutSeconds": "30"}


async def nothing(message: Message) -> None:
    """Handle a message."""


async def test_topics_queues_and_policies_are_as_dapr_makes_them(aws_server: AwsBackend) -> None:
    unique = uuid4().hex[:8]
    settings = {**aws_server.properties, **QUICK, "consumerID": f"app.{unique}", "fifo": "true"}
    settings |= {"sqsDeadLettersQueueName": f"dead-{unique}", "messageReceiveLimit": "3"}
    async with lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus:
        for topic in (f"orders/{unique}", f"bills-{unique}.fifo"):
            async with await bus.subscribe(topic, nothing):
                pass

    def look() -> None:
        sns, sqs = client(aws_server, "sns"), client(aws_server, "sqs")
        arns = {f"arn:aws:sns:us-east-1:123456789012:{name}{unique}.fifo" for name in ("orders", "bills-")}
        for arn in arns:
            attributes = sns.get_topic_attributes(TopicArn=arn)["Attributes"]
            assert (attributes["FifoTopic"], attributes["ContentBasedDeduplication"]) == ("true", "true")
            (subscription,) = sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]
            assert subscription["Endpoint"].endswith(f":app{unique}.fifo")
            own = sns.get_subscription_attributes(SubscriptionArn=subscription["SubscriptionArn"])["Attributes"]
            assert own.get("RawMessageDelivery", "false") == "false"
        tags = sns.list_tags_for_resource(ResourceArn=f"arn:aws:sns:us-east-1:123456789012:orders{unique}.fifo")["Tags"]
        assert tags == [{"Key": "dapr-topic-name", "Value": f"orders/{unique}"}]
        url = sqs.get_queue_url(QueueName=f"app{unique}.fifo")["QueueUrl"]
        queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        statements = json.loads(queue["Policy"])["Statement"]
        assert {each["Condition"]["ArnEquals"]["aws:SourceArn"] for each in statements} == arns
        assert {(each["Action"], each["Principal"]["Service"]) for each in statements} == {
            ("sqs:SendMessage", "sns.amazonaws.com")
        }
        redrive = json.loads(queue["RedrivePolicy"])
        assert redrive["deadLetterTargetArn"].endswith(f":dead-{unique}.fifo")
        assert int(redrive["maxReceiveCount"]) == 3
        assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"dapr-queue-name": f"app.{unique}"}

    await asyncio.to_thread(look)


async def test_messages_of_a_key_keep_their_order_through_a_failure(aws_server: AwsBackend) -> None:
    unique = uuid4().hex[:8]
    settings = {**aws_server.properties, **QUICK, "consumerID": f"app-{unique}", "fifo": "true"}
    done: dict[str, list[str]] = {"a": [], "b": []}
    failed: list[str] = []
    complete = asyncio.Event()

    async def handle(message: Message) -> None:
        assert message.key is not None
        if message.text() == "a-1" and len(failed) < 2:
            failed.append(message.text())
            raise ValueError
        done[message.key].append(message.text())
        if sum(map(len, done.values())) == 20:
            complete.set()

    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"t-{unique}", handle, ordering="key"),
    ):
        for number in range(10):
            for key in ("a", "b"):
                await bus.publish(f"t-{unique}", f"{key}-{number}".encode(), content_type="text/plain", key=key)
        async with asyncio.timeout(60):
            await complete.wait()
    assert done == {key: [f"{key}-{number}" for number in range(10)] for key in ("a", "b")}
    assert len(failed) == 2


async def test_what_a_handler_drops_goes_to_the_dead_letter_queue(aws_server: AwsBackend) -> None:
    unique = uuid4().hex[:8]
    settings = {**aws_server.properties, **QUICK, "consumerID": f"app-{unique}"}
    settings |= {"sqsDeadLettersQueueName": f"dead-{unique}", "messageReceiveLimit": "3"}

    async def drop(message: Message) -> Outcome:
        return Outcome.DROP

    def take() -> list[dict[str, Any]]:
        sqs = client(aws_server, "sqs")
        url = sqs.get_queue_url(QueueName=f"dead-{unique}")["QueueUrl"]
        found: list[dict[str, Any]] = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20).get("Messages", [])
        return found

    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"t-{unique}", drop),
    ):
        await bus.publish(f"t-{unique}", b"bad")
        (message,) = await asyncio.to_thread(take)
    assert "bad" in json.loads(message["Body"])["Message"]


async def test_without_management_what_is_missing_is_named_and_nothing_is_made(
    aws_server: AwsBackend, aws_proxy: AwsProxy
) -> None:
    settings = {**aws_server.properties, "endpoint": aws_proxy.url, **QUICK, "disableEntityManagement": "true"}
    settings |= {"consumerID": f"app-{uuid4().hex[:8]}", "accountID": "210987654321", "partition": "aws-cn"}
    async with lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus:
        with pytest.raises(NotFoundError):
            await bus.subscribe("absent", nothing)
        with pytest.raises(NotFoundError):
            await bus.publish("absent", b"x")
    (asked,) = aws_proxy.of("GetQueueUrl")
    assert asked.json["QueueOwnerAWSAccountId"] == "210987654321"
    (sent,) = aws_proxy.of("PublishBatch")
    assert sent.form["TopicArn"] == "arn:aws-cn:sns:us-east-1:210987654321:absent"
    assert not [each for each in aws_proxy.requests if each.operation in ("CreateTopic", "CreateQueue", "Subscribe")]


async def test_a_message_whose_confirmation_is_lost_is_sent_once(aws_server: AwsBackend, aws_proxy: AwsProxy) -> None:
    settings = {**aws_server.properties, "endpoint": aws_proxy.url, **QUICK}
    async with lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus:
        aws_proxy.first("PublishBatch", 1, Reply(lose=True))
        with pytest.raises(OutcomeUnknownError):
            await bus.publish(f"t-{uuid4().hex[:8]}", b"x")
    assert len(aws_proxy.of("PublishBatch")) == 1


async def test_closing_on_a_silent_connection_lets_go_of_all_clients(
    aws_server: AwsBackend, caplog: pytest.LogCaptureFixture
) -> None:
    unique, place, came = uuid4().hex[:8], urlsplit(aws_server.url), asyncio.Event()

    async def handle(message: Message) -> None:
        came.set()

    async with FaultProxy(place.hostname or "", place.port or 0) as proxy:
        endpoint = {"endpoint": f"http://{proxy.host}:{proxy.port}"}
        settings = {**aws_server.properties, **QUICK, **endpoint, "consumerID": f"app-{unique}"}
        terms: Any = {**HALF_MINUTE, "call_timeout": timedelta(seconds=2)}
        async with lapel.open_pubsub("aws.snssqs", settings, **terms) as bus:
            await bus.subscribe(f"orders-{unique}", handle)
            await bus.publish(f"orders-{unique}", b"before")
            async with asyncio.timeout(30):
                await came.wait()
            proxy.black_hole()
            with pytest.raises(OutcomeUnknownError):
                await bus.publish(f"orders-{unique}", b"lost")
            assert proxy.counters.dropped_request_bytes
    assert "did not close" not in caplog.text
