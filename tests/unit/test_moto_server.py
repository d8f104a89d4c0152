"""The emulator of SQS keeps the order of groups as AWS does, or the tests of order would show its faults."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from tests.backends.aws import AwsBackend
from tests.conformance.aws_subject import client


def taken(sqs: Any, url: str, visibility: int) -> dict[str, Any]:
    (message,) = sqs.receive_message(
        QueueUrl=url, WaitTimeSeconds=5, VisibilityTimeout=visibility, MaxNumberOfMessages=1
    )["Messages"]
    found: dict[str, Any] = message
    return found


@pytest.fixture
def url(aws_server: AwsBackend) -> str:
    name = f"order-{uuid4().hex[:12]}.fifo"
    found: str = client(aws_server, "sqs").create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]
    return found


def send(sqs: Any, url: str, *texts: str) -> None:
    for text in texts:
        sqs.send_message(QueueUrl=url, MessageBody=text, MessageGroupId="a", MessageDeduplicationId=text)


def test_a_receipt_ends_when_its_message_is_visible_again(aws_server: AwsBackend, url: str) -> None:
    sqs = client(aws_server, "sqs")
    send(sqs, url, "first", "second")
    expired = taken(sqs, url, 1)["ReceiptHandle"]
    again = taken(sqs, url, 30)
    assert again["Body"] == "first"
    with pytest.raises(sqs.exceptions.ReceiptHandleIsInvalid):
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=expired, VisibilityTimeout=0)
    with pytest.raises(sqs.exceptions.ReceiptHandleIsInvalid):
        sqs.delete_message(QueueUrl=url, ReceiptHandle=expired)
    assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=0)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
    assert taken(sqs, url, 30)["Body"] == "second"


def test_a_group_waits_for_its_messages_in_other_hands(aws_server: AwsBackend, url: str) -> None:
    sqs = client(aws_server, "sqs")
    send(sqs, url, "first", "second")
    first = taken(sqs, url, 30)
    assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=0)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
    assert taken(sqs, url, 30)["Body"] == "first"


def several(sqs: Any, url: str, visibility: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sqs.receive_message(
        QueueUrl=url, WaitTimeSeconds=5, VisibilityTimeout=visibility, MaxNumberOfMessages=10
    )["Messages"]
    return found


def test_a_batch_whose_visibility_timeout_ends_comes_again_from_its_begin(aws_server: AwsBackend, url: str) -> None:
    sqs = client(aws_server, "sqs")
    send(sqs, url, *map(str, range(12)))
    assert [message["Body"] for message in several(sqs, url, 1)] == list("0123456789")
    assert [message["Body"] for message in several(sqs, url, 30)] == list("0123456789")


def test_a_batch_that_is_handed_back_comes_again_from_its_begin(aws_server: AwsBackend, url: str) -> None:
    sqs = client(aws_server, "sqs")
    send(sqs, url, *map(str, range(12)))
    for _ in range(50):
        batch = several(sqs, url, 30)
        assert [message["Body"] for message in batch] == list("0123456789")
        entries = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            for number, message in enumerate(batch)
        ]
        sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)
