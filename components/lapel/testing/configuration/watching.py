"""Subscriptions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ...component import CLOSE_SECONDS
from ...configuration import ConfigurationEvent, ConfigurationItem, ConfigurationStore, WatchRequest
from ...descriptor import Capability
from ...errors import ClosedError, NotFoundError
from ..marks import contract, needs, row
from ..subject import Subject
from .base import ConfigurationBase, Inbox, eventually
from .reading import block
from .writers import ConfigurationWriter

__all__ = ["WatchingTests"]

GONE = ConfigurationItem("", deleted=True)


class WatchingTests(ConfigurationBase):
    """What reaches a handler, and when."""

    @row("CF-05", "CF-06", "CF-07", "CF-08", "CF-09", "CF-10")
    @needs(Capability.WATCH)
    @contract
    async def test_each_subscription_gets_the_changes_of_its_keys_until_it_ends(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        first, second, third = (block(base, number) for number in (1, 2, 3))
        writer.put({**first, **second})
        some, more, every = Inbox(), Inbox(), Inbox()
        ids = [
            await store.subscribe(first, some),
            await store.subscribe([*first, *second], more),
            await store.subscribe([], every),
        ]
        assert len(set(ids)) == 3

        first, second = block(base, 1, "new"), block(base, 2, "new")
        writer.put(first)
        writer.put(second)
        writer.put(third)
        await some.expect(first)
        await more.expect({**first, **second})
        await every.expect({**first, **second, **third})

        writer.remove(second)
        gone = dict.fromkeys(second, GONE)
        await more.expect(gone)
        await every.expect(gone)
        assert set(some.items) == set(first)
        assert set(more.items) == {*first, *second}
        assert {event.id for event in more.events} == {ids[1]}

        inboxes = [some, more, every]
        for number, id_ in enumerate(ids):
            await store.unsubscribe(id_)
            ended = [len(inbox.events) for inbox in inboxes[: number + 1]]
            witness = Inbox()
            witnessing = await store.subscribe(first, witness)
            first = block(base, 1, f"after {number}")
            writer.put(first)
            for inbox in [witness, *inboxes[number + 1 :]]:
                await inbox.expect(first)
            await store.unsubscribe(witnessing)
            assert [len(inbox.events) for inbox in inboxes[: number + 1]] == ended
        writer.remove([*first, *third])

    @row("CF-05b")
    @needs(Capability.WATCH)
    async def test_request_metadata_reaches_the_driver(
        self, store: ConfigurationStore, base: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[WatchRequest] = []
        watch = store.driver.watch

        async def recording(request: WatchRequest) -> Any:
            seen.append(request)
            return await watch(request)

        monkeypatch.setattr(store.driver, "watch", recording)
        await store.unsubscribe(await store.subscribe([base], Inbox(), metadata={"someKey": "some text"}))
        assert [(request.keys, dict(request.metadata)) for request in seen] == [((base,), {"someKey": "some text"})]

    @row("stricter-085")
    @needs(Capability.WATCH)
    @contract
    async def test_a_change_right_after_subscribing_is_delivered(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        for number in range(5):
            inbox = Inbox()
            id_ = await store.subscribe([base], inbox)
            writer.put({base: ConfigurationItem(str(number))})
            await inbox.expect({base: ConfigurationItem(str(number))})
            await store.unsubscribe(id_)
        writer.remove([base])

    @row("stricter-086")
    @needs(Capability.WATCH)
    @contract
    async def test_an_empty_value_and_a_deletion_differ(
        self, subject: Subject, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        writer.put({base: ConfigurationItem("full", "1", self.metadata(subject, owner="ops"))})
        inbox = Inbox()
        await store.subscribe([base], inbox)
        if self.option(subject, "emptyValues") == "true":
            writer.put({base: ConfigurationItem("")})
            await inbox.expect({base: ConfigurationItem("")})
        writer.remove([base])
        await inbox.expect({base: GONE})
        writer.put({base: ConfigurationItem("back")})
        await inbox.expect({base: ConfigurationItem("back")})
        writer.remove([base])

    @row("stricter-087")
    @needs(Capability.WATCH)
    @contract
    async def test_the_present_state_is_sent_only_when_asked_for(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        present = {f"{base}-a": ConfigurationItem("1", "v1"), f"{base}-b": ConfigurationItem("2")}
        later = {f"{base}-c": ConfigurationItem("3")}
        writer.put(present)
        silent, eager = Inbox(), Inbox()
        await store.subscribe([*present, *later], silent)
        await store.subscribe([*present, *later], eager, initial=True)
        await eager.expect(present)
        assert dict(eager.events[0].items) == present
        writer.put(later)
        for inbox in (silent, eager):
            await inbox.expect(later)
        assert silent.items == later
        writer.remove([*present, *later])

    @row("stricter-088")
    @needs(Capability.WATCH)
    async def test_an_unknown_or_ended_id_is_not_found(self, store: ConfigurationStore, base: str) -> None:
        id_ = await store.subscribe([], Inbox())
        await store.unsubscribe(id_)
        for unknown in (id_, base):
            with pytest.raises(NotFoundError):
                await store.unsubscribe(unknown)

    @row("stricter-088")
    @needs(Capability.WATCH)
    @contract
    async def test_a_handler_can_end_its_own_subscription(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        calls: list[ConfigurationEvent] = []
        witness = Inbox()

        async def once(event: ConfigurationEvent) -> None:
            calls.append(event)
            await store.unsubscribe(event.id)

        await store.subscribe([base], once)
        await store.subscribe([base], witness)
        for value in ("1", "2", "3"):
            writer.put({base: ConfigurationItem(value)})
            await witness.expect({base: ConfigurationItem(value)})
        assert len(calls) == 1
        writer.remove([base])

    @row("stricter-088")
    @needs(Capability.WATCH)
    @contract
    async def test_ending_waits_for_the_event_under_way_and_nothing_comes_after(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        begun, finished = asyncio.Event(), 0

        async def slow(event: ConfigurationEvent) -> None:
            nonlocal finished
            begun.set()
            await asyncio.sleep(0.2)
            finished += 1

        id_ = await store.subscribe([base], slow)
        writer.put({base: ConfigurationItem("1")})
        await begun.wait()
        writer.put({base: ConfigurationItem("2")})
        await store.unsubscribe(id_)
        assert finished == 1
        witness = Inbox()
        await store.subscribe([base], witness)
        writer.put({base: ConfigurationItem("3")})
        await witness.expect({base: ConfigurationItem("3")})
        assert finished == 1
        writer.remove([base])

    @row("stricter-089")
    @needs(Capability.WATCH)
    @contract
    async def test_a_subscription_is_not_touched_by_those_that_fail_or_hang(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        failures, hanging, release = 0, asyncio.Event(), asyncio.Event()
        healthy = Inbox()

        async def fail(event: ConfigurationEvent) -> None:
            nonlocal failures
            failures += 1
            raise ZeroDivisionError

        async def hang(event: ConfigurationEvent) -> None:
            hanging.set()
            await release.wait()

        failing = await store.subscribe([base], fail)
        await store.subscribe([base], hang)
        await store.subscribe([base], healthy)

        async def failed() -> bool:
            return failures >= count

        for count in (1, 2, 3):
            writer.put({base: ConfigurationItem(str(count))})
            await healthy.expect({base: ConfigurationItem(str(count))})
            await eventually(failed, lambda: "a handler that raised gets no more events")
        assert hanging.is_set()
        await store.unsubscribe(failing)
        writer.put({base: ConfigurationItem("last")})
        await healthy.expect({base: ConfigurationItem("last")})
        release.set()
        writer.remove([base])

    @row("stricter-090")
    @needs(Capability.WATCH)
    @contract
    async def test_of_rapid_changes_the_last_is_delivered_and_the_order_never_turns(
        self, store: ConfigurationStore, writer: ConfigurationWriter, base: str
    ) -> None:
        inbox = Inbox()
        await store.subscribe([base], inbox)
        for number in range(100):
            writer.put({base: ConfigurationItem(str(number), str(number))})
            await asyncio.sleep(0)
        await inbox.expect({base: ConfigurationItem("99", "99")})
        versions = [int(event.items[base].version) for event in inbox.events]
        assert versions == sorted(set(versions))
        assert await store.get([base]) == {base: inbox.items[base]}
        writer.remove([base])

    @row("stricter-093")
    @needs(Capability.WATCH)
    async def test_cancelled_subscribers_and_a_close_stop_everything(
        self, subject: Subject, writer: ConfigurationWriter, base: str
    ) -> None:
        component = await self.build(subject).open()
        assert isinstance(component, ConfigurationStore)
        inbox = Inbox()
        for turns in range(20):
            subscribing = asyncio.create_task(component.subscribe([], inbox))
            for _ in range(turns):
                await asyncio.sleep(0)
            subscribing.cancel()
            await asyncio.gather(subscribing, return_exceptions=True)
        for _ in range(5):
            await component.subscribe([base], inbox)
        async with asyncio.timeout(CLOSE_SECONDS * 3):
            await component.aclose()
        seen = len(inbox.events)
        writer.put({base: ConfigurationItem("after the close")})
        async with self.build(subject) as other:
            assert isinstance(other, ConfigurationStore)
            witness = Inbox()
            await other.subscribe([base], witness, initial=True)
            await witness.expect({base: ConfigurationItem("after the close")})
        assert len(inbox.events) == seen
        with pytest.raises(ClosedError):
            await component.subscribe([], inbox)
        writer.remove([base])
