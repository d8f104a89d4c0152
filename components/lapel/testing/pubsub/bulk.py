"""Many messages in one call, on either side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from ...descriptor import Capability
from ...errors import InvalidArgumentError
from ...pubsub import BulkHandler, Message, Outcome, PublishEntry, PubSub
from ..marks import contract, needs, row
from .base import QUICK, Inbox, PubSubBase, left_over, send, send_all, texts

__all__ = ["BulkTests"]


class BulkTests(PubSubBase):
    """Bulk publish and bulk subscribe."""

    @row("PS-06", "PS-07")
    @contract
    async def test_bulk_published_messages_arrive(self, bus: PubSub, topic: str, base: str) -> None:
        inbox = Inbox()
        subscription = await bus.subscribe(topic, inbox)
        entries = [
            PublishEntry(data=text.encode(), entry_id=str(number), content_type="text/plain")
            for number, text in enumerate(texts(base, range(11, 21)), 11)
        ]
        outcomes = await bus.bulk_publish(topic, entries)
        assert [(outcome.entry_id, outcome.error) for outcome in outcomes] == [(str(n), None) for n in range(11, 21)]
        await inbox.expect(texts(base, range(11, 21)))
        assert {message.content_type for message in inbox.messages} == {"text/plain"}
        assert await left_over(bus, subscription) == []

    @row("PS-03", "PS-05", "PS-08", "stricter-048")
    @contract
    async def test_of_a_batch_only_failed_messages_come_again(self, bus: PubSub, topic: str, base: str) -> None:
        calls: list[str] = []
        inbox = Inbox()

        async def handle(messages: list[Message]) -> list[Outcome | None]:
            answers: list[Outcome | None] = []
            for message in messages:
                text = message.text()
                first = text not in calls
                calls.append(text)
                if first and (len(set(calls)) <= 2 or len(set(calls)) % 5 == 0):
                    answers.append(Outcome.RETRY)
                else:
                    await inbox(message)
                    answers.append(None if len(calls) % 2 else Outcome.SUCCESS)
            return answers

        subscription = await bus.bulk_subscribe(topic, handle, max_messages=5, max_wait=0.5, backoff=QUICK)
        await send_all(bus, topic, texts(base, range(1000, 1011)))
        await inbox.expect(texts(base, range(1000, 1011)))
        assert len(calls) == 11 + 4
        assert {message.attempt for message in inbox.messages} == {1, 2}
        assert await left_over(bus, subscription) == []

    @row("stricter-047")
    @contract
    async def test_a_lone_message_is_not_held_back(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        await bus.bulk_subscribe(topic, _each(inbox), max_messages=5, max_wait=0.1)
        for number, text in enumerate(("one", "two"), 1):
            await send(bus, topic, text)
            await inbox.calls(number)
        assert inbox.done == ["one", "two"]

    @row("stricter-047", "stricter-123")
    @needs(Capability.BULK_SUBSCRIBE_IMMEDIATE)
    @contract
    async def test_what_is_there_is_handed_over_at_once(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        await bus.bulk_subscribe(topic, _each(inbox), max_messages=5, max_wait=600)
        await send(bus, topic, "one")
        await inbox.expect(["one"])

    @row("stricter-047")
    @contract
    async def test_no_batch_is_over_its_size_and_batches_are_filled(self, bus: PubSub, topic: str, base: str) -> None:
        sizes: list[int] = []
        published = asyncio.Event()
        inbox = Inbox()

        async def handle(messages: list[Message]) -> None:
            await published.wait()
            sizes.append(len(messages))
            for message in messages:
                await inbox(message)

        subscription = await bus.bulk_subscribe(topic, handle, max_messages=5, max_wait=0.2)
        await send_all(bus, topic, texts(base, range(23)))
        published.set()
        await inbox.expect(texts(base, range(23)))
        assert max(sizes) <= 5
        assert 5 in sizes or Capability.BULK_SUBSCRIBE_IMMEDIATE in bus.capabilities
        assert await left_over(bus, subscription) == []

    @row("stricter-048")
    @pytest.mark.parametrize("answer", ["too few", "too many", "a text", "a number", "an exception", "nonsense"])
    @contract
    async def test_a_wrong_answer_fails_the_whole_batch_once(self, bus: PubSub, topic: str, answer: str) -> None:
        batches: list[list[str]] = []
        wrong: dict[str, Any] = {
            "too few": [Outcome.SUCCESS],
            "too many": [None] * 4,
            "a text": "SUCCESS",
            "a number": 3,
            "nonsense": ["?"] * 3,
        }
        inbox = Inbox()

        async def handle(messages: list[Message]) -> Any:
            batches.append(sorted(message.text() for message in messages))
            if len(batches) > 1:
                for message in messages:
                    await inbox(message)
                return None
            if answer == "an exception":
                raise ValueError
            return wrong[answer]

        subscription = await bus.bulk_subscribe(
            topic, cast("BulkHandler", handle), max_messages=3, max_wait=20, backoff=QUICK
        )
        await send_all(bus, topic, texts("", range(3)))
        await inbox.expect(texts("", range(3)))
        assert batches == [texts("", range(3))] * 2 or Capability.BULK_SUBSCRIBE_IMMEDIATE in bus.capabilities
        assert {message.attempt for message in inbox.messages} == {2}
        assert await left_over(bus, subscription) == []

    @row("stricter-048", "stricter-051")
    @contract
    async def test_dropped_messages_of_a_batch_become_dead_letters(self, bus: PubSub, topic: str) -> None:
        inbox, dead = Inbox(), Inbox()

        async def handle(messages: list[Message]) -> list[Outcome | None]:
            for message in messages:
                if message.text() != "bad":
                    await inbox(message)
            return [Outcome.DROP if message.text() == "bad" else None for message in messages]

        await bus.subscribe(f"{topic}-dead", dead)
        subscription = await bus.bulk_subscribe(
            topic, handle, max_messages=3, max_wait=0.1, dead_letter_topic=f"{topic}-dead"
        )
        await send_all(bus, topic, ["good", "bad", "better"])
        await inbox.expect(["good", "better"])
        await dead.expect(["bad"])
        assert await left_over(bus, subscription) == []

    @row("stricter-045")
    @contract
    async def test_one_impossible_entry_is_reported_and_the_others_arrive(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        subscription = await bus.subscribe(topic, inbox)
        entries: list[PublishEntry] = [
            PublishEntry(data=b"first", entry_id="1"),
            PublishEntry(data=object(), entry_id="no JSON"),
            PublishEntry(data=b"second", entry_id="2"),
            PublishEntry(data=b"x", entry_id="bad lifetime", metadata={"ttlInSeconds": "-1"}),
            PublishEntry(data=b"third", entry_id="3"),
        ]
        limit = bus.limits.value_bytes
        if limit is not None and limit <= 32 << 20:
            entries.insert(2, PublishEntry(data=bytes(limit + 1), entry_id="too large"))
        outcomes = await bus.bulk_publish(topic, entries)
        assert [outcome.entry_id for outcome in outcomes] == [entry.entry_id for entry in entries]
        wrong = [outcome for outcome in outcomes if outcome.error is not None]
        assert [one.entry_id for one in wrong] == [entry.entry_id for entry in entries if len(entry.entry_id or "") > 1]
        assert all(isinstance(one.error, InvalidArgumentError) and not one.error.retryable for one in wrong)
        await inbox.expect(["first", "second", "third"])
        assert await left_over(bus, subscription) == []

    @row("stricter-045")
    @contract
    async def test_an_empty_list_is_nothing_and_equal_ids_are_refused(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        subscription = await bus.subscribe(topic, inbox)
        assert await bus.bulk_publish(topic, []) == []
        for ids in (["a", "b", "a"], ["a", ""], ["1", None]):
            with pytest.raises(InvalidArgumentError):
                await bus.bulk_publish(topic, [PublishEntry(data=b"no", entry_id=one) for one in ids])
        outcomes = await bus.bulk_publish(topic, [b"yes", PublishEntry(data=b"also")])
        assert len({outcome.entry_id for outcome in outcomes}) == 2
        await inbox.expect(["yes", "also"])
        assert await left_over(bus, subscription) == []

    @row("stricter-046")
    @needs(Capability.ATTRIBUTES)
    @contract
    async def test_metadata_of_an_entry_wins_and_nothing_is_changed(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        await bus.subscribe(topic, inbox)
        common = {"origin": "request", "common": "request"}
        entries = [
            PublishEntry(data=b"own", metadata={"origin": "entry", "extra": "entry"}),
            PublishEntry(data=b"plain"),
        ]
        await bus.bulk_publish(topic, entries, metadata=common)
        await inbox.expect(["own", "plain"])
        got = {message.text(): dict(message.metadata) for message in inbox.messages}
        assert got["own"].items() >= {"origin": "entry", "extra": "entry", "common": "request"}.items()
        assert got["plain"].items() >= common.items()
        assert "extra" not in got["plain"]
        assert common == {"origin": "request", "common": "request"}
        assert [dict(entry.metadata) for entry in entries] == [{"origin": "entry", "extra": "entry"}, {}]

    @row("stricter-046")
    @contract
    async def test_an_entry_decides_about_its_envelope(self, bus: PubSub, topic: str) -> None:
        inbox = Inbox()
        await bus.subscribe(topic, inbox, raw=True)
        entries = [PublishEntry(data=b"bare"), PublishEntry(data=b"wrapped", metadata={"rawPayload": "false"})]
        await bus.bulk_publish(topic, entries, metadata={"rawPayload": "true"})
        await inbox.calls(2)
        raw = [message.raw for message in inbox.messages]
        assert [one for one in raw if one == b"bare"] == [b"bare"]
        assert [one for one in raw if b'"specversion"' in one and b"wrapped" in one]


def _each(inbox: Inbox) -> BulkHandler:
    async def handle(messages: list[Message]) -> Sequence[Outcome | None] | None:
        for message in messages:
            await inbox(message)
        return None

    return handle
