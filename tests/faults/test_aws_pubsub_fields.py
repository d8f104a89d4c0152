"""pubsub.aws.snssqs: how many messages it asks for and holds, and subscriptions with raw delivery."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.backends.aws import AwsBackend
from tests.backends.aws_proxy import AwsProxy
from tests.conformance.aws_subject import client

import lapel
from lapel.pubsub import Message

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

HALF_MINUTE: Any = {"init_timeout": timedelta(seconds=30), "call_timeout": timedelta(seconds=30)}
MESSAGES = 8
ACCOUNT = "123456789012"


def settings_of(server: AwsBackend, **more: str) -> dict[str, str]:
    quick = {"messageVisibilityTimeout": "7", "messageWaitTimeSeconds": "1", "assetsManagementTimeoutSeconds": "30"}
    return {**server.properties, **quick, **more}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"concurrencyMode": "single"}, 1),
        ({"concurrencyMode": "single", "concurrencyLimit": "5"}, 1),
        ({"concurrencyMode": "parallel", "concurrencyLimit": "3"}, 3),
        ({"concurrencyMode": "parallel", "concurrencyLimit": "0"}, MESSAGES),
    ],
)
async def test_concurrency_fields_bound_what_a_subscription_holds(
    aws_server: AwsBackend, fields: dict[str, str], expected: int
) -> None:
    unique = uuid4().hex[:8]
    running, most = 0, 0
    done: set[bytes] = set()
    reached, complete = asyncio.Event(), asyncio.Event()

    async def handle(message: Message) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running >= expected:
            reached.set()
        # What comes beyond the bound has this long to come.
        await reached.wait()
        await asyncio.sleep(0.1)
        running -= 1
        done.add(message.data)
        if len(done) == MESSAGES:
            complete.set()

    settings = settings_of(aws_server, consumerID=f"app-{unique}", **fields)
    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"t-{unique}", handle, concurrency=MESSAGES),
    ):
        await bus.bulk_publish(f"t-{unique}", [b"%d" % number for number in range(MESSAGES)])
        async with asyncio.timeout(60):
            await complete.wait()
    assert most == expected


async def test_requests_for_messages_ask_for_what_the_fields_say(aws_server: AwsBackend, aws_proxy: AwsProxy) -> None:
    unique = uuid4().hex[:8]
    done: list[bytes] = []
    complete = asyncio.Event()

    async def handle(message: Message) -> None:
        done.append(message.data)
        if len(done) == MESSAGES:
            complete.set()

    settings = settings_of(aws_server, endpoint=aws_proxy.url, consumerID=f"app-{unique}", messageMaxNumber="3")
    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"t-{unique}", handle, concurrency=20),
    ):
        await bus.bulk_publish(f"t-{unique}", [b"%d" % number for number in range(MESSAGES)])
        async with asyncio.timeout(60):
            await complete.wait()
    asked = [request.json for request in aws_proxy.of("ReceiveMessage")]
    assert {each["MaxNumberOfMessages"] for each in asked} == {3}
    assert {(each["VisibilityTimeout"], each["WaitTimeSeconds"]) for each in asked} == {(7, 1)}


async def test_a_subscription_with_raw_delivery_gives_what_was_published(aws_server: AwsBackend) -> None:
    unique = uuid4().hex[:8]

    def make() -> None:
        sns, sqs = client(aws_server, "sns"), client(aws_server, "sqs")
        topic = sns.create_topic(Name=f"t-{unique}")["TopicArn"]
        sqs.create_queue(QueueName=f"app-{unique}")
        endpoint = f"arn:aws:sqs:us-east-1:{ACCOUNT}:app-{unique}"
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=endpoint, Attributes={"RawMessageDelivery": "true"})

    await asyncio.to_thread(make)
    got: dict[bytes, Message] = {}
    complete = asyncio.Event()

    async def handle(message: Message) -> None:
        got[message.data] = message
        if len(got) == 3:
            complete.set()

    settings = settings_of(aws_server, consumerID=f"app-{unique}", disableEntityManagement="true", accountID=ACCOUNT)
    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"t-{unique}", handle),
    ):
        await bus.publish(f"t-{unique}", b"text", content_type="text/plain", metadata={"colour": "red"})
        await bus.publish(f"t-{unique}", b'{"Type": "Notification"}', content_type="application/json", key="k")
        await bus.publish(f"t-{unique}", b"\x00\xff", content_type="application/octet-stream")
        async with asyncio.timeout(60):
            await complete.wait()
    assert set(got) == {b"text", b'{"Type": "Notification"}', b"\x00\xff"}
    assert {message.topic for message in got.values()} == {f"t-{unique}"}
    assert got[b"text"].metadata["colour"] == "red"
    assert got[b'{"Type": "Notification"}'].key == "k"
