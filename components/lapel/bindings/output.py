"""The output binding that an application holds."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, get_running_loop
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NoReturn, Self

from typing_extensions import override

from ..coalesce import was_sent
from ..component import Component, ComponentOptions
from ..concealment import raise_for
from ..descriptor import Capability
from ..errors import ClosedError, InvalidArgumentError, LapelError, UnsupportedError
from ..jsontext import encode_value
from ..policy import Operation
from ._streams import Progress, ReplyStream, RequestStream
from .driver import BindingDriver
from .types import NO_METADATA, BindingResponse, InvokeRequest

__all__ = ["OutputBinding", "check_direction"]


class OutputBinding(Component[BindingDriver[Any]]):
    """Operations of an outside system. All calls may overlap."""

    def __init__(self, driver: BindingDriver[Any], *, options: ComponentOptions | None = None) -> None:
        super().__init__(driver, options=options)
        self._operations: dict[str, Operation] = {}
        self._replies: set[ReplyStream] = set()

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations that `invoke` takes; final after `open`."""
        return self._driver.operations

    @override
    async def open(self) -> Self:
        check_direction(self._driver, "output", Capability.OUTPUT)
        return await super().open()

    async def invoke(
        self,
        operation: str,
        data: Any = None,
        *,
        metadata: Mapping[str, str] = NO_METADATA,
        stream: bool = False,
    ) -> BindingResponse:
        """Carry out one of `operations`, whose names match without regard to case.

        `data` None is no payload. Bytes and an async iterable of bytes go out as they are; every other value as JSON,
        text as a JSON string. An iterable is read once, and the call is then never repeated. What `metadata` means is
        the driver's to say. With `stream` the reply's data is an async iterator that must be read to the end or closed
        (`BindingResponse.aclose`); otherwise it is bytes. None is no data.

        The deadline holds for the whole call, but for each chunk where data is a stream. Operations that only read
        are repeated as the retry policy says, others never, nor what fails in the middle of a streamed reply.

        Raises `UnsupportedError` for an operation that is not offered, `InvalidArgumentError` for wrong metadata,
        `NotFoundError`, `ReplyError` with what the outside system answered, and `OutcomeUnknownError` when an operation
        with an effect was sent and its reply was lost.
        """
        chosen = self._chosen(operation)
        if not isinstance(metadata, Mapping) or not all(
            isinstance(text, str) for pair in metadata.items() for text in pair
        ):
            raise self._invalid("metadata must map text to text", chosen.name)
        if isinstance(data, AsyncIterable):
            response = await self._upload(chosen, data, metadata)
        else:
            request = InvokeRequest(chosen.name, self._encoded(data, chosen.name), metadata)
            response = await self._call(chosen, self._driver.invoke, request)
        return await self._reply(chosen, response, stream)

    def _chosen(self, name: str) -> Operation:
        """Return the operation of that name; from before `open` only the state is complained about."""
        found = self._operations.get(name) if isinstance(name, str) else None
        if found is not None:
            return found
        if self._loop is not get_running_loop():
            raise self._unusable("invoke")
        if not isinstance(name, str):
            raise self._invalid(f"the operation must be text, not {type(name).__name__}", "invoke")
        offered = self._driver.operations
        spelling = next((each for each in offered if each.lower() == name.lower()), None)
        if spelling is None:
            raise UnsupportedError(
                f"does not offer the operation {name!r}; it offers: {', '.join(offered)}",
                component=self.name,
                driver=self.type,
                operation="invoke",
            )
        chosen = Operation(spelling, self._driver.effect(spelling))
        # Only spellings of operations that exist are kept, so the table stays small.
        self._operations[name] = chosen
        return chosen

    def _encoded(self, data: Any, operation: str) -> bytes | None:
        if data is None or isinstance(data, bytes):
            return data
        try:
            return encode_value(data, None)[0]
        except InvalidArgumentError as exc:
            raise self._invalid(exc.message, operation) from None

    async def _upload(
        self, operation: Operation, data: AsyncIterable[bytes], metadata: Mapping[str, str]
    ) -> BindingResponse:
        """Run one call whose payload is a stream: a deadline for each chunk, and one try."""
        if get_running_loop() is not self._loop:
            raise self._unusable(operation.name)
        assert self._deadlines is not None
        progress = Progress(self._deadlines)
        source = RequestStream(data, progress)
        request = InvokeRequest(operation.name, source, metadata)
        self._telemetry.refresh()
        try:
            with self._telemetry.operation(operation.name) if self._telemetry.active else nullcontext():
                return await self._driver.invoke(request)
        except CancelledError as exc:
            if progress.timed_out():
                raise self._timed_out(operation, was_sent(exc)) from None
            raise
        except Exception as exc:
            if source.failure is not None:
                raise source.failure from None
            self._fail_with(operation, exc)
        finally:
            progress.end()

    async def _reply(self, operation: Operation, response: BindingResponse, stream: bool) -> BindingResponse:
        data = response.data
        if data is None or (isinstance(data, bytes) and not stream):
            return response
        assert self._deadlines is not None
        reply = ReplyStream(
            _once(data) if isinstance(data, bytes) else data,
            self._deadlines,
            fail_with=partial(self._fail_with, operation),
            timed_out=partial(self._timed_out, operation, True),
            forget=self._replies.discard,
        )
        if self._loop is None:
            await reply.aclose()
            raise self._unusable(operation.name)
        self._replies.add(reply)
        if stream:
            return BindingResponse(reply, response.metadata, response.content_type)
        async with reply:
            return BindingResponse(b"".join([chunk async for chunk in reply]), response.metadata, response.content_type)

    def _fail_with(self, operation: Operation, exc: Exception) -> NoReturn:
        raise_for(exc, self._located(exc, operation.name), self._driver.settings)

    @override
    async def _drain(self) -> None:
        replies = list(self._replies)
        for reply in replies:
            reply.fail(ClosedError("was closed before the reply was read", component=self.name, driver=self.type))
        await asyncio.gather(*(reply.aclose() for reply in replies), return_exceptions=True)


def check_direction(driver: BindingDriver[Any], direction: str, capability: Capability) -> None:
    """Raise `UnsupportedError` when a binding is opened for a direction that it lacks or that its file rules out."""
    wanted: tuple[str, ...] = getattr(driver.settings, "direction", ())
    error: LapelError | None = None
    if capability not in driver.capabilities:
        other = "input" if direction == "output" else "output"
        error = UnsupportedError(f"has no {direction} side; open it as an {other} binding")
    elif wanted and direction not in wanted:
        error = UnsupportedError(f"its field 'direction' allows only {', '.join(wanted)}; add {direction} to it")
    if error is not None:
        error.locate(component=driver.context.component, driver=driver.descriptor.type, operation="open")
        raise error


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
