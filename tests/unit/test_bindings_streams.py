"""What holds for streams through every binding: sent once, each chunk with a deadline, and closed in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.bindings_support import ScriptedBinding, chunks, fail

from lapel.bindings import BindingResponse, InvokeRequest, OutputBinding
from lapel.component import ComponentOptions
from lapel.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    OutcomeUnknownTimeoutError,
    UnavailableError,
)


def short(seconds: float = 0.05) -> ComponentOptions:
    return ComponentOptions(call_timeout=timedelta(seconds=seconds))


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
