"""Messages to the application, and what its answers mean."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ...delivery import Dropped, Outcome
from ...errors import InvalidArgumentError, LapelError
from ...pubsub import InvalidEventError, Message
from ...pubsub.cloudevents import BULK_EVENT_TYPE, CLOUD_EVENT_CONTENT_TYPE
from .channel import AppChannel, AppReply, carried_headers, header_text
from .subscriptions import AppSubscription

__all__ = ["Delivering"]

_OUTCOMES = {"": Outcome.SUCCESS, "SUCCESS": Outcome.SUCCESS, "RETRY": Outcome.RETRY, "DROP": Outcome.DROP}
_NO_ROUTE = Dropped("the application has no such route (404)")
_NO_MATCH = Dropped("no rule of the subscription matches")
_log = logging.getLogger("lapel.host")

Answer = Outcome | Dropped


class Delivering:
    """Hands the messages of one subscription to the application.

    `final` tells whether a status other than 2xx is not to be tried again; None tries all of them again.
    """

    def __init__(
        self, channel: AppChannel, subscription: AppSubscription, final: Callable[[int], bool] | None = None
    ) -> None:
        self._channel = channel
        self._subscription = subscription
        self._final = final

    async def one(self, message: Message) -> Any:
        """Deliver one message. Raises what the channel raises."""
        subscription = self._subscription
        try:
            path = self._path(message)
            body = message.event.to_json()
        except InvalidEventError as exc:
            return self._no_event(exc)
        if path is None:
            self._report(_NO_MATCH, message)
            return _NO_MATCH
        headers = carried_headers(message.metadata)
        if header_text(subscription.pubsub):
            headers["pubsubName"] = subscription.pubsub
        event = message.event
        reply = await self._channel.request(
            "POST",
            path,
            body=body,
            content_type=CLOUD_EVENT_CONTENT_TYPE,
            headers=headers,
            trace=(event.traceparent, event.tracestate),
        )
        answer = self._answer(reply, path)
        if isinstance(answer, Dropped):
            self._report(answer, message)
        return answer

    async def many(self, messages: list[Message]) -> Any:
        """Deliver messages together, one request for each path that the rules name."""
        answers: list[Answer | None] = [None] * len(messages)
        groups: dict[str, list[int]] = {}
        for index, message in enumerate(messages):
            try:
                path = self._path(message)
            except InvalidEventError as exc:
                answers[index] = self._no_event(exc)
            except InvalidArgumentError as exc:
                _log.error("a message of %s is not delivered now: %s", self._place, exc.message)
                answers[index] = Outcome.RETRY
            else:
                if path is None:
                    self._report(_NO_MATCH, message)
                    answers[index] = _NO_MATCH
                else:
                    groups.setdefault(path, []).append(index)
        for path, indices in groups.items():
            found = await self._together(path, [messages[index] for index in indices])
            for index, answer in zip(indices, found, strict=True):
                answers[index] = answer
        return answers

    async def _together(self, path: str, messages: list[Message]) -> list[Answer]:
        subscription, ids = self._subscription, [str(uuid.uuid4()) for _ in messages]
        body = msgspec.json.encode(
            {
                "id": str(uuid.uuid4()),
                "entries": [
                    {
                        "entryId": name,
                        # bytes become base64
                        "event": message.raw if subscription.raw else msgspec.Raw(message.event.to_json()),
                        "metadata": dict(message.metadata),
                        "contentType": "application/octet-stream" if subscription.raw else CLOUD_EVENT_CONTENT_TYPE,
                    }
                    for name, message in zip(ids, messages, strict=True)
                ],
                "metadata": dict(subscription.metadata),
                "topic": subscription.topic,
                "pubsubname": subscription.pubsub,
                "type": BULK_EVENT_TYPE,
            }
        )
        try:
            reply = await self._channel.request("POST", path, body=body, content_type="application/json")
        except LapelError as exc:
            _log.warning("a batch of %s was not delivered: %s", self._place, exc.message)
            return [Outcome.RETRY] * len(messages)
        if not reply.ok:
            return [self._refused(reply.status, path)] * len(messages)
        statuses = _statuses(reply.body)
        if statuses is None:
            _log.error("the application's answer to a batch of %s has no statuses; all come again", self._place)
            return [Outcome.RETRY] * len(messages)
        # Missing, empty and unknown statuses are failures here, unlike for single messages.
        return [_OUTCOMES.get(statuses.get(name) or "?", Outcome.RETRY) for name in ids]

    @property
    def _place(self) -> str:
        return f"topic {self._subscription.topic!r} of {self._subscription.pubsub!r}"

    def _path(self, message: Message) -> str | None:
        rules = self._subscription.rules
        if not rules.conditional:
            return rules.path({})
        try:
            event: Any = msgspec.json.decode(message.event.to_json())
        except (ValueError, RecursionError) as exc:
            raise InvalidEventError(f"the event is not JSON: {exc}") from None
        return rules.path(event)

    def _answer(self, reply: AppReply, path: str) -> Answer:
        if not reply.ok:
            return self._refused(reply.status, path)
        if not reply.body:
            return Outcome.SUCCESS
        try:
            body = msgspec.json.decode(reply.body)
        except ValueError:
            return Outcome.SUCCESS
        status = body.get("status") if isinstance(body, Mapping) else None
        if status is None:
            return Outcome.SUCCESS
        outcome = _OUTCOMES.get(status) if isinstance(status, str) else None
        if outcome is None:
            _log.error("the application answered %s at %s with an unknown status; it comes again", self._place, path)
            return Outcome.RETRY
        return outcome

    def _refused(self, status: int, path: str) -> Answer:
        if status == 404:
            return _NO_ROUTE
        _log.warning("the application answered %s at %s with %d", self._place, path, status)
        if self._final is not None and self._subscription.dead_letter_topic and self._final(status):
            return Dropped(f"the application answered {status}, which the policy does not retry")
        return Outcome.RETRY

    def _no_event(self, error: InvalidEventError) -> Dropped:
        _log.error(
            "a message of %s is no CloudEvent and is dropped; it may need rawPayload: %s", self._place, error.message
        )
        return Dropped("it is not a CloudEvent")

    def _report(self, dropped: Dropped, message: Message) -> None:
        _log.error("message %s of %s is dropped: %s", _id_of(message), self._place, dropped.reason)


def _statuses(body: bytes) -> dict[str, str] | None:
    try:
        found = msgspec.json.decode(body)
        return {
            str(entry["entryId"]): str(entry.get("status") or "") for entry in found["statuses"] if "entryId" in entry
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _id_of(message: Message) -> str:
    try:
        return message.event.id
    except InvalidEventError:
        return "without an id"
