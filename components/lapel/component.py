"""What every class has that an application holds: lifecycle, deadlines, capability checks, policy, telemetry."""

from __future__ import annotations

import asyncio
import builtins
import os
import random
import time
from asyncio import AbstractEventLoop, CancelledError, current_task, get_running_loop
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Self, TypeVar
from weakref import WeakSet

from .coalesce import was_sent
from .deadlines import Deadlines
from .descriptor import Capability, Descriptor, Limits
from .driver import Driver, unsupported
from .errors import (
    ClosedError,
    DeadlineExceededError,
    EtagMismatchError,
    InvalidArgumentError,
    LapelError,
    NotOpenError,
    OperationFailedError,
    OutcomeUnknownError,
    OutcomeUnknownTimeoutError,
    UnavailableError,
    UnsupportedError,
    WrongLoopError,
)
from .health import Health, HealthState
from .options import ComponentOptions
from .policy import Effect, Operation, RetryPolicy
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


_opened: WeakSet[Component[Any]] = WeakSet()


def _forget_in_child() -> None:
    for component in _opened:
        component._loop = None
        component._state = "forked"


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
        self._failure: BaseException | None = None
        # None whenever calls are not possible, so that one comparison on the hot path covers every reason.
        self._loop: AbstractEventLoop | None = None
        self._home: AbstractEventLoop | None = None
        self._deadlines: Deadlines | None = None
        self._telemetry = Telemetry(driver.descriptor, self.name)
        self._next_check = 0.0
        self._retries = RetryPolicy()
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

        Raises `UnavailableError` when time runs out, else what the driver says. A failed open leaves nothing
        behind and is final. Opening an open component raises `InvalidArgumentError`, a closed one `ClosedError`.
        """
        if self._state != "new":
            if self._state in ("closed", "closing", "failed"):
                raise self._unusable("open")
            raise InvalidArgumentError("is open already", component=self.name, driver=self.type, operation="open")
        self._state = "opening"
        self._home = get_running_loop()
        limit = self.options.init_timeout.total_seconds()
        try:
            async with asyncio.timeout(limit):
                await self._driver.open()
                self._retries = self.options.retries or self._driver.retry_policy or self._retries
                self._deadlines = Deadlines(self._call_seconds())
                self._telemetry.refresh()
                await self._opened()
        except BaseException as exc:
            self._state, self._failure = "failed", exc
            await self._close_driver()
            if not isinstance(exc, Exception):
                raise
            if isinstance(exc, TimeoutError) and not isinstance(exc, LapelError):
                raise UnavailableError(
                    f"did not open within {limit:g} s (initTimeout); is the backend up and reachable?",
                    component=self.name,
                    driver=self.type,
                    operation="open",
                ) from exc
            raise self._located(exc, "open") from (exc.__cause__ if isinstance(exc, LapelError) else exc)
        self._loop = self._home
        self._state = "open"
        _opened.add(self)
        return self

    async def open_or_keep_trying(self, rebuild: Callable[[], Awaitable[D]]) -> Self:
        """Open; when that fails start degraded and try again with a new driver until it works or `aclose`.

        While degraded every call raises `UnavailableError`. `rebuild` makes a driver that was never opened.
        """
        try:
            return await self.open()
        except LapelError as exc:
            self._driver.context.logger.warning(
                "%s starts degraded (ignoreErrors) and keeps trying: %s", self.name, exc
            )
            self._state = "degraded"
            self._reviver = asyncio.create_task(self._revive(rebuild), name=f"lapel reopen {self.name}")
            return self

    async def _revive(self, rebuild: Callable[[], Awaitable[D]]) -> None:
        pause = REOPEN_SECONDS[0]
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load only
            try:
                self._use(await rebuild())
                self._state = "new"
                await self.open()
            except LapelError as exc:
                self._state, self._failure = "degraded", exc
                pause = min(pause * 2, REOPEN_SECONDS[1])
            else:
                self._driver.context.logger.info("%s is open now", self.name)
                self._failure = None
                return

    async def aclose(self) -> None:
        """Stop taking calls, let those under way finish for up to `CLOSE_SECONDS`, and let go of the backend.

        Idempotent and bounded; may be called from several tasks.
        """
        if self._reviver is not None and self._reviver is not asyncio.current_task():
            # Kept until it has ended, so that a second caller waits for it too and does not close its driver again.
            self._reviver.cancel()
            await asyncio.wait([self._reviver])
            if self._state not in ("open", "closing"):
                self._state = "closed"
        if self._state in ("new", "failed", "closed", "forked"):
            if self._state != "failed":
                self._state = "closed"
            return
        if self._home is not get_running_loop():
            raise WrongLoopError("must be closed by the loop that opened it", component=self.name, driver=self.type)
        if self._closing is None:
            self._state, self._loop = "closing", None
            self._closing = asyncio.create_task(self._close(), name=f"lapel close {self.name}")
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        return await self.open() if self._state == "new" else self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def health(self) -> Health:
        """Return its state, after a ping where the driver has one. Never raises; bounded by the call deadline."""
        if self._state == "open":
            try:
                await self._call(_PING, lambda _: self._driver.ping(), None)
            except UnsupportedError:
                pass
            except LapelError as exc:
                return Health(state=HealthState.RECONNECTING, reason=str(exc))
            return self._open_health()
        states = {"new": HealthState.INIT, "opening": HealthState.INIT, "degraded": HealthState.DEGRADED}
        reason = str(self._failure) if self._failure else None
        return Health(state=states.get(self._state, HealthState.CLOSED), reason=reason)

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

    async def _call(self, operation: Operation, method: Callable[[_R], Awaitable[_T]], request: _R) -> _T:
        """Run one driver call under the deadline, the retry policy and telemetry."""
        loop = get_running_loop()
        if loop is not self._loop:
            raise self._unusable(operation.name)
        task = current_task(loop)
        deadlines = self._deadlines
        assert task is not None
        assert deadlines is not None
        ticket = deadlines.enter(task)
        if ticket.expires_at > self._next_check:
            self._next_check = ticket.expires_at + RECHECK_SECONDS
            self._telemetry.refresh()
        try:
            if self._telemetry.active and operation.traced:
                with self._telemetry.operation(operation.name):
                    return await self._try(operation, method, request)
            try:
                return await method(request)
            except LapelError as exc:
                return await self._again(operation, method, request, exc)
        except CancelledError as exc:
            if ticket.timed_out():
                raise self._timed_out(operation, was_sent(exc)) from None
            raise
        except LapelError as exc:
            exc.locate(component=self.name, driver=self.type, operation=operation.name)
            raise
        except Exception as exc:
            raise self._located(exc, operation.name) from exc
        finally:
            if ticket.expired:
                ticket.timed_out()
            deadlines.leave(ticket)

    async def _try(self, operation: Operation, method: Callable[[_R], Awaitable[_T]], request: _R) -> _T:
        try:
            return await method(request)
        except LapelError as exc:
            return await self._again(operation, method, request, exc)

    async def _again(
        self, operation: Operation, method: Callable[[_R], Awaitable[_T]], request: _R, error: LapelError
    ) -> _T:
        """Go on after the first try failed with `error`: repeat as the policy allows, or raise it."""
        tries, uncertain = 1, isinstance(error, OutcomeUnknownError)
        while self._retries.allows(error, operation.effect, tries):
            await asyncio.sleep(self._retries.delay(tries))
            tries += 1
            try:
                return await method(request)
            except EtagMismatchError as exc:
                if uncertain:
                    raise OutcomeUnknownError(
                        "the reply to the first try was lost and the repeated one found another etag: "
                        "either try may have been the one that changed it; read the item to find out"
                    ) from exc
                raise
            except LapelError as exc:
                error = exc
                uncertain = uncertain or isinstance(exc, OutcomeUnknownError)
        raise error

    # inside

    def _call_seconds(self) -> float:
        if self.options.call_timeout is not None:
            return self.options.call_timeout.total_seconds()
        return self._driver.call_timeout or DEFAULT_CALL_SECONDS

    def _timed_out(self, operation: Operation, sent: bool) -> LapelError:
        seconds = self._deadlines.timeout if self._deadlines else 0.0
        place = {"component": self.name, "driver": self.type, "operation": operation.name}
        if operation.effect is Effect.SAFE or not sent:
            return DeadlineExceededError(f"no answer within {seconds:g} s", **place)
        return OutcomeUnknownTimeoutError(
            f"no answer within {seconds:g} s; the backend may or may not have done it", **place
        )

    def _unusable(self, operation: str) -> LapelError:
        place = {"component": self.name, "driver": self.type, "operation": operation}
        if self._state == "open":
            return WrongLoopError(
                "used from another event loop than the one that opened it; open one per loop or use lapel.blocking",
                **place,
            )
        if self._state == "forked":
            return WrongLoopError("was opened before fork; open it in the child process", **place)
        if self._reviver is not None and not self._reviver.done():
            return UnavailableError(f"is not open yet and keeps trying; last failure: {self._failure}", **place)
        if self._state in ("new", "opening"):
            return NotOpenError("is not open; use `async with` or call `open()` first", **place)
        return ClosedError("is closed; open a new one", **place)

    def _located(self, exc: BaseException, operation: str) -> BaseException:
        if isinstance(exc, LapelError):
            exc.locate(component=self.name, driver=self.type, operation=operation)
            return exc
        if isinstance(exc, Exception):
            return OperationFailedError(
                f"the driver raised {type(exc).__name__}, which it should have translated; please report this",
                component=self.name,
                driver=self.type,
                operation=operation,
            )
        return exc

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS * 2):
                await self._drain()
        except Exception:
            self._driver.context.logger.exception("could not drain %s", self.name)
        deadlines = self._deadlines
        if deadlines is not None:
            end = time.monotonic() + CLOSE_SECONDS
            while deadlines.busy and time.monotonic() < end:  # noqa: ASYNC110  # an event would cost every call
                await asyncio.sleep(0.005)
            if deadlines.expire_all():
                await asyncio.sleep(0)
            deadlines.close()
        await self._close_driver()
        _opened.discard(self)
        self._state = "closed"

    async def _close_driver(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._driver.close()
        except TimeoutError:
            self._driver.context.logger.error("%s did not close within %g s; going on", self.name, CLOSE_SECONDS)
        except Exception:
            self._driver.context.logger.exception("closing %s failed; going on", self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} ({self.type}) {self._state}>"
