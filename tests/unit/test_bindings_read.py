"""What holds for every input binding: events are handled and settled, and reading pauses, recovers and ends well."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.bindings_support import ScriptedBinding

from lapel.bindings import BindingEvent, BindingResponse, InputBinding, ReadRequest
from lapel.component import HealthState
from lapel.delivery import Backoff, Consumer, Delivery, Settlement
from lapel.descriptor import Capability
from lapel.errors import InvalidArgumentError, NotOpenError, UnavailableError

AT_ONCE = Backoff(initial=0, maximum=0)


def with_flags(driver: ScriptedBinding, extra: Capability) -> ScriptedBinding:
    driver._capabilities |= extra
    return driver


async def test_the_consumer_is_told_whom_to_ask_when_events_are_taken_away() -> None:
    driver, ended = ScriptedBinding(), asyncio.Event()

    async def handle(event: BindingEvent) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with InputBinding(driver) as binding, await binding.read(handle):
        delivery = Delivery(None, "t", b"x")
        driver.source.queue.put_nowait(delivery)
        async with asyncio.timeout(5):
            while binding._reading is None or not binding._reading.health().details["running"]:
                await asyncio.sleep(0)
        assert driver.source.on_revoked is not None
        await driver.source.on_revoked([delivery], 0.1)
        assert ended.is_set()


@pytest.mark.parametrize(("own", "calls"), [(None, 1), (3, 3)])
async def test_the_components_own_fields_say_how_often_and_how_fast_an_event_is_tried(
    own: int | None, calls: int
) -> None:
    class Limited(ScriptedBinding):
        max_attempts = own
        backoff = AT_ONCE

    driver, seen = Limited(), 0

    async def fail(event: BindingEvent) -> None:
        nonlocal seen
        seen += 1
        raise ValueError

    async with InputBinding(driver) as binding, await binding.read(fail):
        driver.source.put(b"x")
        assert (await driver.source.settlement()).settlement is Settlement.ACK
    assert seen == calls


async def test_an_event_arrives_with_its_data_and_metadata() -> None:
    driver = ScriptedBinding()
    events: list[BindingEvent] = []
    async with InputBinding(driver) as binding, await binding.read(events.append, metadata={"m": "1"}):
        driver.source.put(b"data", attempt=3)
        assert (await driver.source.settlement()).settlement is Settlement.ACK
    assert events == [BindingEvent(data=b"data", metadata={"n": "1"}, content_type="text/plain", attempt=3)]
    assert driver.reads == [ReadRequest(1, {"m": "1"})]
    assert driver.source.closed == 1


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (None, None),
        (b"r", BindingResponse(b"r")),
        ({"a": 1}, BindingResponse(b'{"a":1}', content_type="application/json")),
        (BindingResponse(b"r", {"m": "1"}), BindingResponse(b"r", {"m": "1"})),
    ],
)
async def test_the_handlers_result_is_the_reply(answer: Any, reply: BindingResponse | None) -> None:
    driver = with_flags(ScriptedBinding(), Capability.REPLY)

    async def handler(event: BindingEvent) -> Any:
        return answer

    async with InputBinding(driver) as binding, await binding.read(handler):
        driver.source.put(b"")
        assert (await driver.source.settlement()).reply == reply


async def test_without_a_way_back_the_result_is_not_looked_at() -> None:
    driver = ScriptedBinding()
    async with InputBinding(driver) as binding, await binding.read(lambda event: object()):
        driver.source.put(b"")
        settled = await driver.source.settlement()
        assert (settled.settlement, settled.reply) == (Settlement.ACK, None)


async def test_an_error_hands_the_event_back_where_the_source_redelivers() -> None:
    driver = with_flags(ScriptedBinding(), Capability.REDELIVERY)
    attempts: list[int] = []

    def handler(event: BindingEvent) -> None:
        attempts.append(event.attempt)
        if len(attempts) < 3:
            raise ValueError("no")

    async with InputBinding(driver) as binding, await binding.read(handler, backoff=AT_ONCE):
        driver.source.put(b"")
        assert (await driver.source.settlement()).settlement is Settlement.ACK
    assert attempts == [1, 2, 3]


async def test_an_error_ends_the_event_where_the_source_does_not_redeliver() -> None:
    driver = ScriptedBinding()
    attempts: list[int] = []

    def handler(event: BindingEvent) -> None:
        attempts.append(event.attempt)
        raise ValueError("no")

    async with InputBinding(driver) as binding:
        async with await binding.read(handler):
            driver.source.put(b"")
            await driver.source.settlement()
        async with await binding.read(handler, max_attempts=2, backoff=AT_ONCE):
            driver.source.put(b"")
            await driver.source.settlement()
    assert attempts == [1, 1, 2]


async def test_one_reading_at_a_time() -> None:
    driver = ScriptedBinding()
    async with InputBinding(driver) as binding:
        reading = await binding.read(lambda event: None)
        with pytest.raises(InvalidArgumentError, match="being read already"):
            await binding.read(lambda event: None)
        await reading.aclose()
        await reading.aclose()
        closing = asyncio.create_task((await binding.read(lambda event: None)).aclose())
        await asyncio.sleep(0)
        await (await binding.read(lambda event: None)).aclose()
        await closing


async def test_reading_needs_sensible_numbers_and_an_open_component() -> None:
    with pytest.raises(NotOpenError):
        await InputBinding(ScriptedBinding()).read(lambda event: None)
    async with InputBinding(ScriptedBinding()) as binding:
        wrong: list[dict[str, Any]] = [{"concurrency": 0}, {"max_attempts": 0}, {"drain_timeout": -1}]
        for arguments in wrong:
            with pytest.raises(InvalidArgumentError):
                await binding.read(lambda event: None, **arguments)
        await (await binding.read(lambda event: None)).aclose()


async def test_close_waits_for_the_handler_and_no_call_follows() -> None:
    driver = ScriptedBinding()
    started, go_on, calls = asyncio.Event(), asyncio.Event(), []

    async def handler(event: BindingEvent) -> None:
        calls.append(event.data)
        started.set()
        await go_on.wait()

    binding = await InputBinding(driver).open()
    await binding.read(handler)
    driver.source.put(b"1")
    await started.wait()
    closing = asyncio.create_task(binding.aclose())
    await asyncio.sleep(0)
    driver.source.put(b"2")
    go_on.set()
    await closing
    assert calls == [b"1"]
    assert (await driver.source.settlement()).settlement is Settlement.ACK
    assert driver.source.closed == 1


async def test_close_cancels_a_handler_that_outlives_the_drain() -> None:
    driver = ScriptedBinding()
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(event: BindingEvent) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with InputBinding(driver) as binding:
        await binding.read(handler, drain_timeout=0)
        driver.source.put(b"")
        await started.wait()
    assert cancelled.is_set()
    assert driver.source.settled == []


async def test_a_handler_may_close_its_own_reading_and_component() -> None:
    driver = ScriptedBinding()
    done = asyncio.Event()
    binding = await InputBinding(driver).open()

    async def handler(event: BindingEvent) -> None:
        await reading.aclose()
        await binding.aclose()
        done.set()

    reading = await binding.read(handler)
    driver.source.put(b"")
    async with asyncio.timeout(10):
        await done.wait()
        await binding.aclose()
    assert driver.source.closed == 1
    assert (await binding.health()).state is HealthState.CLOSED


async def test_a_lost_source_is_read_again() -> None:
    driver = ScriptedBinding()
    async with InputBinding(driver) as binding, await binding.read(lambda event: None) as reading:
        driver.source.queue.put_nowait(UnavailableError("lost"))
        driver.source.put(b"after")
        assert (await driver.source.settlement()).delivery.data == b"after"
        assert reading.health().ok
        assert (await binding.health()).ok
    assert len(driver.reads) == 2


async def test_a_source_that_cannot_be_read_says_so_at_once() -> None:
    class Refusing(ScriptedBinding):
        async def read(self, request: ReadRequest) -> Consumer:
            raise UnavailableError("no source")

    async with InputBinding(Refusing()) as binding:
        with pytest.raises(UnavailableError, match=r"component 'b' .* read: no source"):
            await binding.read(lambda event: None)
        assert (await binding.health()).ok


async def test_a_paused_reading_handles_nothing_until_it_is_resumed() -> None:
    driver = ScriptedBinding()
    events: list[BindingEvent] = []
    async with InputBinding(driver) as binding, await binding.read(events.append) as reading:
        await reading.pause()
        driver.source.put(b"")
        await asyncio.sleep(0)
        assert events == []
        await reading.resume()
        await driver.source.settlement()
        assert len(events) == 1


async def test_concurrency_is_what_is_asked_for() -> None:
    driver = ScriptedBinding()
    running, both = 0, asyncio.Event()

    async def handler(event: BindingEvent) -> None:
        nonlocal running
        running += 1
        if running == 2:
            both.set()
        await both.wait()

    async with InputBinding(driver) as binding, await binding.read(handler, concurrency=2):
        driver.source.put(b"1")
        driver.source.put(b"2")
        async with asyncio.timeout(10):
            await both.wait()
    assert driver.reads[0].prefetch == 2
