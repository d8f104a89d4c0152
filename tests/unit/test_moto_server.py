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
