"""Calls under a retry policy and a circuit breaker; the time-out of each try is the caller's."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, get_running_loop
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ..caller import caller
from ..delivery.types import Outcome
from ..errors import DeadlineExceededError, LapelError, OperationFailedError
from ..policy import Effect, Operation
from ..retrying import try_again
from .breaker import CircuitBreaker
from .policies import ANSWERS, Policies

__all__ = ["Guard"]

R = TypeVar("R")
T = TypeVar("T")


class Guard:
    """Carries out the policies of one target. Calls may overlap; one event loop.

    `target` is what is called, for errors and logs.
    """

    def __init__(self, policies: Policies, target: str) -> None:
        self.policies = policies
        breaker = policies.circuit_breaker
        self.breaker = None if breaker is None else CircuitBreaker(breaker, target)
        self._target = target
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Let calls that pause before a retry go on at once, for what they call is closing."""
        self._ended.set()

    async def call(self, operation: Operation, method: Callable[[R], Awaitable[T]], request: R) -> T:
        """Make one call, again and again as the policies say. Raises what the last try raised."""
        retry = self.policies.retry

        async def attempt(request: R) -> T:
            return await self._through_breaker(method, request)

        started = get_running_loop().time()
        try:
            return await attempt(request)
        except LapelError as error:
            if retry is None:
                raise
            return await try_again(retry, operation, attempt, request, error, started + retry.total, pause=self._pause)

    async def entries(
        self, operation: Operation, method: Callable[[Sequence[R]], Awaitable[Sequence[Any]]], requests: Sequence[R]
    ) -> list[Any]:
        """Make one call for several entries; repeat it with those whose answer is an error that may pass."""
        answers = list(await self.call(operation, method, requests))
        retry, tries = self.policies.retry, 1
        while retry is not None and len(answers) == len(requests):
            again = [
                index
                for index, answer in enumerate(answers)
                if isinstance(answer, LapelError) and retry.allows(answer, operation.effect, tries)
            ]
            if not again or self._ended.is_set():
                break
            if await self._pause(retry.delay(tries)):
                break
            tries += 1
            renewed = await self.call(operation, method, [requests[index] for index in again])
            if len(renewed) != len(again):
                raise OperationFailedError(f"the driver gave {len(renewed)} answers to {len(again)} requests")
            for index, answer in zip(again, renewed, strict=True):
                answers[index] = answer
        return answers

    def once(self, handler: Callable[[R], Awaitable[Any]]) -> Callable[[R], Awaitable[Any]]:
        """Return a handler that runs `handler` once, within the time-out and through the circuit breaker.

        For sources that bring a failed message again by themselves. Raises `DeadlineExceededError` and
        `CircuitOpenError`, which are failures like others; `Outcome.RETRY` counts as one for the breaker.
        """
        if self.policies.timeout is None and self.breaker is None:
            return handler

        async def handle(given: R) -> Any:
            return await self._through_breaker(lambda given: self._timed(handler, given), given, ())

        return handle

    def repeated(self, handler: Callable[[R], Awaitable[Any]]) -> Callable[[R], Awaitable[Any]]:
        """Return a handler that runs `handler` until it succeeds or the policies give up, for sources that do not."""
        if not self.policies:
            return handler

        async def attempt(given: R) -> Any:
            try:
                return await self._timed(handler, given)
            except Exception as exc:
                raise _HandlerFailedError(f"the handler of {self._target} failed") from exc

        async def handle(given: R) -> Any:
            try:
                return await self.call(_HANDLE, attempt, given)
            except _HandlerFailedError as failure:
                raise failure.__cause__ or failure from None

        return handle

    async def _timed(self, handler: Callable[[R], Awaitable[T]], given: R) -> T:
        timeout = self.policies.timeout
        if timeout is None:
            return await handler(given)
        limit = asyncio.timeout(timeout.total_seconds())
        try:
            async with limit:
                return await handler(given)
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"the handler of {self._target} did not end within {timeout.total_seconds():g} s"
            raise DeadlineExceededError(text) from None

    async def _through_breaker(
        self,
        method: Callable[[R], Awaitable[T]],
        request: R,
        answers: tuple[type[LapelError], ...] = ANSWERS,
    ) -> T:
        breaker = self.breaker
        if breaker is None:
            return await method(request)
        generation = breaker.enter()
        success: bool | None = False
        try:
            result = await method(request)
            success = not _asks_again(result)
            return result
        except CancelledError:
            success = None
            raise
        except answers:
            success = True
            raise
        finally:
            breaker.leave(generation, success)

    async def _pause(self, seconds: float) -> bool:
        """Wait before another try; true when whoever it is for has gone, so that it would be for nobody."""
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._ended.wait())]
        if (waiting := caller.get()) is not None:
            waits.append(asyncio.create_task(waiting.left()))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return waiting is not None and waits[-1].done()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


def _asks_again(result: object) -> bool:
    """Tell whether a handler asks for a retry, be it of one message of a batch."""
    if isinstance(result, list | tuple):
        return any(map(_asks_again, result))
    return isinstance(result, str) and result == Outcome.RETRY


class _HandlerFailedError(LapelError):
    """Carries whatever a handler raised through the one owner of retries."""


_HANDLE = Operation("handle", Effect.SAFE)
"""A handler that failed is run again: delivery is at least once."""
