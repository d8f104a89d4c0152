"""pubsub.aws.snssqs when its topics and queues are gone: both are made again, and what is published then arrives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.backends.aws import AwsBackend
from tests.backends.aws_fixtures import OwnAws
from tests.conformance.aws_subject import client

import lapel
from lapel.errors import LapelError, NotFoundError
from lapel.pubsub import Message, PubSub

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

HALF_MINUTE: Any = {"init_timeout": timedelta(seconds=30), "call_timeout": timedelta(seconds=30)}
QUICK = {"messageVisibilityTimeout": "5", "messageWaitTimeSeconds": "1", "assetsManagementTimeoutSeconds": "30"}
ACCOUNT = "123456789012"


class Inbox:
    """Notes what it gets."""

    def __init__(self) -> None:
        self.got: set[str] = set()

    async def __call__(self, message: Message) -> None:
        self.got.add(message.text())

    async def expect(self, *texts: str) -> None:
        async with asyncio.timeout(60):
            while not self.got.issuperset(texts):
                await asyncio.sleep(0.02)

    async def until_heard(self, bus: PubSub, topic: str) -> None:
        """Publish until something of it arrives."""
        async with asyncio.timeout(60):
            number = 0
            while not any(text.startswith("again") for text in self.got):
                number += 1
                # What is gone takes nothing.
                with suppress(LapelError):
                    await bus.publish(topic, f"again {number}".encode(), content_type="text/plain")
                await asyncio.sleep(0.05)


async def behind(server: AwsBackend, work: Callable[[Any, Any], None]) -> None:
    """Do something with SNS and SQS that the component does not know of."""
    await asyncio.to_thread(lambda: work(client(server, "sns"), client(server, "sqs")))


def no_queue(name: str) -> Callable[[Any, Any], None]:
    return lambda _, sqs: sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"])


def no_topic(name: str) -> Callable[[Any, Any], None]:
    return lambda sns, _: sns.delete_topic(TopicArn=f"arn:aws:sns:us-east-1:{ACCOUNT}:{name}")


async def test_all_topics_of_a_queue_that_was_deleted_come_back(aws_server: AwsBackend) -> None:
    unique, first, second = uuid4().hex[:8], Inbox(), Inbox()
    settings = {**aws_server.properties, **QUICK, "consumerID": f"app-{unique}"}
    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"first-{unique}", first),
        await bus.subscribe(f"second-{unique}", second) as paused,
    ):
        # It does not ask for messages, so it is not told that the queue is gone.
        await paused.pause()
        await bus.publish(f"first-{unique}", b"before", content_type="text/plain")
        await first.expect("before")
        await behind(aws_server, no_queue(f"app-{unique}"))
        await first.until_heard(bus, f"first-{unique}")
        await bus.publish(f"second-{unique}", b"after", content_type="text/plain")
        await paused.resume()
        await second.expect("after")

    def look(_: Any, sqs: Any) -> None:
        url = sqs.get_queue_url(QueueName=f"app-{unique}")["QueueUrl"]
        policy = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
        sources = {each["Condition"]["ArnEquals"]["aws:SourceArn"].rpartition(":")[2] for each in policy["Statement"]}
        assert sources == {f"first-{unique}", f"second-{unique}"}

    await behind(aws_server, look)


@pytest.mark.parametrize("also_queue", [False, True])
async def test_what_is_published_to_a_topic_made_again_reaches_its_subscriptions(
    aws_server: AwsBackend, also_queue: bool
) -> None:
    unique, inbox = uuid4().hex[:8], Inbox()
    settings = {**aws_server.properties, **QUICK, "consumerID": f"app-{unique}"}
    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"t-{unique}", inbox),
    ):
        await bus.publish(f"t-{unique}", b"before", content_type="text/plain")
        await inbox.expect("before")
        await behind(aws_server, no_topic(f"t-{unique}"))
        if also_queue:
            await behind(aws_server, no_queue(f"app-{unique}"))
        with pytest.raises(NotFoundError):
            await bus.publish(f"t-{unique}", b"lost", content_type="text/plain")
        await asyncio.gather(
            *(bus.publish(f"t-{unique}", b"after %d" % number, content_type="text/plain") for number in range(5))
        )
        await inbox.expect(*(f"after {number}" for number in range(5)))


async def test_a_subscription_survives_an_emulator_that_forgets_everything(own_aws: OwnAws) -> None:
    server, unique, inbox = own_aws.moto(), uuid4().hex[:8], Inbox()
    settings = {**server.properties, **QUICK, "consumerID": f"app-{unique}"}
    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"t-{unique}", inbox),
    ):
        await bus.publish(f"t-{unique}", b"before", content_type="text/plain")
        await inbox.expect("before")
        await asyncio.to_thread(server.restart)
        await inbox.until_heard(bus, f"t-{unique}")


async def test_with_nothing_managed_a_subscription_comes_back_with_its_queue(aws_server: AwsBackend) -> None:
    unique, inbox = uuid4().hex[:8], Inbox()

    def make(sns: Any, sqs: Any) -> None:
        topic = sns.create_topic(Name=f"t-{unique}")["TopicArn"]
        sqs.create_queue(QueueName=f"app-{unique}")
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:us-east-1:{ACCOUNT}:app-{unique}")

    await behind(aws_server, make)
    settings = {**aws_server.properties, **QUICK, "consumerID": f"app-{unique}"}
    settings |= {"disableEntityManagement": "true", "accountID": ACCOUNT}
    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"t-{unique}", inbox) as subscription,
    ):
        await behind(aws_server, no_queue(f"app-{unique}"))
        async with asyncio.timeout(60):
            while subscription.health().reason is None:
                await asyncio.sleep(0.02)
        await behind(aws_server, make)
        await inbox.until_heard(bus, f"t-{unique}")


async def test_a_policy_with_a_single_statement_gets_another(aws_server: AwsBackend) -> None:
    unique, inbox = uuid4().hex[:8], Inbox()
    single = {"Effect": "Allow", "Principal": "*", "Action": "sqs:ReceiveMessage", "Resource": "*"}

    def make(_: Any, sqs: Any) -> None:
        policy = json.dumps({"Version": "2012-10-17", "Statement": single})
        sqs.create_queue(QueueName=f"app-{unique}", Attributes={"Policy": policy})

    await behind(aws_server, make)
    settings = {**aws_server.properties, **QUICK, "consumerID": f"app-{unique}"}
    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"t-{unique}", inbox),
    ):
        await bus.publish(f"t-{unique}", b"x", content_type="text/plain")
        await inbox.expect("x")
