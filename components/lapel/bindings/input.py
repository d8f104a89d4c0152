"""The input binding that an application holds."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from datetime import timedelta
from typing import Any, Self

from typing_extensions import override

from ..component import Component, ComponentOptions, Health
from ..concealment import raise_for
from ..delivery import (
    Backoff,
    Consumer,
    Dispatcher,
    DispatchPolicy,
    Held,
    Ordering,
    Outcome,
    Reply,
    Revoked,
    Supervisor,
    inside_handler,
)
from ..descriptor import Capability
from ..errors import LapelError
from ..jsontext import encode_value
from .driver import BindingDriver
from .output import check_direction
from .types import NO_METADATA, BindingEvent, BindingResponse, ReadRequest

__all__ = ["EventHandler", "InputBinding", "Reading"]

EventHandler = Callable[[BindingEvent], Awaitable[Any] | Any]
"""Receives one event; may be a plain function that does not block. Its result is the reply: bytes, a
`BindingResponse`, any other value as JSON, or None."""


class Reading:
    """The events of an input binding, being handed to a handler until `aclose`. Also an async context manager.

    Whatever happens to the source, the supervisor restores the reading, with growing pauses, until it is closed.
    """

    def __init__(self, binding: InputBinding, supervisor: Supervisor) -> None:
        self._binding = binding
        self._supervisor = supervisor
        self._closing: asyncio.Task[None] | None = None

    @property
    def closing(self) -> bool:
        """Whether `aclose` was called, by whomever."""
        return self._closing is not None

    @property
    def ended(self) -> bool:
        """Whether all of `aclose` is done."""
        return self._closing is not None and self._closing.done()

    async def aclose(self) -> None:
        """Stop: take no more events, hand back those not started, wait for handlers up to `drain_timeout`, then cancel.

        Idempotent and bounded; from its own handler it does not wait for that handler.
        """
        self._close_soon()
        await self._supervisor.aclose()

    def _close_soon(self) -> None:
        self._closing = self._supervisor.close_soon()

    async def pause(self) -> None:
        """Take and handle no events until `resume`. Needs `Capability.PAUSE`."""
        self._binding._need(Capability.PAUSE, "pause")
        await self._supervisor.pause()

    async def resume(self) -> None:
        """Go on after `pause`."""
        await self._supervisor.resume()

    def health(self) -> Health:
        """Return whether events are being taken, judged by progress. Never raises."""
        return self._supervisor.health()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class InputBinding(Component[BindingDriver[Any]]):
    """A source of events outside of the application."""

    def __init__(self, driver: BindingDriver[Any], *, options: ComponentOptions | None = None) -> None:
        super().__init__(driver, options=options)
        self._reading: Reading | None = None
        self._starting = False
        self._ending: asyncio.Task[None] | None = None

    @override
    async def open(self) -> Self:
        check_direction(self._driver, "input", Capability.INPUT)
        return await super().open()

    async def read(
        self,
        handler: EventHandler,
        *,
        concurrency: int = 1,
        max_attempts: int | None = None,
        backoff: Backoff | None = None,
        drain_timeout: timedelta | float = 30.0,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> Reading:
        """Call `handler` with each event from now on, `concurrency` at a time; return when the source is armed.

        The handler's result goes back to the source with `Capability.REPLY`; elsewhere it is not looked at. An event
        whose handler raises is handed over again after `backoff` (None: the component's own fields, else 0.5 s,
        doubling to 60 s), `max_attempts` times in all and then given up. None is the component's own field, else no
        limit with `Capability.REDELIVERY`, and without it one attempt. The inbound policy of a resiliency document
        takes the place of these defaults.
        `drain_timeout`, a timedelta or seconds, is for `Reading.aclose`.

        There is one reading at a time: another one raises `InvalidArgumentError` until the first is closed, and waits
        for one that is closing. Raises `UnavailableError` when the source is not armed within `options.init_timeout`,
        and what the driver says.
        """
        if get_running_loop() is not self._loop:
            raise self._unusable("read")
        if self._reading is not None and self._reading.closing:
            await self._reading.aclose()
            if self._state != "open":
                raise self._unusable("read")
        if self._starting or (self._reading is not None and not self._reading.ended):
            raise self._invalid("is being read already; close that reading first, or open a second component", "read")
        if not callable(handler):
            raise self._invalid(f"the handler must be a function, not {type(handler).__name__}", "read")
        policies = self.options.resiliency
        guard = None if policies is None else policies.inbound_guard(self.name)
        if guard is not None and guard.policies.retry is not None:
            backoff = backoff or guard.policies.retry.backoff()
            if max_attempts is None and Capability.REDELIVERY not in self.capabilities:
                max_attempts = guard.policies.retry.attempts
        elif max_attempts is None:
            max_attempts = self._driver.max_attempts
            if max_attempts is None and Capability.REDELIVERY not in self.capabilities:
                max_attempts = 1
        try:
            policy = DispatchPolicy(
                ordering=Ordering.NONE,
                concurrency=concurrency,
                max_attempts=max_attempts,
                backoff=backoff or self._driver.backoff or Backoff(),
                drain_timeout=drain_timeout.total_seconds() if isinstance(drain_timeout, timedelta) else drain_timeout,
                broker_dead_letter=Capability.DEAD_LETTER in self.capabilities,
            )
        except LapelError as exc:
            raise self._invalid(exc.message, "read") from None
        request = ReadRequest(concurrency, metadata)

        async def arm(revoked: Revoked) -> Consumer:
            consumer = await self._driver.read(request)
            consumer.on_revoked = revoked
            return consumer

        handle = self._handler(handler)
        dispatcher = Dispatcher(
            handle if guard is None else guard.once(handle),
            policy,
            name=self.name,
            logger=self._driver.context.logger,
            owner=self,
        )
        supervisor = Supervisor(
            arm,
            dispatcher,
            arm_timeout=self.options.init_timeout.total_seconds(),
            on_tick=lambda: self._measure(supervisor),
        )
        self._starting = True
        try:
            await supervisor.start()
        except Exception as exc:
            raise_for(exc, self._located(exc, "read"), self._driver.settings)
        finally:
            self._starting = False
        reading = Reading(self, supervisor)
        if self._state != "open":
            await reading.aclose()
            raise self._unusable("read")
        self._reading = reading
        return reading

    @override
    async def aclose(self) -> None:
        """End the reading as `Reading.aclose` does, then close as every component does.

        Called by its own handler it does not wait for that handler.
        """
        if self._state != "open" or self._home is not get_running_loop():
            await super().aclose()
            return
        reading = self._reading
        if self._ending is None:
            if reading is not None:
                reading._close_soon()
            # An empty context: there, nothing is called by a handler.
            self._ending = asyncio.create_task(self._end(), name=f"lapel close {self.name}", context=Context())
        if not inside_handler(self):
            await asyncio.shield(self._ending)
        elif reading is not None:
            await reading.aclose()

    async def _end(self) -> None:
        if self._reading is not None:
            await self._reading.aclose()
        await super().aclose()

    def _measure(self, supervisor: Supervisor) -> None:
        self._telemetry.refresh()
        self._telemetry.measure(supervisor.measurements(), {})

    @override
    async def _drain(self) -> None:
        if self._reading is not None:
            await self._reading.aclose()

    @override
    def _open_health(self) -> Health:
        reading = self._reading
        return super()._open_health() if reading is None or reading.ended else reading.health()

    def _handler(self, handler: EventHandler) -> Callable[[Held], Awaitable[Any]]:
        replies = Capability.REPLY in self.capabilities

        async def handle(held: Held) -> Any:
            delivery = held.delivery
            event = BindingEvent(
                data=delivery.data,
                metadata=delivery.metadata,
                content_type=delivery.content_type,
                attempt=held.attempt,
            )
            result = handler(event)
            if inspect.isawaitable(result):
                result = await result
            if not replies or result is None:
                return Outcome.SUCCESS
            return Reply(await _response(result))

        return handle


async def _response(result: Any) -> BindingResponse:
    if not isinstance(result, BindingResponse):
        data, content_type = encode_value(result, None)
        return BindingResponse(data, content_type=content_type)
    if result.data is None or isinstance(result.data, bytes):
        return result
    return BindingResponse(await result.read(), result.metadata, result.content_type)
