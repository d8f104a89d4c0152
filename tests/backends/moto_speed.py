"""Makes moto fit for thousands of messages.

As they stand, its queues look at every message in each call, some of them several times. Here messages are found by
their receipts, counts come from those in flight, and a search for visible messages ends with the first that are wanted.
As in SQS, a receipt of a queue that keeps an order counts only until the message is visible again: whoever holds an
older one could else hide a message without its group, and the next of the group would overtake it. What is visible
again keeps no group busy: moto notices that message by message, passes over the first of them, and hands out the last.
Its SNS makes a certificate for every message, and a key for every subscription; here notifications are not signed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from moto.sns.models import Subscription
from moto.sqs import models
from moto.sqs.exceptions import ReceiptHandleIsInvalid
from moto.sqs.models import Message, Queue, SQSBackend

__all__ = ["CLOCK", "install"]

_by_receipt: WeakValueDictionary[str, Message] = WeakValueDictionary()
_once_delayed: WeakSet[Message] = WeakSet()
_mark_received, _delay = Message.mark_received, Message.delay


class _Messages(dict[Message, None]):
    """The messages of a queue in their order, with the methods of a list that moto uses."""

    def append(self, message: Message) -> None:
        self[message] = None

    def remove(self, message: Message) -> None:
        del self[message]


class _Held:
    """The attribute of a queue for its messages: whatever is assigned becomes `_Messages`."""

    def __get__(self, queue: Queue, _: type[Queue]) -> _Messages:
        held: _Messages = queue.__dict__["_messages"]
        return held

    def __set__(self, queue: Queue, messages: list[Message]) -> None:
        queue.__dict__["_messages"] = _Messages.fromkeys(messages)


class _Clock:
    """Milliseconds, with fractions; the same ones while it is held."""

    def __init__(self) -> None:
        self._held: float | None = None

    def __call__(self, *_: Any) -> float:
        return time.time() * 1000 if self._held is None else self._held

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing become visible in the middle of a search."""
        self._held = self()
        try:
            yield
        finally:
            self._held = None


CLOCK = _Clock()


def install() -> None:
    """Put it in place, before the first queue is made."""
    clock: Any = models
    queue: Any = Queue
    message: Any = Message
    backend: Any = SQSBackend
    subscription: Any = Subscription
    clock.unix_time_millis = CLOCK
    message.mark_received = _received
    message.delay = _delayed_by
    queue._messages = _Held()
    queue.messages = property(_visible)
    queue.approximate_number_of_messages = property(_count)
    queue.approximate_number_of_messages_not_visible = property(_invisible)
    queue.approximate_number_of_messages_delayed = property(_delayed)
    queue.pending_message_groups = property(_busy_groups)
    queue.delete_message = _delete
    backend.change_message_visibility = _change_visibility
    subscription.get_post_data = _notification


def _received(message: Message, visibility_timeout: int | None = None) -> None:
    _mark_received(message, visibility_timeout)
    _by_receipt[str(message.receipt_handle)] = message


def _delayed_by(message: Message, delay_seconds: int) -> None:
    _delay(message, delay_seconds)
    _once_delayed.add(message)


def _visible(queue: Queue) -> Iterator[Message]:
    return (message for message in queue._messages if message.visible and not message.delayed)


def _count(queue: Queue) -> int:
    return len(queue._messages) - _invisible(queue) - _delayed(queue)


def _busy_groups(queue: Queue) -> set[str]:
    for message in [message for message in queue.pending_messages if message.visible]:
        queue.pending_messages.discard(message)
    return {message.group_id for message in queue.pending_messages if message.group_id is not None}


def _invisible(queue: Queue) -> int:
    # Nothing is invisible but what was received.
    return sum(not message.visible for message in queue.pending_messages)


def _delayed(queue: Queue) -> int:
    return sum(message.delayed and message in queue._messages for message in _once_delayed)


def _find(queue: Queue, receipt: str) -> Message:
    message = _by_receipt.get(receipt)
    if message is None or message not in queue._messages:
        raise ReceiptHandleIsInvalid
    if queue.fifo_queue and (message.visible or message.receipt_handle != receipt):
        raise ReceiptHandleIsInvalid
    return message


def _delete(queue: Queue, receipt_handle: str) -> None:
    if receipt_handle in queue.deleted_messages:
        return
    message = _find(queue, receipt_handle)
    queue.pending_messages.discard(message)
    queue.deleted_messages.update(map(str, message.all_receipt_handles))
    queue._messages.remove(message)


def _change_visibility(backend: Any, queue_name: str, receipt_handle: str, visibility_timeout: int) -> None:
    queue = backend.get_queue(queue_name)
    message = _find(queue, receipt_handle)
    message.change_visibility(visibility_timeout)
    if not int(visibility_timeout):
        # By the clock only its next tick would make it visible.
        message.visible_at = 0.0
        queue.pending_messages.discard(message)


def _notification(
    subscription: Subscription,
    message: str,
    message_id: str,
    subject: str | None,
    message_attributes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    topic: Any = subscription.topic
    optional = {"Subject": subject, "MessageAttributes": message_attributes}
    return {
        "Type": "Notification",
        "MessageId": message_id,
        "TopicArn": topic.arn,
        "Message": message,
        "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "SignatureVersion": "1",
        "Signature": "none",
        "SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-none.pem",
        "UnsubscribeURL": f"https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={topic.arn}",
        **{name: value for name, value in optional.items() if value},
    }
