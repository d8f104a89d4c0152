"""Callers who may do their work and nothing else: what is only looked at by the way is no condition for it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.backends.aws import AwsBackend
from tests.backends.aws_proxy import AwsProxy, Reply, Request, json_error, xml_error
from tests.conformance.aws_subject import client

import lapel
from lapel.bindings import BindingEvent
from lapel.errors import NotFoundError, PermissionDeniedError
from lapel.pubsub import Message

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

HALF_MINUTE: Any = {"init_timeout": timedelta(seconds=30), "call_timeout": timedelta(seconds=30)}
REFUSED = json_error("AccessDeniedException", 400)
ACCOUNT = "123456789012"


def without(*operations: str, reply: Reply = REFUSED) -> Any:
    """Return a rule of a proxy that refuses some operations."""

    def rule(request: Request) -> Reply | None:
        return reply if request.operation in operations else None

    return rule


@pytest.fixture
def bucket(aws_server: AwsBackend) -> str:
    name = f"rights-{uuid4().hex[:12]}"
    client(aws_server, "s3").create_bucket(Bucket=name)
    return name


def s3(server: AwsBackend, proxy: AwsProxy, bucket: str) -> Any:
    settings = {**server.properties, "endpoint": proxy.url, "bucket": bucket, "forcePathStyle": "true"}
    return lapel.open_output_binding("aws.s3", settings, **HALF_MINUTE)


async def test_s3_needs_no_right_to_look_at_the_bucket(
    aws_server: AwsBackend, aws_proxy: AwsProxy, bucket: str
) -> None:
    def rule(request: Request) -> Reply | None:
        if request.method == "HEAD":
            return Reply(403)
        return xml_error("AccessDenied", 403) if request.operation == f"GET /{bucket}" else None

    aws_proxy.rule = rule
    async with s3(aws_server, aws_proxy, bucket) as binding:
        await binding.driver.ping()
        await binding.invoke("create", b"x", metadata={"key": "k"})
        assert await (await binding.invoke("get", metadata={"key": "k"})).read() == b"x"
        await binding.invoke("delete", metadata={"key": "k"})
        with pytest.raises(NotFoundError):
            await binding.invoke("get", metadata={"key": "k"})


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch"])
async def test_s3_opens_with_no_credentials_that_are_none(
    aws_server: AwsBackend, aws_proxy: AwsProxy, bucket: str, code: str
) -> None:
    aws_proxy.rule = lambda request: Reply(403) if request.method == "HEAD" else xml_error(code, 403)
    with pytest.raises(PermissionDeniedError, match=code):
        async with s3(aws_server, aws_proxy, bucket):
            pass


async def test_s3_opens_with_no_bucket_that_is_none(aws_server: AwsBackend, aws_proxy: AwsProxy) -> None:
    with pytest.raises(NotFoundError):
        async with s3(aws_server, aws_proxy, f"absent-{uuid4().hex[:12]}"):
            pass


async def test_sqs_needs_no_right_to_see_attributes(sqs_server: AwsBackend, sqs_proxy: AwsProxy) -> None:
    name = f"rights-{uuid4().hex[:12]}"
    client(sqs_server, "sqs").create_queue(QueueName=name)
    sqs_proxy.rule = without("GetQueueAttributes")
    settings = {**sqs_server.properties, "endpoint": sqs_proxy.url, "queueName": name}
    got: list[BindingEvent] = []
    came = asyncio.Event()

    async def handle(event: BindingEvent) -> None:
        got.append(event)
        came.set()

    async with (
        lapel.open_output_binding("aws.sqs", settings, **HALF_MINUTE) as sender,
        lapel.open_input_binding("aws.sqs", settings, init_timeout=timedelta(seconds=30)) as binding,
        await binding.read(handle),
    ):
        await sender.driver.ping()
        await sender.invoke("create", b"x")
        async with asyncio.timeout(30):
            await came.wait()
    assert {request.json["VisibilityTimeout"] for request in sqs_proxy.of("ReceiveMessage")} == {30}
    assert got[0].metadata["messageId"]


async def test_sqs_is_not_well_with_credentials_that_are_none(sqs_server: AwsBackend, sqs_proxy: AwsProxy) -> None:
    name = f"rights-{uuid4().hex[:12]}"
    client(sqs_server, "sqs").create_queue(QueueName=name)
    settings = {**sqs_server.properties, "endpoint": sqs_proxy.url, "queueName": name}
    async with lapel.open_output_binding("aws.sqs", settings, **HALF_MINUTE) as sender:
        sqs_proxy.rule = without("GetQueueAttributes", reply=json_error("InvalidClientTokenId", 403))
        with pytest.raises(PermissionDeniedError):
            await sender.driver.ping()


async def test_a_subscription_that_is_there_needs_no_right_to_see_it(
    aws_server: AwsBackend, aws_proxy: AwsProxy
) -> None:
    unique = uuid4().hex[:8]

    def make() -> None:
        sns, sqs = client(aws_server, "sns"), client(aws_server, "sqs")
        topic = sns.create_topic(Name=f"t-{unique}")["TopicArn"]
        sqs.create_queue(QueueName=f"app-{unique}")
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:us-east-1:{ACCOUNT}:app-{unique}")

    await asyncio.to_thread(make)
    denied = Reply(
        403,
        b"<ErrorResponse><Error><Type>Sender</Type><Code>AuthorizationError</Code><Message>no</Message></Error>"
        b"</ErrorResponse>",
        {"Content-Type": "text/xml"},
    )

    def rule(request: Request) -> Reply | None:
        if request.operation == "GetQueueAttributes":
            return REFUSED
        return denied if request.operation in ("ListSubscriptionsByTopic", "GetTopicAttributes") else None

    aws_proxy.rule = rule
    settings = {**aws_server.properties, "endpoint": aws_proxy.url, "consumerID": f"app-{unique}"}
    settings |= {"disableEntityManagement": "true", "accountID": ACCOUNT, "messageWaitTimeSeconds": "1"}
    came = asyncio.Event()

    async def handle(message: Message) -> None:
        came.set()

    async with (
        lapel.open_pubsub("aws.snssqs", settings, **HALF_MINUTE) as bus,
        await bus.subscribe(f"t-{unique}", handle),
    ):
        await bus.publish(f"t-{unique}", b"x")
        async with asyncio.timeout(30):
            await came.wait()
