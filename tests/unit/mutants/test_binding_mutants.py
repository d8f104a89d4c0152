"""Wrong bindings: each is killed by the row it names, while the right one passes that row."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import msgspec
import pytest

from lapel.bindings import BindingDriver, BindingResponse, BindingSettings, InvokeRequest, ReadRequest
from lapel.delivery import Consumer, Delivery, Settled, Settlement
from lapel.descriptor import Capability, Descriptor, Kind
from lapel.errors import InvalidArgumentError, NotFoundError
from lapel.testing import BindingSuite, Mutant, Pins, assert_killed, judge, row
from lapel.testing.report import ComponentReport

PINS = Pins(options={"target": "key", "required": "key", "cause": "create"})


class MemoryBinding(BindingDriver[BindingSettings]):
    """Keeps objects in memory; each one created is an event for those who read then."""

    descriptor = Descriptor(
        kind=Kind.BINDINGS,
        name="memory-for-mutants",
        driver=f"{__name__}:MemoryBinding",
        settings="lapel.bindings.settings:BindingSettings",
        summary="The right one.",
        capabilities=Capability.OUTPUT | Capability.INPUT | Capability.REDELIVERY | Capability.PAUSE,
        operations=("create", "get", "list", "delete"),
    )
    objects: ClassVar[dict[str, bytes]] = {}
    readers: ClassVar[list[MemoryConsumer]] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        if request.operation == "create":
            return await self.create(request.metadata.get("key", uuid.uuid4().hex), await _whole(request))
        if request.operation == "list":
            return BindingResponse(json.dumps(list(self.objects)).encode())
        key = request.metadata.get("key")
        if key is None:
            raise InvalidArgumentError("needs the request metadata 'key'")
        if request.operation == "get":
            return BindingResponse(self.get(key))
        self.delete(key)
        return BindingResponse()

    async def create(self, key: str, data: bytes) -> BindingResponse:
        self.objects[key] = data
        for reader in self.readers:
            reader.put(Delivery(None, "memory", data, {"key": key}, attempt=1))
        return BindingResponse()

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise NotFoundError(f"there is no object {key!r}")
        return self.objects[key]

    def delete(self, key: str) -> None:
        self.get(key)
        del self.objects[key]

    async def read(self, request: ReadRequest) -> Consumer:
        reader = MemoryConsumer(self.readers)
        self.readers.append(reader)
        return reader


class MemoryConsumer(Consumer):
    """Gets what is created while it is there."""

    redelivers = True

    def __init__(self, readers: list[MemoryConsumer]) -> None:
        self._readers = readers
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()

    def put(self, delivery: Delivery) -> None:
        self._queue.put_nowait(delivery)

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        try:
            async with asyncio.timeout(max_wait):
                return [await self._queue.get()]
        except TimeoutError:
            return []

    async def settle(self, settled: Sequence[Settled]) -> None:
        for each in settled:
            if each.settlement is Settlement.RETRY:
                attempt = (each.delivery.attempt or 1) + 1
                again = msgspec.structs.replace(each.delivery, attempt=attempt)
                asyncio.get_running_loop().call_later(each.delay, self.put, again)

    async def close(self) -> None:
        if self in self._readers:
            self._readers.remove(self)


async def _whole(request: InvokeRequest) -> bytes:
    if request.data is None or isinstance(request.data, bytes):
        return request.data or b""
    return b"".join([chunk async for chunk in request.data])


class TakesQuotesOff(MemoryBinding):
    async def create(self, key: str, data: bytes) -> BindingResponse:
        return await super().create(key, data[1:-1] if data[:1] == data[-1:] == b'"' else data)


class GuessesBase64(MemoryBinding):
    async def create(self, key: str, data: bytes) -> BindingResponse:
        with contextlib.suppress(binascii.Error):
            data = base64.b64decode(data, validate=True)
        return await super().create(key, data)


class AnswersNothingForWhatIsMissing(MemoryBinding):
    def get(self, key: str) -> bytes:
        return self.objects.get(key, b"")


class DeletesNothing(MemoryBinding):
    def delete(self, key: str) -> None:
        self.get(key)


class DoesNotNameWhatIsMissing(MemoryBinding):
    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        try:
            return await super().invoke(request)
        except InvalidArgumentError:
            raise InvalidArgumentError("something is missing") from None


class ChangesTheMetadata(MemoryBinding):
    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        cast("dict[str, str]", request.metadata).pop("x-unknown", None)
        return await super().invoke(request)


class WritesInPieces(MemoryBinding):
    async def create(self, key: str, data: bytes) -> BindingResponse:
        self.objects[key] = data[: len(data) // 2]
        await asyncio.sleep(0)
        return await super().create(key, self.objects[key] + data[len(data) // 2 :])


class ForgetsFailedEvents(MemoryBinding):
    async def read(self, request: ReadRequest) -> Consumer:
        consumer = await super().read(request)

        async def settle(settled: Sequence[Settled]) -> None: ...

        cast("Any", consumer).settle = settle
        return consumer


class LosesTheContentOfEvents(MemoryBinding):
    async def read(self, request: ReadRequest) -> Consumer:
        consumer = await super().read(request)
        receive = consumer.receive

        async def emptied(max_messages: int, max_wait: float) -> Sequence[Delivery]:
            return [msgspec.structs.replace(each, data=b"") for each in await receive(max_messages, max_wait)]

        cast("Any", consumer).receive = emptied
        return consumer


class OffersLess(MemoryBinding):
    @property
    def operations(self) -> tuple[str, ...]:
        return tuple(name for name in super().operations if name != "list")


# The module's fixture runs many suites, and locks expire in real time.
pytestmark = pytest.mark.timeout(300)

MUTANTS = [
    Mutant(TakesQuotesOff, "stricter-063"),
    Mutant(GuessesBase64, "stricter-063"),
    Mutant(AnswersNothingForWhatIsMissing, "stricter-061"),
    Mutant(DeletesNothing, "BD-08"),
    Mutant(DoesNotNameWhatIsMissing, "stricter-062"),
    Mutant(ChangesTheMetadata, "stricter-072"),
    Mutant(WritesInPieces, "stricter-065"),
    Mutant(ForgetsFailedEvents, "stricter-066"),
    Mutant(LosesTheContentOfEvents, "BD-07"),
    Mutant(OffersLess, "BD-02"),
]


@pytest.fixture(scope="module")
def outcomes() -> Mapping[str, ComponentReport]:
    return judge(BindingSuite, MemoryBinding, BindingSettings.parse({}), MUTANTS, pins=PINS)


@row("stricter-140")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.id}-{mutant.row}")
def test_a_wrong_binding_is_caught(outcomes: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(outcomes, mutant)
