"""What every class has that an application holds: lifecycle, deadlines, capability checks, policy, telemetry."""

from __future__ import annotations

import asyncio
import builtins
import os
import random
from asyncio import AbstractEventLoop, CancelledError, current_task, get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Self, TypeVar
from weakref import WeakSet

from .closing import close_driver, end_calls, log_failure
from .coalesce import was_sent
from .concealment import conceal, raise_for
from .deadlines import Deadlines
from .descriptor import Capability, Descriptor, Limits
from .driver import Driver, list_drivers, unsupported
from .errors import (
    InvalidArgumentError,
    LapelError,
    OperationFailedError,
    UnavailableError,
    UnsupportedError,
    WrongLoopError,
)
from .health import Health, HealthState
from .misuse import Place, timed_out, unusable
from .options import ComponentOptions
from .policy import Effect, Operation, RetryPolicy
from .retrying import try_again
from .telemetry import RECHECK_SECONDS, Telemetry

__all__ = ["CLOSE_SECONDS", "Component", "ComponentOptions", "Health", "HealthState", "unsupported"]

DEFAULT_CALL_SECONDS = 5.0
CLOSE_SECONDS = 5.0
"""How long `aclose` waits for calls under way, and after that for the driver, before it goes on without them."""
REOPEN_SECONDS = (0.5, 30.0)
"""First and longest pause between attempts to open a degraded component."""

_PING = Operation("ping", Effect.SAFE)
_R = TypeVar("_R")
_T = TypeVar("_T")
D = TypeVar("D", bound=Driver[Any])

_living: WeakSet[Component[Any]] = WeakSet()
"""Components that hold something of this process."""


def _forget_in_child() -> None:
    for component in _living:
        component._state, component._loop, component._reviver = "forked", None, None


os.register_at_fork(after_in_child=_forget_in_child)


class Component(Generic[D]):
    """Base of the classes an application holds.

    Building does no I/O. Use it as `async with`, or call `open` and `aclose`. All calls may overlap and must come
    from the event loop that opened it; from another loop, thread or a forked child they raise `WrongLoopError`.
    """

    def __init__(self, driver: D, *, options: ComponentOptions | None = None) -> None:
        self.options = options or ComponentOptions()
        self.name = driver.context.component
        self._use(driver)
        self._state = "new"
        self._failure: str | None = None
        # None whenever calls are not possible, so that one comparison on the hot path covers every reason.
        self._loop: AbstractEventLoop | None = None
        self._home: AbstractEventLoop | None = None
        self._deadlines: Deadlines | None = None
        self._telemetry = Telemetry(driver.descriptor, self.name)
        self._next_check = 0.0
        self._retries = RetryPolicy()
        policies = self.options.resiliency
        self._guard = None if policies is None else policies.outbound_guard(self.name)
        self._opening: asyncio.Timeout | None = None
        self._opening_ended = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._reviver: asyncio.Task[None] | None = None

    def _use(self, driver: D) -> None:
        """Take a driver; again with another one when a degraded component is reopened."""
        self._driver = driver

    # what it is

    @property
    def descriptor(self) -> Descriptor:
        """The catalogue entry of its driver."""
        return self._driver.descriptor

    @property
    def type(self) -> str:
        """The type as component files write it."""
        return self._driver.descriptor.type

    @property
    def capabilities(self) -> Capability:
        """What this component offers; final after `open`."""
        return self._driver.capabilities

    @property
    def withdrawn(self) -> Mapping[Capability, str]:
        """Declared flags that opening took back, each with the reason."""
        return dict(self._driver.withdrawn)

    @property
    def limits(self) -> Limits:
        """The numbers that the backend imposes."""
        return self._driver.limits

    @property
    def driver(self) -> D:
        """The driver behind this component, for runtimes that bypass the front."""
        return self._driver

    def unwrap(self, kind: builtins.type[_T]) -> _T:
        """Return the SDK object of class `kind`, or raise `LookupError`."""
        return self._driver.unwrap(kind)

    # lifecycle

    async def open(self) -> Self:
        """Connect within `options.init_timeout` and return self.

        Raises `UnavailableError` when time runs out, else what the driver says, and `ClosedError` when `aclose` came
        in between. A failed open leaves nothing behind and is final. Opening an open component raises
        `InvalidArgumentError`, a closed one `ClosedError`.
        """
        if self._state != "new":
            if self._state in ("open", "opening") or self._reviver is not None:
                raise self._invalid("is open already", "open")
            raise self._unusable("open")
        self._state, self._home = "opening", get_running_loop()
        self._opening = asyncio.timeout(self.options.init_timeout.total_seconds())
        self._opening_ended = asyncio.Event()
        _living.add(self)
        try:
            async with self._opening:
                await list_drivers(self.descriptor.kind)
                await self._driver.open()
                self._retries = self._retry_policy()
                self._deadlines = Deadlines(self._call_seconds())
                self._telemetry.refresh()
                await self._opened()
                if self._state != "opening":
                    raise TimeoutError
        except BaseException as exc:
            error = self._fail(exc)
            closing = asyncio.create_task(close_driver(self._driver, CLOSE_SECONDS), name=f"lapel close {self.name}")
            closing.add_done_callback(lambda _: self._opening_ended.set())
            await asyncio.shield(closing)
            if not isinstance(exc, Exception):
                raise
            raise_for(exc, error, self._driver.settings)
        self._opening_ended.set()
        self._loop = self._home
        self._state = "open"
        return self

    async def open_or_keep_trying(self, rebuild: Callable[[], Awaitable[D]]) -> Self:
        """Open; when that fails start degraded and try again with a new driver until it works or `aclose`.

        While degraded every call raises `UnavailableError`. `rebuild` makes a driver that was never opened.
        """
        try:
            return await self.open()
        except LapelError as exc:
            if self._state != "failed":
                raise
            self._driver.context.logger.warning("%s starts degraded (ignoreErrors), will try again: %s", self.name, exc)
            self._state = "degraded"
            self._reviver = asyncio.create_task(self._revive(rebuild), name=f"lapel reopen {self.name}")
            return self

    async def _revive(self, rebuild: Callable[[], Awaitable[D]]) -> None:
        pause = REOPEN_SECONDS[0]
        while self._state == "degraded":
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load only
            pause = min(pause * 2, REOPEN_SECONDS[1])
            try:
                self._use(await rebuild())
                self._state = "new"
                await self.open()
            except Exception as exc:
                if self._state in ("new", "failed", "degraded"):
                    self._state, self._failure = "degraded", str(self._located(exc, "open"))
            else:
                self._driver.context.logger.info("%s is open now", self.name)
                self._failure = self._reviver = None

    async def aclose(self) -> None:
        """Stop taking calls, let those under way finish for up to `CLOSE_SECONDS`, and let go of the backend.

        Idempotent and bounded; may be called from several tasks, and while the component opens. A caller that is
        cancelled stops waiting; the component closes all the same.
        """
        if self._state in ("new", "forked") or (self._state == "failed" and self._opening_ended.is_set()):
            self._state = "closed"
        if self._state == "closed":
            return
        if self._home is not get_running_loop():
            raise WrongLoopError("must be closed by the loop that opened it", **self._place("aclose"))
        if self._closing is None:
            before, self._state, self._loop = self._state, "closing", None
            if self._guard is not None:
                self._guard.end()
            self._closing = asyncio.create_task(self._close(before), name=f"lapel close {self.name}")
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        return self if self._state == "open" or self._reviver is not None else await self.open()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def health(self) -> Health:
        """Return its state, after a ping where the driver has one. Never raises; bounded by the call deadline."""
        if self._state == "open":
            try:
                await self._call(_PING, lambda _: self._driver.ping(), None, guarded=False)
            except UnsupportedError:
                pass
            except LapelError as exc:
                return Health(state=HealthState.RECONNECTING, reason=str(exc))
            return self._open_health()
        if self._reviver is not None:
            state = HealthState.DEGRADED
        else:
            state = HealthState.INIT if self._state in ("new", "opening") else HealthState.CLOSED
        return Health(state=state, reason=self._failure)

    # for the seven kinds

    async def _opened(self) -> None:
        """Do what a kind needs once its driver is open; part of `open` and its time-out."""

    async def _drain(self) -> None:
        """Do what a kind needs before its driver closes. Must be bounded."""

    def _open_health(self) -> Health:
        """Return the health of an open component whose backend answers."""
        return Health(state=HealthState.READY)

    def _need(self, capability: Capability, operation: str) -> None:
        """Raise `UnsupportedError` unless every flag of `capability` is there."""
        missing = capability & ~self._driver.capabilities
        if missing:
            raise unsupported(self._driver, missing, operation)

    def _invalid(self, message: str, operation: str) -> InvalidArgumentError:
        return InvalidArgumentError(message, component=self.name, driver=self.type, operation=operation)

    def _call(
        self, operation: Operation, method: Callable[[_R], Awaitable[_T]], request: _R, *, guarded: bool = True
    ) -> Coroutine[Any, Any, _T]:
        """Return one driver call under all policies, the deadline and telemetry, to be awaited at once.

        `guarded` false leaves the policies of resiliency documents out.
        """
        # Not a coroutine function: one frame less on every step of every call.
        if guarded and self._guard is not None:
            return self._guard.call(operation, partial(self._call, operation, method, guarded=False), request)
        loop = get_running_loop()
        if loop is not self._loop:
            raise self._unusable(operation.name)
        now = loop.time()
        if now >= self._next_check:
            self._next_check = now + RECHECK_SECONDS
            self._telemetry.refresh()
        if self._telemetry.active and operation.traced:
            return self._traced(operation, method, request, now)
        return self._bounded(operation, method, request, now)

    def _call_entries(
        self, operation: Operation, method: Callable[[Sequence[_R]], Awaitable[Sequence[_T]]], requests: Sequence[_R]
    ) -> Coroutine[Any, Any, Sequence[_T]]:
        """As `_call`, for several requests that get an answer each; policies repeat those that failed alone."""
        if self._guard is not None:
            return self._guard.entries(operation, partial(self._call, operation, method, guarded=False), requests)
        return self._call(operation, method, requests)

    async def _traced(self, operation: Operation, method: Callable[[_R], Awaitable[_T]], request: _R, now: float) -> _T:
        with self._telemetry.operation(operation.name):
            return await self._bounded(operation, method, request, now)

    async def _bounded(
        self, operation: Operation, method: Callable[[_R], Awaitable[_T]], request: _R, now: float
    ) -> _T:
        loop, deadlines = self._loop, self._deadlines
        if loop is None:
            raise self._unusable(operation.name)
        task = current_task(loop)
        assert task is not None
        assert deadlines is not None
        ticket = deadlines.enter(task, now)
        try:
            try:
                return await method(request)
            except LapelError as exc:
                return await try_again(self._retries, operation, method, request, exc, ticket.expires_at)
        except CancelledError as exc:
            if ticket.timed_out():
                raise self._timed_out(operation, was_sent(exc)) from None
            raise
        except Exception as exc:
            raise_for(exc, self._located(exc, operation.name), self._driver.settings)
        finally:
            if ticket.expired:
                ticket.timed_out()
            deadlines.leave(ticket)

    # inside

    def _place(self, operation: str) -> Place:
        return {"component": self.name, "driver": self.type, "operation": operation}

    def _retry_policy(self) -> RetryPolicy:
        if self._guard is not None and self._guard.policies.retry is not None:
            return RetryPolicy.off()
        return self.options.retries or self._driver.retry_policy or RetryPolicy()

    def _call_seconds(self) -> float:
        if self._guard is not None and self._guard.policies.timeout is not None:
            return self._guard.policies.timeout.total_seconds()
        if self.options.call_timeout is not None:
            return self.options.call_timeout.total_seconds()
        return self._driver.call_timeout or DEFAULT_CALL_SECONDS

    def _timed_out(self, operation: Operation, sent: bool) -> LapelError:
        if self._loop is None:
            text = f"still no answer when the component had been closing for {CLOSE_SECONDS:g} s"
        else:
            text = f"no answer within {self._deadlines.timeout if self._deadlines else 0.0:g} s"
        return timed_out(text, unknown=sent and operation.effect is not Effect.SAFE, place=self._place(operation.name))

    def _unusable(self, operation: str) -> LapelError:
        return unusable(self._state, self._failure, self._place(operation), reviving=self._reviver is not None)

    def _located(self, exc: Exception, operation: str) -> LapelError:
        if isinstance(exc, LapelError):
            exc.locate(component=self.name, driver=self.type, operation=operation)
            return conceal(exc, self._driver.settings)
        text = f"the driver raised {type(exc).__name__}, which it should have translated; please report this"
        return OperationFailedError(text, **self._place(operation))

    def _fail(self, exc: BaseException) -> LapelError:
        """Note that opening failed, and return the error to raise."""
        place = self._place("open")
        if self._state != "opening":
            error = self._unusable("open")
        elif not isinstance(exc, Exception):
            error = UnavailableError("opening was cancelled", **place)
        elif isinstance(exc, TimeoutError) and not isinstance(exc, LapelError):
            limit = self.options.init_timeout.total_seconds()
            text = f"did not open within {limit:g} s (initTimeout); is the backend up and reachable?"
            error = UnavailableError(text, **place)
        else:
            error = self._located(exc, "open")
        self._failure = str(error)
        if self._state == "opening":
            self._state = "failed"
        return error

    async def _close(self, before: str) -> None:
        try:
            if self._reviver is not None:
                self._reviver.cancel()
                await asyncio.wait([self._reviver])
                self._reviver = None
            elif before == "opening" and self._opening is not None and not self._opening.expired():
                self._opening.reschedule(get_running_loop().time())
            await self._opening_ended.wait()
            if before == "open":
                try:
                    await self._finish()
                finally:
                    await close_driver(self._driver, CLOSE_SECONDS)
        finally:
            self._state = "closed"
            _living.discard(self)

    async def _finish(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS * 2):
                await self._drain()
        except Exception as exc:
            log_failure(self._driver, "draining", exc)
        if self._deadlines is not None:
            await end_calls(self._deadlines, CLOSE_SECONDS)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} ({self.type}) {self._state}>"
