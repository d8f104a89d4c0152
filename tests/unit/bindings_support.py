"""A binding that does what a test says, and a source that keeps what was settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from lapel.bindings import BindingDriver, BindingResponse, BindingSettings, InvokeRequest, ReadRequest
from lapel.delivery import Consumer, Delivery, Settled
from lapel.descriptor import Capability, Descriptor, Kind
from lapel.driver import DriverContext
from lapel.errors import UnavailableError

DESCRIPTOR = Descriptor(
    kind=Kind.BINDINGS,
    name="scripted",
    driver=f"{__name__}:ScriptedBinding",
    settings=f"{__name__}:BindingSettings",
    summary="Does what a test says.",
    capabilities=Capability.INPUT | Capability.OUTPUT | Capability.PAUSE,
    operations=("create", "get", "bulkGet"),
)

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


def fail() -> BindingResponse:
    raise UnavailableError("not now")
