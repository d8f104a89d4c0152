"""Events: that they come, with what, what a failure leads to, and that they stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ...bindings import BindingEvent, InputBinding
from ...component import HealthState
from ...delivery import Backoff
from ...descriptor import Capability
from ...errors import InvalidArgumentError
from ..lifecycle import wait_until
from ..marks import lacks, needs, row
from ..subject import Subject
from .base import BindingBase, Events

__all__ = ["EventTests"]

AT_ONCE = Backoff(initial=0.01, maximum=0.01)


class EventTests(BindingBase):
    """What an input binding is."""

    @row("BD-03", "BD-07", "stricter-066")
    @needs(Capability.INPUT)
    async def test_the_handler_gets_events_with_content_and_metadata(self, subject: Subject, base: str) -> None:
        events = Events()
        async with self.reading(subject, events) as reading:
            await self.cause(subject, base.encode())
            await events.reach(1)
            assert reading.health().state is HealthState.READY
        event = events.seen[0]
        assert isinstance(event.data, bytes)
        assert all(isinstance(text, str) for pair in event.metadata.items() for text in pair)
        assert event.attempt == 1
        if self.makes_events(subject):
            assert base.encode() in [each.data for each in events.seen]

    @row("stricter-066")
    @needs(Capability.INPUT)
    async def test_events_go_on_after_a_handler_failed(self, subject: Subject, base: str) -> None:
        async def fail_once(event: BindingEvent) -> None:
            if len(events.seen) == 1:
                raise ValueError(base)

        events = Events(fail_once)
        async with self.reading(subject, events, backoff=AT_ONCE):
            await self.cause(subject, b"first")
            await self.cause(subject, b"second")
            await events.reach(2)

    @row("stricter-066")
    @needs(Capability.REDELIVERY)
    async def test_a_failed_event_comes_again(self, subject: Subject, base: str) -> None:
        async def fail_once(event: BindingEvent) -> None:
            if [each.data for each in events.seen].count(event.data) == 1:
                raise ValueError(base)

        events = Events(fail_once)
        async with self.reading(subject, events, backoff=AT_ONCE):
            await self.cause(subject, base.encode())
            await events.reach(2)
        assert events.seen[0].data == events.seen[1].data
        assert events.seen[1].attempt > 1

    @row("stricter-066")
    @needs(Capability.INPUT)
    @lacks(Capability.REDELIVERY)
    async def test_a_failed_event_does_not_come_again(self, subject: Subject, base: str) -> None:
        async def fail(event: BindingEvent) -> None:
            raise ValueError(base)

        events = Events(fail)
        async with self.reading(subject, events, backoff=AT_ONCE):
            for number in range(3):
                await self.cause(subject, f"{base}-{number}".encode())
            await events.reach(3)
        assert {event.attempt for event in events.seen} == {1}

    @row("stricter-067")
    @needs(Capability.INPUT)
    async def test_close_with_a_handler_under_way_ends_it_and_no_call_follows(
        self, subject: Subject, base: str
    ) -> None:
        cancelled = asyncio.Event()

        async def hang(event: BindingEvent) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        events = Events(hang)
        async with self.reader(subject) as binding:
            await self._one_under_way(subject, binding, events, base)
            async with asyncio.timeout(10):
                await binding.aclose()
        assert cancelled.is_set()
        await self._no_further_call(subject, events, base)

    @row("stricter-067")
    @needs(Capability.INPUT)
    async def test_the_end_of_the_reading_waits_for_a_handler_and_no_call_follows(
        self, subject: Subject, base: str
    ) -> None:
        go_on, ended = asyncio.Event(), asyncio.Event()

        async def finish(event: BindingEvent) -> None:
            await go_on.wait()
            ended.set()

        events = Events(finish)
        async with self.reader(subject) as binding:
            reading = await self._one_under_way(subject, binding, events, base, drain_timeout=10)
            closing = asyncio.create_task(reading.aclose())
            await asyncio.sleep(0)
            go_on.set()
            async with asyncio.timeout(10):
                await closing
            assert ended.is_set()
            await self._no_further_call(subject, events, base)

    @row("stricter-067")
    @needs(Capability.INPUT)
    async def test_a_handler_may_end_its_own_reading(self, subject: Subject, base: str) -> None:
        ended = asyncio.Event()
        readings: list[Any] = []

        async def end(event: BindingEvent) -> None:
            await readings[0].aclose()
            ended.set()

        events = Events(end)
        async with self.reader(subject) as binding:
            readings.append(await binding.read(events))
            await self.cause(subject, base.encode())
            async with asyncio.timeout(20):
                await ended.wait()
        assert len(events.seen) == 1

    @row("stricter-067")
    @needs(Capability.INPUT)
    async def test_a_second_reading_is_refused_until_the_first_has_ended(self, subject: Subject, base: str) -> None:
        async with self.reader(subject) as binding:
            first, second = Events(), Events()
            async with await binding.read(first):
                with pytest.raises(InvalidArgumentError, match="read already"):
                    await binding.read(second)
                await self.cause(subject, base.encode())
                await first.reach(1)
            async with await binding.read(second):
                await self.cause(subject, base.encode())
                await second.reach(1)

    @row("stricter-067")
    @needs(Capability.INPUT, Capability.PAUSE)
    async def test_a_paused_reading_gets_nothing_until_it_is_resumed(self, subject: Subject, base: str) -> None:
        events, others = Events(), Events()
        async with self.reading(subject, events) as reading:
            await reading.pause()
            # A handler that was about to start may still do so.
            await asyncio.sleep(0.05)
            count = len(events.seen)
            if not self.makes_events(subject):
                async with self.reading(subject, others):
                    await others.reach(2)
            else:
                await self.cause(subject, base.encode())
            assert len(events.seen) == count
            await reading.resume()
            await events.reach(count + 1)

    @row("stricter-067")
    @needs(Capability.INPUT)
    async def test_handlers_run_one_at_a_time_unless_more_are_asked_for(self, subject: Subject, base: str) -> None:
        running = most = 0

        async def overlap(event: BindingEvent) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.05)
            running -= 1

        events = Events(overlap)
        async with self.reading(subject, events):
            for number in range(3):
                await self.cause(subject, f"{base}-{number}".encode())
            await events.reach(3)
        assert most == 1

    async def _one_under_way(
        self, subject: Subject, binding: InputBinding, events: Events, base: str, **options: Any
    ) -> Any:
        reading = await binding.read(events, **({"drain_timeout": 0.05} | options))
        await self.cause(subject, base.encode())
        await events.reach(1)
        return reading

    async def _no_further_call(self, subject: Subject, events: Events, base: str) -> None:
        """Show that the ended handler is left alone while another one gets events."""
        count = len(events.seen)
        others = Events()
        async with self.reading(subject, others):
            await self.cause(subject, f"{base}-later".encode())
            await others.reach(1)

        async def unchanged() -> bool:
            return len(events.seen) == count

        await wait_until(unchanged, lambda: "the handler was called after its end", seconds=0)
