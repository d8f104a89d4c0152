"""SQS in trouble: throttling, half-refused batches, lost replies, handlers slower than the visibility timeout."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from tests.backends.aws import AwsBackend
from tests.backends.aws_fixtures import OwnAws
from tests.backends.aws_proxy import AwsProxy, Reply, Request, json_error
from tests.conformance.aws_subject import client

import lapel
from lapel.bindings import BindingEvent, OutputBinding
from lapel.delivery import Backoff
from lapel.errors import InvalidArgumentError, LapelError, OutcomeUnknownError, ThrottledError, UnavailableError
from lapel.testing import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SOON = Backoff(initial=0.01, maximum=0.01)


@pytest.fixture
def queue(sqs_server: AwsBackend) -> str:
    """Return a new queue from which a message comes again after two seconds."""
    name = f"faults-{uuid4().hex[:12]}"
    client(sqs_server, "sqs").create_queue(QueueName=name, Attributes={"VisibilityTimeout": "2"})
    return name


@asynccontextmanager
async def output(url: str, queue: str, server: AwsBackend) -> AsyncIterator[OutputBinding]:
    settings = {**server.properties, "endpoint": url, "queueName": queue}
    async with lapel.open_output_binding("aws.sqs", settings, init_timeout=timedelta(seconds=30)) as binding:
        yield binding


class Handler:
    """Notes what it gets; `seconds` is how long it takes."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seen: list[str] = []
        self.attempts: list[int] = []
        self._seconds = seconds

    async def __call__(self, event: BindingEvent) -> None:
        self.seen.append(event.data.decode())
        self.attempts.append(event.attempt)
        await asyncio.sleep(self._seconds)

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.seen) < count:
                await asyncio.sleep(0.02)


def left(server: AwsBackend, queue: str) -> int:
    """Return how many messages there are, visible or not."""
    sqs = client(server, "sqs")
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    return sum(
        int(each) for each in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()
    )


async def gone(server: AwsBackend, queue: str) -> None:
    async with asyncio.timeout(60):
        while await asyncio.to_thread(left, server, queue):
            await asyncio.sleep(0.05)


async def test_a_handler_slower_than_the_visibility_timeout_gets_no_second_delivery(
    sqs_server: AwsBackend, sqs_proxy: AwsProxy, queue: str
) -> None:
    handler = Handler(seconds=5.0)
    settings = {**sqs_server.properties, "endpoint": sqs_proxy.url, "queueName": queue}
    async with output(sqs_server.url, queue, sqs_server) as sender:
        await sender.invoke("create", b"slow")
    async with (
        lapel.open_input_binding("aws.sqs", settings, init_timeout=timedelta(seconds=30)) as first,
        lapel.open_input_binding("aws.sqs", settings, init_timeout=timedelta(seconds=30)) as second,
        await first.read(handler),
        await second.read(handler),
    ):
        await handler.reach(1)
        await gone(sqs_server, queue)
    assert handler.seen == ["slow"]
    assert len(sqs_proxy.of("ChangeMessageVisibilityBatch")) >= 4


async def test_without_the_heartbeat_the_message_would_come_twice(
    sqs_server: AwsBackend, sqs_proxy: AwsProxy, queue: str
) -> None:
    """What the test above shows is not a habit of the emulator."""
    sqs_proxy.first("ChangeMessageVisibilityBatch", 1000, json_error("InternalFailure", 500))
    handler = Handler(seconds=6.0)
    settings = {**sqs_server.properties, "endpoint": sqs_proxy.url, "queueName": queue}
    async with output(sqs_server.url, queue, sqs_server) as sender:
        await sender.invoke("create", b"slow")
    async with (
        lapel.open_input_binding("aws.sqs", settings, init_timeout=timedelta(seconds=30)) as binding,
        await binding.read(handler, concurrency=4, drain_timeout=0),
    ):
        await handler.reach(2)
    assert handler.attempts[:2] == [1, 2]


async def test_of_a_batch_of_which_some_fail_each_caller_gets_its_own_outcome(
    sqs_server: AwsBackend, sqs_proxy: AwsProxy, queue: str
) -> None:
    codes = {"3": ("InternalError", False), "5": ("InvalidMessageContents", True), "7": ("RequestThrottled", True)}

    def rule(request: Request) -> Reply | None:
        if request.operation != "SendMessageBatch":
            return None
        answer: dict[str, list[dict[str, object]]] = {"Successful": [], "Failed": []}
        for entry in request.json["Entries"]:
            if (found := codes.get(entry["MessageBody"])) is not None:
                failed = {"Id": entry["Id"], "Code": found[0], "SenderFault": found[1], "Message": "no"}
                answer["Failed"].append(failed)
            else:
                done = {"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "d"}
                answer["Successful"].append(done)
        return Reply(200, json.dumps(answer).encode(), {"Content-Type": "application/x-amz-json-1.0"})

    sqs_proxy.rule = rule
    async with output(sqs_proxy.url, queue, sqs_server) as sender:
        calls = (sender.invoke("create", str(number).encode()) for number in range(30))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    failed = {number: type(each) for number, each in enumerate(outcomes) if isinstance(each, BaseException)}
    assert failed == {3: OutcomeUnknownError, 5: InvalidArgumentError, 7: ThrottledError}
    assert len(sqs_proxy.of("SendMessageBatch")) == 3


@pytest.mark.parametrize(
    ("reply", "error", "stored"),
    [
        (json_error("RequestThrottled", 400), ThrottledError, 0),
        (json_error("ServiceUnavailable", 503), UnavailableError, 0),
        (json_error("InternalFailure", 500), OutcomeUnknownError, 0),
        (Reply(cut=True), OutcomeUnknownError, 0),
        (Reply(lose=True), OutcomeUnknownError, 1),
    ],
    ids=["throttled", "unavailable", "failed", "cut", "reply lost"],
)
async def test_a_message_is_sent_once_whatever_the_service_answers(
    sqs_server: AwsBackend, sqs_proxy: AwsProxy, queue: str, reply: Reply, error: type[LapelError], stored: int
) -> None:
    async with output(sqs_proxy.url, queue, sqs_server) as sender:
        sqs_proxy.first("SendMessageBatch", 1, reply)
        with pytest.raises(LapelError) as caught:
            await sender.invoke("create", b"once")
        assert type(caught.value) is error
        assert len(sqs_proxy.of("SendMessageBatch")) == 1
        assert await asyncio.to_thread(left, sqs_server, queue) == stored
        await sender.invoke("create", b"again")
    assert await asyncio.to_thread(left, sqs_server, queue) == stored + 1


@pytest.mark.parametrize("operation", ["ReceiveMessage", "DeleteMessageBatch"])
async def test_reading_goes_on_after_throttling_without_a_second_delivery(
    sqs_server: AwsBackend, sqs_proxy: AwsProxy, queue: str, operation: str
) -> None:
    sqs_proxy.first(operation, 3, json_error("RequestThrottled", 400))
    handler = Handler()
    settings = {**sqs_server.properties, "endpoint": sqs_proxy.url, "queueName": queue}
    async with output(sqs_server.url, queue, sqs_server) as sender:
        await asyncio.gather(*(sender.invoke("create", str(number).encode()) for number in range(20)))
    async with (
        lapel.open_input_binding("aws.sqs", settings, init_timeout=timedelta(seconds=30)) as binding,
        await binding.read(handler, concurrency=10) as reading,
    ):
        await gone(sqs_server, queue)
        assert reading.health().ok
    assert sorted(map(int, handler.seen)) == list(range(20))


async def test_a_failed_message_of_a_group_comes_before_those_behind_it(sqs_server: AwsBackend) -> None:
    name = f"faults-{uuid4().hex[:12]}.fifo"
    attributes = {"FifoQueue": "true", "VisibilityTimeout": "5"}
    client(sqs_server, "sqs").create_queue(QueueName=name, Attributes=attributes)
    failed: list[str] = []
    done: dict[str, list[int]] = {"a": [], "b": []}

    async def handle(event: BindingEvent) -> None:
        group, number = event.data.decode().split("-")
        if event.data == b"a-1" and len(failed) < 2:
            failed.append("a-1")
            raise ValueError
        done[group].append(int(number))

    async with output(sqs_server.url, name, sqs_server) as sender:
        for number in range(8):
            for group in ("a", "b"):
                await sender.invoke("create", f"{group}-{number}".encode(), metadata={"messageGroupId": group})
    settings = {**sqs_server.properties, "queueName": name}
    async with (
        lapel.open_input_binding("aws.sqs", settings, init_timeout=timedelta(seconds=30)) as binding,
        await binding.read(handle, concurrency=8, backoff=SOON),
    ):
        await gone(sqs_server, name)
    assert done == {"a": list(range(8)), "b": list(range(8))}
    assert len(failed) == 2


async def test_reading_is_restored_when_the_service_comes_back(own_aws: OwnAws) -> None:
    server = own_aws.elasticmq()
    client(server, "sqs").create_queue(QueueName="kept")
    handler = Handler()
    settings = {**server.properties, "queueName": "kept"}
    async with (
        lapel.open_input_binding("aws.sqs", settings, init_timeout=timedelta(seconds=30)) as binding,
        await binding.read(handler) as reading,
    ):
        async with output(server.url, "kept", server) as sender:
            await sender.invoke("create", b"before")
        await handler.reach(1)
        await asyncio.to_thread(server.kill)
        async with asyncio.timeout(60):
            while reading.health().ok:
                await asyncio.sleep(0.1)
        await asyncio.to_thread(server.start)
        # It keeps nothing over a restart.
        await asyncio.to_thread(client(server, "sqs").create_queue, QueueName="kept")
        async with output(server.url, "kept", server) as sender:
            await sender.invoke("create", b"after")
        await handler.reach(2)
    assert handler.seen == ["before", "after"]


async def test_a_silent_connection_blocks_a_queue_with_an_order_for_seconds_only(sqs_server: AwsBackend) -> None:
    """One request is under way at a time there, so that one without an answer stands in the way of all others."""
    name = f"faults-{uuid4().hex[:12]}.fifo"
    client(sqs_server, "sqs").create_queue(QueueName=name, Attributes={"FifoQueue": "true"})
    place, handler = urlsplit(sqs_server.url), Handler()
    async with FaultProxy(place.hostname or "", place.port or 0) as proxy:
        settings = {**sqs_server.properties, "endpoint": f"http://{proxy.host}:{proxy.port}", "queueName": name}
        async with (
            lapel.open_output_binding("aws.sqs", settings, call_timeout=timedelta(seconds=1)) as sender,
            lapel.open_input_binding("aws.sqs", settings) as source,
            await source.read(handler),
        ):
            await sender.invoke("create", b"before")
            await handler.reach(1)
            await gone(sqs_server, name)
            proxy.black_hole()
            with pytest.raises(OutcomeUnknownError):
                await sender.invoke("create", b"during")
            assert proxy.counters.dropped_request_bytes
            proxy.heal()
            async with asyncio.timeout(30):
                while True:
                    try:
                        await sender.invoke("create", b"after")
                        break
                    except LapelError:
                        await asyncio.sleep(0.1)
                await handler.reach(2)
    assert handler.seen == ["before", "after"]
