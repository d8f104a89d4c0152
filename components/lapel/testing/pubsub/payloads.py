"""What is in a message, and what publish says when it cannot be sent."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from ...descriptor import Capability
from ...errors import ClosedError, InvalidArgumentError, LapelError, OutcomeUnknownError, UnavailableError
from ...pubsub import CloudEvent, Message, PublishRequest, PubSub
from ..marks import contract, needs, row
from ..subject import Subject
from .base import Inbox, PubSubBase, left_over, send, texts

__all__ = ["PayloadTests"]

BINARY = "application/octet-stream"
MEBIBYTE = bytes(range(256)) * 4096
AWKWARD = '⏱️👩‍👩‍👧 שלום \x00 "quotes" back\\slash \r\n\u2028'
LARGEST_TRIED = 32 << 20


class PayloadTests(PubSubBase):
    """Payloads, attributes, limits, and errors of publish."""

    @row("stricter-044")
    @contract
    async def test_payloads_of_every_kind_arrive_in_their_envelope(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        subscription = await bus.subscribe(topic, inbox)
        payloads: list[tuple[bytes, str | None, str]] = [
            (b"", None, "text/plain"),
            (b"", BINARY, BINARY),
            (bytes(range(256)), BINARY, BINARY),
            (AWKWARD.encode(), "text/plain; charset=utf-8", "text/plain; charset=utf-8"),
            (b'{"a": [1, 123456789012345678901234567890, null]}', "application/json", "application/json"),
            (b"<p>", "text/html", "text/html"),
        ]
        if bus.limits.value_bytes is None or bus.limits.value_bytes > 2 * len(MEBIBYTE) - 1:
            payloads.append((MEBIBYTE, BINARY, BINARY))
        for number, (data, given, expected) in enumerate(payloads):
            await bus.publish(topic, data, content_type=given)
            await inbox.calls(number + 1)
            message = inbox.messages[number]
            assert (message.data, message.content_type) == (data, expected)
            assert (message.event.topic, message.event.datacontenttype) == (topic, expected)
        assert len({message.event.id for message in inbox.messages}) == len(payloads)
        assert len(inbox.messages) == len(payloads)
        assert await left_over(bus, subscription) == []

    @row("stricter-044")
    @contract
    async def test_values_arrive_as_json(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        await bus.subscribe(topic, inbox)
        values: list[Any] = [{"text": AWKWARD, "list": [1, None, True]}, [], AWKWARD, "", 2**63 - 1, 0.1, None, False]
        for number, value in enumerate(values):
            await bus.publish(topic, value)
            await inbox.calls(number + 1)
            assert inbox.messages[number].json() == value
            assert inbox.messages[number].content_type == "application/json"

    @row("stricter-044")
    @contract
    async def test_raw_payloads_are_untouched(self, subject: Subject, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        await bus.subscribe(topic, inbox, raw=True)
        carried = self.option(subject, "contentType") == "true"
        payloads: list[tuple[bytes, str | None]] = [
            (bytes(range(256)), BINARY),
            (b"", "text/plain"),
            (b"no type", None),
            (AWKWARD.encode(), "text/plain; charset=utf-8"),
        ]
        for number, (data, content_type) in enumerate(payloads, 1):
            await bus.publish(topic, data, content_type=content_type, raw=True)
            await inbox.calls(number)
        got = [(message.raw, message.content_type) for message in inbox.messages]
        assert got == [(data, content_type if carried else None) for data, content_type in payloads]

    @row("stricter-044")
    @contract
    async def test_an_event_of_the_publisher_keeps_its_attributes(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        await bus.subscribe(topic, inbox)
        event = CloudEvent(
            id="own-id",
            source="own-source",
            type="own.type",
            topic="",
            pubsubname="",
            subject="own",
            datacontenttype="text/plain",
            data=b"text",
        )
        await bus.publish(topic, event)
        await inbox.expect(["text"])
        got = inbox.messages[0].event
        assert (got.id, got.source, got.type, got.subject) == ("own-id", "own-source", "own.type", "own")
        assert got.topic == topic

    @row("stricter-044", "stricter-123")
    @needs(Capability.ATTRIBUTES)
    @contract
    async def test_attributes_and_key_arrive(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        await bus.subscribe(topic, inbox)
        metadata = {"plain": "text", "Unicode": "⏱️ שלום", "empty": "", "with spaces": 'a "b" = c'}
        given = dict(metadata)
        await send(bus, topic, "with", key="the key", metadata=given)
        await inbox.expect(["with"])
        await send(bus, topic, "without")
        await inbox.expect(["with", "without"])
        assert inbox.messages[0].metadata.items() >= metadata.items()
        assert not set(metadata) & set(inbox.messages[1].metadata)
        assert [message.key for message in inbox.messages] == ["the key", None]
        assert given == metadata

    @row("stricter-044", "stricter-137")
    async def test_what_the_caller_keeps_is_not_shared_with_the_message(self, bus: PubSub, topic: str) -> None:
        changed = asyncio.Event()

        async def react(message: Message) -> None:
            await changed.wait()

        inbox = Inbox(react)
        await bus.subscribe(topic, inbox)
        data, document, metadata = bytearray(b"before"), {"list": [1]}, {"origin": "before"}
        await bus.publish(topic, data, metadata=metadata)
        await bus.publish(topic, document, metadata=metadata)
        data[:] = b"after!"
        document["list"].append(2)
        metadata["origin"] = "after"
        changed.set()
        await inbox.expect(["before", '{"list":[1]}'])
        assert {message.metadata.get("origin", "before") for message in inbox.messages} == {"before"}

    @row("stricter-044")
    @contract
    async def test_a_message_at_the_limit_arrives_and_one_byte_more_is_refused(self, bus: PubSub, topic: str) -> None:
        limit = bus.limits.value_bytes
        if limit is None or limit > LARGEST_TRIED:
            pytest.skip("the broker states no limit, or one too large to try")
        inbox = Inbox()
        await bus.subscribe(topic, inbox, raw=True)
        wrong: tuple[dict[str, Any], ...] = ({"raw": True}, {"raw": False, "content_type": BINARY})
        for arguments in wrong:
            with pytest.raises(InvalidArgumentError) as refused:
                await bus.publish(topic, bytes(limit + 1), **arguments)
            assert not refused.value.retryable
        with pytest.raises(InvalidArgumentError):
            await bus.driver.publish(PublishRequest(topic, bytes(limit + 1)))
        await bus.publish(topic, bytes(limit), raw=True)
        await inbox.calls(1)
        assert [len(message.data) for message in inbox.messages] == [limit]

    @row("stricter-059")
    @contract
    async def test_what_can_never_be_published_is_refused_for_good(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        subscription = await bus.subscribe(topic, inbox)
        attempts: list[tuple[str, Any, dict[str, Any]]] = [
            ("", b"no topic", {}),
            (topic, object(), {}),
            (topic, math.nan, {}),
            (topic, "lone \ud800 surrogate", {}),
            (topic, {"a": 1}, {"content_type": "text/plain"}),
            (topic, b"x", {"ttl": 0}),
            (topic, b"x", {"ttl": math.inf}),
            (topic, b"x", {"metadata": {"rawPayload": "perhaps"}}),
        ]
        for where, data, arguments in attempts:
            with pytest.raises(InvalidArgumentError) as refused:
                await bus.publish(where, data, **arguments)
            assert not refused.value.retryable
            assert refused.value.component == bus.name
        await send(bus, topic, "good")
        await inbox.expect(["good"])
        assert await left_over(bus, subscription) == []

    @row("stricter-059", "stricter-053")
    async def test_errors_of_the_broker_reach_the_publisher_and_nothing_is_sent_twice(
        self, bus: PubSub, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = 0
        error: Exception = LapelError("none")

        async def refuse(request: PublishRequest) -> None:
            nonlocal calls
            calls += 1
            raise error

        monkeypatch.setattr(bus.driver, "publish", refuse)
        for error in (UnavailableError("down"), OutcomeUnknownError("who knows"), InvalidArgumentError("never")):
            calls = 0
            with pytest.raises(type(error)) as raised:
                await send(bus, topic, "once")
            assert calls == 1
            assert raised.value.retryable == isinstance(error, UnavailableError)
        error = ZeroDivisionError()
        with pytest.raises(LapelError):
            await send(bus, topic, "a fault of the driver")

    @row("stricter-059", "stricter-128")
    async def test_a_closed_component_says_so_for_good(self, subject: Subject, bus: PubSub, topic: str) -> None:
        await bus.aclose()
        for call in (
            lambda: send(bus, topic, "late"),
            lambda: bus.bulk_publish(topic, [b"late"]),
            lambda: bus.subscribe(topic, Inbox()),
        ):
            with pytest.raises(ClosedError) as refused:
                await call()
            assert not refused.value.retryable

    @row("stricter-053")
    async def test_whatever_a_closing_component_confirmed_is_there(
        self, bus: PubSub, second: PubSub, topic: str, base: str
    ) -> None:
        inbox = Inbox()
        await second.subscribe(topic, inbox)
        confirmed: list[str] = []

        async def publish(text: str) -> None:
            await send(bus, topic, text)
            confirmed.append(text)

        first, *others = texts(base, range(60))
        await publish(first)
        publishing = [asyncio.create_task(publish(text)) for text in others]
        await asyncio.sleep(0)
        for task in publishing[::3]:
            task.cancel()
        await bus.aclose()
        outcomes = await asyncio.gather(*publishing, return_exceptions=True)
        for outcome in outcomes:
            assert outcome is None or isinstance(outcome, LapelError | asyncio.CancelledError), outcome
        await inbox.until(
            lambda: set(confirmed) <= set(inbox.done), lambda: f"lost: {set(confirmed) - set(inbox.done)}"
        )
        assert len(inbox.done) == len(set(inbox.done))
        not_sent = {
            text
            for text, outcome in zip(others, outcomes, strict=True)
            if isinstance(outcome, UnavailableError | ClosedError)
        }
        assert not not_sent & set(inbox.done), "an error said that it was not stored"
