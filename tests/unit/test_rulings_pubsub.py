"""Rulings on publish and subscribe that only show when things happen at a bad moment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import lapel
from lapel.delivery import Backoff
from lapel.pubsub import Message, Outcome


def event(number: int, expires_at: float) -> bytes:
    end = datetime.fromtimestamp(expires_at, UTC).isoformat()
    return (
        f'{{"id":"{number}","source":"s","type":"t","specversion":"1.0","data":{number},"expiration":"{end}"}}'.encode()
    )


async def test_a_message_that_expires_while_its_batch_is_handled_keeps_its_own_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    monkeypatch.setattr("lapel.pubsub.event.time.time", lambda: clock)
    seen: list[list[int]] = []
    letters: list[int] = []
    done = asyncio.Event()

    async def handle(messages: list[Message]) -> list[Outcome | None]:
        nonlocal clock
        seen.append([message.json() for message in messages])
        if len(seen) == 1:
            clock += timedelta(hours=1).total_seconds()
            return [None, Outcome.RETRY]
        done.set()
        return [None]

    async def bury(message: Message) -> None:
        letters.append(message.json())

    async with lapel.open_pubsub("in-memory") as bus:
        await bus.subscribe("dead", bury)
        await bus.bulk_subscribe(
            "t", handle, max_messages=3, max_wait=5, dead_letter_topic="dead", backoff=Backoff(initial=0, maximum=0)
        )
        await bus.publish("t", event(1, clock - 1), raw=True)
        await bus.publish("t", event(2, clock + 60), raw=True)
        await bus.publish("t", event(3, clock + 7200), raw=True)
        async with asyncio.timeout(10):
            await done.wait()
            while not letters:
                await asyncio.sleep(0.01)
    assert seen == [[2, 3], [3]]
    assert letters == [1]


NAMESPACED = """apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.sqlite
  version: v1
  metadata:
  - name: connectionString
    value: "{database}"
  - name: publishingScopes
    value: "shop=orders,dead"
  - name: subscriptionScopes
    value: "shop=orders"
  - name: consumerID
    value: "{group}"
"""


async def test_namespace_in_a_field_puts_the_namespace_before_topics_and_nobody_above_sees_it(tmp_path: Path) -> None:
    file, database = tmp_path / "bus.yaml", tmp_path / "bus.db"
    file.write_text(NAMESPACED.format(database=database, group="{namespace}"))
    topics: list[tuple[str, str, str]] = []
    outside: asyncio.Queue[str] = asyncio.Queue()

    async def handle(message: Message) -> Outcome:
        topics.append((message.topic, message.event.topic, message.json()))
        return Outcome.DROP

    async def bury(message: Message) -> None:
        await outside.put(message.topic)
        await outside.put(message.metadata["dead-letter-topic"])

    async with (
        lapel.open_pubsub("sqlite", connection_string=str(database), name="plain") as plain,
        lapel.open_components(file, app_id="shop", namespace="prod") as components,
    ):
        bus = components.pubsub("bus")
        await plain.subscribe("proddead", bury)
        async with await bus.subscribe("orders", handle, dead_letter_topic="dead") as subscription:
            assert (subscription.topic, subscription.group) == ("orders", "prod.shop")
            await bus.publish("orders", "one")
            async with asyncio.timeout(10):
                assert [await outside.get(), await outside.get()] == ["proddead", "orders"]
            await plain.publish("prodorders", "two")
            async with asyncio.timeout(10):
                while len(topics) < 2:
                    await asyncio.sleep(0.01)
    assert topics[0] == ("orders", "orders", "one")
    assert topics[1][0] == "orders"
    assert topics[1][2] == "two"


async def test_without_a_namespace_or_the_tag_topics_stay_as_they_are(tmp_path: Path) -> None:
    file, database = tmp_path / "bus.yaml", tmp_path / "bus.db"
    file.write_text(NAMESPACED.format(database=database, group="mine"))
    got: asyncio.Queue[str] = asyncio.Queue()

    async def handle(message: Message) -> None:
        await got.put(message.topic)

    async with (
        lapel.open_pubsub("sqlite", connection_string=str(database), name="plain") as plain,
        lapel.open_components(file, app_id="shop", namespace="prod") as components,
    ):
        await plain.subscribe("orders", handle)
        await components.pubsub("bus").publish("orders", 1)
        async with asyncio.timeout(10):
            assert await got.get() == "orders"
