"""The message that a handler gets."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any, TypeVar, overload

import msgspec

from ..delivery import Delivery
from .cloudevents import CloudEvent, InvalidEventError, expired, unwrap

__all__ = ["DEAD_LETTER_REASON", "Message"]

T = TypeVar("T")

DEAD_LETTER_REASON = "dead-letter-reason"
"""The attribute of a dead letter that says why it is one."""


class Message(msgspec.Struct, eq=False):
    """One message, decoded when it is first looked at. Made by a subscription.

    On a raw subscription the payload is what the broker holds; otherwise that is a CloudEvent, and the payload is its
    data.
    """

    _delivery: Delivery
    _attempt: int
    _pubsub_name: str
    _is_raw: bool
    _topic_prefix: str = ""
    _event: CloudEvent | None = None

    @property
    def topic(self) -> str:
        """The topic it was published to; with a pattern subscribed, the concrete one."""
        return self._delivery.topic.removeprefix(self._topic_prefix)

    @property
    def data(self) -> bytes:
        """The payload as published. Raises `InvalidEventError` when there should be a CloudEvent and is none."""
        return self._delivery.data if self._is_raw else self.event.data

    @property
    def content_type(self) -> str | None:
        """The type of `data`; None when the publisher or the broker does not say."""
        return self._delivery.content_type if self._is_raw else self.event.datacontenttype

    @property
    def metadata(self) -> Mapping[str, str]:
        """The attributes that came with it, from the broker."""
        return self._delivery.metadata

    @property
    def key(self) -> str | None:
        """The key by which messages are ordered, None when there is none."""
        return self._delivery.key

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1; counted by the broker where it counts, else in this process."""
        return self._attempt

    @property
    def raw(self) -> bytes:
        """The bytes that the broker holds, envelope included."""
        return self._delivery.data

    @property
    def event(self) -> CloudEvent:
        """The message as a CloudEvent; on a raw subscription a new one around the payload.

        Raises `InvalidEventError` when the message should be a CloudEvent and is not.
        """
        event = self._event
        if event is None:
            delivery = self._delivery
            event = self._event = unwrap(
                delivery.data,
                topic=self.topic,
                pubsub_name=self._pubsub_name,
                metadata=delivery.metadata,
                raw=self._is_raw,
            )
        return event

    @property
    def expired(self) -> bool:
        """Whether the event's `expiration` has passed. A dead letter does not expire again."""
        # Only few messages expire, and finding the name is far cheaper than decoding.
        if self._is_raw or b'"expiration"' not in self._delivery.data or DEAD_LETTER_REASON in self._delivery.metadata:
            return False
        try:
            return expired(self.event)
        except InvalidEventError:
            return False

    def text(self) -> str:
        """Return the payload as text. Raises `InvalidEventError` when it is not UTF-8."""
        return self.event.text()

    @overload
    def json(self) -> Any: ...

    @overload
    def json(self, type: builtins.type[T]) -> T: ...

    def json(self, type: Any = None) -> Any:
        """Return the payload parsed as JSON: plain values, or `type`, which msgspec or pydantic decodes.

        Raises `InvalidEventError` when it is not JSON or does not fit.
        """
        return self.event.json(type)

    def __repr__(self) -> str:
        # The payload stays out: representations end up in logs.
        return f"Message(topic={self.topic!r}, key={self.key!r}, attempt={self.attempt}, <{len(self.raw)} bytes>)"
