"""What holds for every binding: the fronts over a driver made for the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lapel.bindings import (
    BindingDriver,
    BindingEvent,
    BindingResponse,
    BindingSettings,
    InputBinding,
    InvokeRequest,
    OutputBinding,
    ReadRequest,
)
from lapel.component import ComponentOptions, HealthState
from lapel.delivery import Backoff, Consumer, Delivery, Settled, Settlement
from lapel.descriptor import Capability, Descriptor, Kind
from lapel.driver import DriverContext
from lapel.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    LapelError,
    NotOpenError,
    OutcomeUnknownTimeoutError,
    SettingsError,
    UnavailableError,
    UnsupportedError,
)
from lapel.policy import Effect

DESCRIPTOR = Descriptor(
    kind=Kind.BINDINGS,
    name="scripted",
    driver=f"{__name__}:ScriptedBinding",
    settings=f"{__name__}:BindingSettings",
    summary="Does what a test says.",
    capabilities=Capability.INPUT | Capability.OUTPUT | Capability.PAUSE,
    operations=("create", "get", "bulkGet"),
)
AT_ONCE = Backoff(initial=0, maximum=0)

# The first use of a settings class looks for plugins of pydantic on the disk, which no event loop should wait for.
BindingSettings.parse({})


class ScriptedBinding(BindingDriver[BindingSettings]):
    """Answers with `script`, and reads from `source`."""

    descriptor = DESCRIPTOR

    def __init__(self, direction: str = "") -> None:
        super().__init__(BindingSettings.parse({"direction": direction}), DriverContext(component="b"))
        self.requests: list[InvokeRequest] = []
        self.script: Callable[[InvokeRequest], Any] = lambda request: BindingResponse(b"done")
        self.source = Source()
        self.reads: list[ReadRequest] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ping(self) -> None: ...

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        self.requests.append(request)
        result = self.script(request)
        response: BindingResponse = await result if asyncio.iscoroutine(result) else result
        return response

    async def read(self, request: ReadRequest) -> Consumer:
        self.reads.append(request)
        return self.source


class Source(Consumer):
    """Gives what is put into `queue` and keeps what was settled."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Delivery | Exception] = asyncio.Queue()
        self.settled: list[Settled] = []
        self.changed = asyncio.Event()
        self.closed = 0

    def put(self, data: bytes, attempt: int | None = None) -> None:
        self.queue.put_nowait(Delivery(None, "b", data, {"n": "1"}, "text/plain", attempt=attempt))

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        item = await self.queue.get()
        if isinstance(item, Exception):
            raise item
        return [item]

    async def settle(self, settled: Sequence[Settled]) -> None:
        self.settled += settled
        self.changed.set()

    async def settlement(self) -> Settled:
        async with asyncio.timeout(10):
            while not self.settled:
                self.changed.clear()
                await self.changed.wait()
        return self.settled.pop(0)

    async def close(self) -> None:
        self.closed += 1


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def with_flags(driver: ScriptedBinding, extra: Capability) -> ScriptedBinding:
    driver._capabilities |= extra
    return driver


def short(seconds: float = 0.05) -> ComponentOptions:
    return ComponentOptions(call_timeout=timedelta(seconds=seconds))


# invoke


async def test_operations_match_without_case_and_reach_the_driver_as_declared() -> None:
    async with OutputBinding(ScriptedBinding()) as binding:
        for name in ("bulkGet", "BULKGET", "bulkget"):
            await binding.invoke(name)
        driver = binding.driver
        assert isinstance(driver, ScriptedBinding)
        assert [request.operation for request in driver.requests] == ["bulkGet"] * 3
        assert binding.operations == ("create", "get", "bulkGet")


@pytest.mark.parametrize("name", ["delete", "", " get"])
async def test_an_operation_that_is_not_offered_is_refused_with_those_that_are(name: str) -> None:
    async with OutputBinding(ScriptedBinding()) as binding:
        with pytest.raises(UnsupportedError, match="create, get, bulkGet"):
            await binding.invoke(name)


@pytest.mark.parametrize(
    ("data", "sent"),
    [(None, None), (b"\x00\xff", b"\x00\xff"), (b"", b""), ("text", b'"text"'), ({"a": [1, None]}, b'{"a":[1,null]}')],
)
async def test_bytes_go_out_as_they_are_and_values_as_json(data: Any, sent: bytes | None) -> None:
    driver = ScriptedBinding()
    async with OutputBinding(driver) as binding:
        await binding.invoke("create", data, metadata={"k": "v"})
    assert driver.requests == [InvokeRequest("create", sent, {"k": "v"})]


@pytest.mark.parametrize("data", [float("nan"), object(), "\ud800"])
async def test_what_json_cannot_hold_is_refused(data: Any) -> None:
    driver = ScriptedBinding()
    async with OutputBinding(driver) as binding:
        with pytest.raises(InvalidArgumentError):
            await binding.invoke("create", data)
    assert driver.requests == []


async def test_metadata_that_is_not_text_is_refused() -> None:
    async with OutputBinding(ScriptedBinding()) as binding:
        for metadata in ({"a": 1}, {1: "a"}, ["a"]):
            with pytest.raises(InvalidArgumentError, match="metadata"):
                await binding.invoke("create", metadata=metadata)  # type: ignore[arg-type]  # wrong on purpose


async def test_reading_operations_are_repeated_and_others_never() -> None:
    driver = ScriptedBinding()

    def fail_once(request: InvokeRequest) -> BindingResponse:
        if len(driver.requests) == 1:
            raise UnavailableError("not now")
        return BindingResponse(b"done")

    driver.script = fail_once
    async with OutputBinding(driver) as binding:
        assert (await binding.invoke("get")).data == b"done"
        for operation in ("create", "bulkGet"):
            driver.requests.clear()
            with pytest.raises(UnavailableError):
                await binding.invoke(operation)
            assert len(driver.requests) == 1


async def test_a_driver_may_declare_what_an_operation_does() -> None:
    class Reading(ScriptedBinding):
        def effect(self, operation: str) -> Effect:
            return Effect.SAFE

    driver = Reading()
    driver.script = lambda request: BindingResponse(b"done") if len(driver.requests) > 1 else fail()
    async with OutputBinding(driver) as binding:
        assert (await binding.invoke("create")).data == b"done"


def fail() -> BindingResponse:
    raise UnavailableError("not now")


async def test_a_stream_is_sent_once_even_by_a_reading_operation() -> None:
    driver = ScriptedBinding()
    driver.script = lambda request: fail()
    async with OutputBinding(driver) as binding:
        with pytest.raises(UnavailableError):
            await binding.invoke("get", chunks(b"a"))
    assert len(driver.requests) == 1


async def collected(request: InvokeRequest) -> BindingResponse:
    assert request.data is not None
    assert not isinstance(request.data, bytes)
    return BindingResponse(b"|".join([chunk async for chunk in request.data]))


async def test_a_stream_reaches_the_driver_in_its_chunks() -> None:
    driver = ScriptedBinding()
    driver.script = collected
    async with OutputBinding(driver) as binding:
        assert (await binding.invoke("create", chunks(b"a", b"", b"c"))).data == b"a||c"


async def test_the_deadline_of_a_stream_is_per_chunk() -> None:
    driver = ScriptedBinding()
    driver.script = collected

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(8):
            await asyncio.sleep(0.1)
            yield b"x"

    async with OutputBinding(driver, options=short(0.5)) as binding:
        assert await (await binding.invoke("create", slow())).read() == b"|".join([b"x"] * 8)


async def test_a_stream_that_stalls_ends_at_the_deadline_and_its_outcome_is_unknown() -> None:
    driver = ScriptedBinding()
    driver.script = collected

    async def stalled() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with OutputBinding(driver, options=short()) as binding:
        with pytest.raises(OutcomeUnknownTimeoutError):
            await binding.invoke("create", stalled())
        with pytest.raises(DeadlineExceededError):
            await binding.invoke("get", stalled())
        driver.script = lambda request: BindingResponse(b"fine")
        assert (await binding.invoke("get")).data == b"fine"


async def test_what_the_callers_stream_raises_reaches_the_caller_as_it_is() -> None:
    driver = ScriptedBinding()
    driver.script = collected

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    async with OutputBinding(driver) as binding:
        with pytest.raises(KeyError, match="mine"):
            await binding.invoke("create", broken())


async def test_a_stream_of_text_is_refused() -> None:
    async def text() -> AsyncIterator[Any]:
        yield "text"

    driver = ScriptedBinding()
    driver.script = collected
    async with OutputBinding(driver) as binding:
        with pytest.raises(InvalidArgumentError, match="must be bytes"):
            await binding.invoke("create", text())


class Tracked(AsyncIterator[bytes]):
    """A reply that knows whether it was closed, and that waits after its first chunk if told so."""

    def __init__(self, *parts: bytes, stall: bool = False, error: Exception | None = None) -> None:
        self.parts = list(parts)
        self.stall = stall
        self.error = error
        self.closed = 0

    async def __anext__(self) -> bytes:
        if self.parts:
            return self.parts.pop(0)
        if self.stall:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_streamed_reply_is_gathered_unless_a_stream_is_asked_for() -> None:
    reply = Tracked(b"a", b"b")
    driver = ScriptedBinding()
    driver.script = lambda request: BindingResponse(reply, {"m": "1"}, "text/plain")
    async with OutputBinding(driver) as binding:
        assert await binding.invoke("get") == BindingResponse(b"ab", {"m": "1"}, "text/plain")
        assert reply.closed == 1


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_stream_that_is_asked_for_is_one_whatever_the_driver_gives(streamed: bool) -> None:
    driver = ScriptedBinding()
    driver.script = lambda request: BindingResponse(Tracked(b"a", b"b") if streamed else b"ab")
    async with OutputBinding(driver) as binding:
        response = await binding.invoke("get", stream=True)
        assert not isinstance(response.data, bytes)
        assert await response.read() == b"ab"
        driver.script = lambda request: BindingResponse()
        assert (await binding.invoke("get", stream=True)).data is None


async def test_a_reply_that_is_not_read_is_closed_by_its_owner_or_with_the_component() -> None:
    replies = [Tracked(b"a", b"b"), Tracked(b"a", b"b")]
    pending = list(replies)
    driver = ScriptedBinding()
    driver.script = lambda request: BindingResponse(pending.pop(0))
    async with OutputBinding(driver) as binding:
        first = await binding.invoke("get", stream=True)
        await first.aclose()
        await first.aclose()
        assert replies[0].closed == 1
        second = await binding.invoke("get", stream=True)
        assert second.data is not None
        assert not isinstance(second.data, bytes)
        assert await anext(second.data) == b"a"
    assert replies[1].closed == 1
    with pytest.raises(ClosedError):
        await anext(second.data)


async def test_each_chunk_of_a_reply_has_a_deadline() -> None:
    reply = Tracked(b"a", stall=True)
    driver = ScriptedBinding()
    driver.script = lambda request: BindingResponse(reply)
    async with OutputBinding(driver, options=short()) as binding:
        with pytest.raises(DeadlineExceededError):
            await binding.invoke("get")
        assert reply.closed == 1


async def test_an_error_in_the_middle_of_a_reply_is_typed_and_placed() -> None:
    driver = ScriptedBinding()
    driver.script = lambda request: BindingResponse(Tracked(b"a", error=UnavailableError("gone")))
    async with OutputBinding(driver) as binding:
        with pytest.raises(UnavailableError, match=r"component 'b' \(bindings.scripted\) get: gone"):
            await binding.invoke("get")
        assert len(driver.requests) == 1


async def test_the_callers_metadata_and_data_stay_as_they_were() -> None:
    async with OutputBinding(ScriptedBinding()) as binding:
        metadata, data = {"a": "b"}, {"x": [1]}
        await binding.invoke("create", data, metadata=metadata)
        assert metadata == {"a": "b"}
        assert data == {"x": [1]}


async def test_used_before_open_and_after_close() -> None:
    binding = OutputBinding(ScriptedBinding())
    for data in (b"", chunks()):
        with pytest.raises(NotOpenError):
            await binding.invoke("create", data)
    await binding.open()
    await binding.aclose()
    for name in ("create", "unknown"):
        with pytest.raises(ClosedError):
            await binding.invoke(name)


# direction


async def test_a_direction_that_the_file_rules_out_does_not_open() -> None:
    with pytest.raises(UnsupportedError, match="direction"):
        await OutputBinding(ScriptedBinding("input")).open()
    with pytest.raises(UnsupportedError, match="direction"):
        await InputBinding(ScriptedBinding("output")).open()
    async with OutputBinding(ScriptedBinding("input, output")), InputBinding(ScriptedBinding("Input")):
        pass


async def test_a_direction_that_the_driver_lacks_does_not_open() -> None:
    class OutputOnly(ScriptedBinding):
        descriptor = replace(DESCRIPTOR, capabilities=Capability.OUTPUT)

    with pytest.raises(UnsupportedError, match="no input side"):
        await InputBinding(OutputOnly()).open()


def test_a_direction_that_the_driver_does_not_have_is_a_wrong_setting() -> None:
    class Settings(BindingSettings):
        offered_directions = ("input",)

    for direction in ("output", "input, output"):
        with pytest.raises(SettingsError, match="only input"):
            Settings.parse({"direction": direction})
    Settings.parse({"direction": "input"})


# read


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


def test_reply_errors_are_also_the_general_ones() -> None:
    from lapel import bindings
    from lapel.errors import NotFoundError

    response = BindingResponse(b"why")
    error: LapelError = bindings.NotFoundReplyError("gone", response)
    assert isinstance(error, NotFoundError)
    assert isinstance(error, bindings.ReplyError)
    assert error.response is response
    assert "why" not in str(error)
    assert bindings.ThrottledReplyError("slow", response).retryable
    assert not bindings.ReplyError("no", response).retryable
