"""What comes out of a queue that somebody else wrote to, and how messages are cut into batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest

from lapel.errors import LapelError, OutcomeUnknownError
from lapel_contrib.aws.pubsub import _bury
from lapel_contrib.aws.pubsub_wire import read
from lapel_contrib.aws.queue import LARGEST_BATCH, Queue, Refused, batches_of
from lapel_contrib.aws.reader import Message


def message(body: str, attributes: dict[str, Any] | None = None) -> Message:
    return Message({"ReceiptHandle": "r", "Body": body, "MessageAttributes": attributes}, 0.0, 30)


def notification(**more: Any) -> str:
    return json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:r:a:orders", "Message": "hi", **more})


@pytest.mark.parametrize(
    "body",
    [
        '{"Type":' + "[" * 5000 + "]" * 5000 + "}",
        '{"Type": "Notification"',
        '{"Type": "Notification"}',
        '{"a": ' + "1" * 5000 + "}",
        notification(Message=5),
        notification(MessageAttributes=["a"]),
        notification(MessageAttributes={"a": "b"}),
        notification(MessageAttributes={"a": {"Value": 5}}),
        notification(TopicArn=None),
    ],
)
def test_what_is_no_notification_is_a_plain_body(body: str) -> None:
    found = read(message(body))
    assert (found.topic, found.data, found.metadata) == ("", body.encode(), {})


def test_a_notification_gives_topic_data_and_attributes() -> None:
    attributes = {"a": {"Type": "String", "Value": "b"}, "lapel": {"Type": "String", "Value": '{"key":"k"}'}}
    found = read(message(notification(MessageAttributes=attributes, UnsubscribeURL="http://x")))
    assert (found.topic, found.data, found.metadata, found.key) == ("orders", b"hi", {"a": "b"}, "k")


@pytest.mark.parametrize("own", ["[" * 5000, "[]", "{", '{"key": 5}', '{"attributes": ["a"]}', '{"base64": "yes"}'])
def test_an_attribute_of_our_name_that_is_not_ours_says_nothing(own: str) -> None:
    found = read(message("hi", {"lapel": {"DataType": "String", "StringValue": own}}))
    assert (found.data, found.metadata, found.key, found.content_type) == (b"hi", {}, None, None)


def test_batches_hold_ten_messages_and_a_mebibyte_in_order() -> None:
    sizes = [300_000, 300_000, 300_000, 300_000, LARGEST_BATCH, *[1] * 11]
    entries = [{"MessageBody": "x" * size} for size in sizes]
    batches = list(batches_of(entries))
    assert [len(batch) for batch in batches] == [3, 1, 1, 10, 1]
    assert [entry for batch in batches for entry in batch] == entries


def test_attributes_count_as_well() -> None:
    text = {"name": {"DataType": "String", "StringValue": "ä" * 200_000}}
    binary = {"name": {"DataType": "Binary", "BinaryValue": b"x" * 400_000}}
    entries = [{"MessageBody": "x", "MessageAttributes": each} for each in (text, binary, text)]
    assert [len(batch) for batch in batches_of(entries)] == [2, 1]


class DeadLetters:
    """Takes batches, but for those whose number is in `lost`."""

    fifo = False

    def __init__(self, *lost: int) -> None:
        self.sent: list[list[str]] = []
        self._lost = lost

    async def send(self, entries: Sequence[dict[str, Any]]) -> Refused:
        self.sent.append([entry["MessageBody"] for entry in entries])
        if len(self.sent) in self._lost:
            raise OutcomeUnknownError("the reply was lost")
        refused: dict[int, LapelError] = {}
        return refused


async def test_large_dead_letters_are_moved_in_several_requests_of_which_each_fails_for_itself() -> None:
    dead = DeadLetters(2)
    bodies = [str(number) + "x" * 250_000 for number in range(9)]
    refused = await _bury(cast("Queue", dead), [message(body) for body in bodies])
    assert [body for batch in dead.sent for body in batch] == bodies
    assert [len(batch) for batch in dead.sent] == [4, 4, 1]
    assert list(refused) == [4, 5, 6, 7]
