"""What becomes of messages that no handler can handle."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ...descriptor import Capability
from ...errors import InvalidArgumentError, UnavailableError
from ...pubsub import Message, Outcome, PublishRequest, PubSub
from ..marks import contract, row
from .base import QUICK, Inbox, PubSubBase, left_over, send

__all__ = ["DeadLetterTests"]


class DeadLetterTests(PubSubBase):
    """Attempts, dead-letter topics and dropping."""

    @row("stricter-051")
    @contract
    async def test_after_its_attempts_a_message_is_at_the_dead_letter_topic_as_it_was(
        self, bus: PubSub, topic: str
    ) -> None:
        async def react(message: Message) -> None:
            if message.text() == "bad":
                raise ValueError

        inbox, dead = Inbox(react), Inbox()
        await bus.subscribe(f"{topic}-dead", dead)
        subscription = await bus.subscribe(
            topic, inbox, max_attempts=3, backoff=QUICK, dead_letter_topic=f"{topic}-dead"
        )
        await send(bus, topic, "bad", metadata={"origin": "here"})
        await send(bus, topic, "good")
        await dead.expect(["bad"])
        await inbox.expect(["good"])
        failures = [message for message in inbox.messages if message.text() == "bad"]
        assert [message.attempt for message in failures] == [1, 2, 3]
        assert dead.messages[0].raw == failures[0].raw
        if Capability.ATTRIBUTES in bus.capabilities:
            attributes = dead.messages[0].metadata
            assert attributes["origin"] == "here"
            assert attributes["dead-letter-attempts"] == "3"
            assert attributes["dead-letter-topic"] == topic
            assert attributes["dead-letter-reason"]
        # A broker may deliver the dead letter before it confirms it.
        await inbox.until(lambda: subscription.health().details["given_up"] == 1, lambda: "it was not counted")
        assert await left_over(bus, subscription) == []

    @row("stricter-051")
    @contract
    async def test_a_dropped_message_is_at_the_dead_letter_topic_at_once(self, bus: PubSub, topic: str) -> None:
        async def react(message: Message) -> Outcome:
            return Outcome.DROP

        inbox, dead = Inbox(react), Inbox()
        await bus.subscribe(f"{topic}-dead", dead)
        subscription = await bus.subscribe(topic, inbox, dead_letter_topic=f"{topic}-dead")
        await send(bus, topic, "dropped")
        await dead.expect(["dropped"])
        assert inbox.seen == ["dropped"]
        assert await left_over(bus, subscription) == []

    @row("stricter-051")
    @contract
    async def test_without_a_dead_letter_topic_a_message_is_gone_after_its_attempts(
        self, bus: PubSub, topic: str
    ) -> None:
        async def react(message: Message) -> Outcome:
            return Outcome.DROP if message.text() == "dropped" else Outcome.RETRY

        inbox = Inbox(react)
        subscription = await bus.subscribe(topic, inbox, max_attempts=2, backoff=QUICK)
        await send(bus, topic, "dropped")
        await send(bus, topic, "failing")
        await inbox.until(lambda: subscription.health().details["given_up"] == 2, lambda: "it was not given up")
        assert sorted(inbox.seen) == ["dropped", "failing", "failing"]
        assert await left_over(bus, subscription) == []

    @row("stricter-051")
    @contract
    async def test_a_dead_letter_that_cannot_be_published_settles_nothing(
        self, bus: PubSub, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def react(message: Message) -> Outcome:
            return Outcome.DROP

        refused, publish = 0, bus.driver.publish

        async def refusing(request: PublishRequest) -> None:
            nonlocal refused
            if request.topic == f"{topic}-dead" and refused < 3:
                refused += 1
                raise UnavailableError("not now")
            await publish(request)

        monkeypatch.setattr(bus.driver, "publish", refusing)
        inbox, dead = Inbox(react), Inbox()
        await bus.subscribe(f"{topic}-dead", dead)
        subscription = await bus.subscribe(topic, inbox, backoff=QUICK, dead_letter_topic=f"{topic}-dead")
        await send(bus, topic, "stubborn")
        await dead.expect(["stubborn"])
        assert refused == 3
        assert inbox.seen == ["stubborn"]
        assert await left_over(bus, subscription) == []

    @row("stricter-051")
    @contract
    async def test_a_message_whose_dead_letter_is_missing_stays_when_the_subscription_ends(
        self, bus: PubSub, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def react(message: Message) -> Outcome:
            return Outcome.DROP

        tried, publish = asyncio.Event(), bus.driver.publish

        async def refusing(request: PublishRequest) -> None:
            if request.topic == f"{topic}-dead":
                tried.set()
                raise UnavailableError("not now")
            await publish(request)

        monkeypatch.setattr(bus.driver, "publish", refusing)
        inbox = Inbox(react)
        subscription = await bus.subscribe(topic, inbox, backoff=QUICK, dead_letter_topic=f"{topic}-dead")
        await send(bus, topic, "kept")
        await tried.wait()
        assert await left_over(bus, subscription) == ["kept"]

    @row("stricter-051")
    @contract
    async def test_what_is_no_event_becomes_a_dead_letter_when_its_attempts_are_used_up(
        self, bus: PubSub, topic: str
    ) -> None:
        async def react(message: Message) -> Any:
            return message.json()

        dead = Inbox()
        await bus.subscribe(f"{topic}-dead", dead, raw=True)
        await bus.subscribe(topic, react, max_attempts=2, backoff=QUICK, dead_letter_topic=f"{topic}-dead")
        await bus.publish(topic, b"no envelope at all", raw=True)
        await dead.expect(["no envelope at all"])

    @row("stricter-051")
    async def test_wrong_terms_are_refused(self, bus: PubSub, topic: str) -> None:
        wrong: tuple[dict[str, Any], ...] = (
            {"max_attempts": 0},
            {"dead_letter_topic": topic},
            {"dead_letter_topic": ""},
            {"concurrency": 0},
            {"drain_timeout": -1},
        )
        for terms in wrong:
            with pytest.raises(InvalidArgumentError):
                await bus.subscribe(topic, Inbox(), **terms)
        with pytest.raises(InvalidArgumentError):
            await bus.subscribe("", Inbox())
        assert bus.subscriptions == frozenset()
