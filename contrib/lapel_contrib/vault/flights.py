"""One request for all who want the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

from lapel.errors import ClosedError

__all__ = ["SingleFlight"]

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Lets calls that ask for one key while a request for it is under way wait for its answer.

    The answer may therefore show how things were when the call began, not later. A cancelled caller disturbs nobody;
    when all are, so is the request. What the request raises reaches every caller as the same object, so `make` should
    return failures as values. After `close` callers get `ClosedError`. Belongs to one event loop.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._flights: dict[object, asyncio.Task[T]] = {}
        self._waiting: dict[asyncio.Task[T], int] = {}

    async def run(self, key: object, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `make()` returns, called only if nothing is under way for `key`."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(make(), name=self._name, context=Context())
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        self._waiting[flight] = self._waiting.get(flight, 0) + 1
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if flight.cancelled() and task is not None and not task.cancelling():
                raise ClosedError("was closed while the request was under way; open a new one") from None
            raise
        finally:
            self._waiting[flight] -= 1
            if not self._waiting[flight]:
                del self._waiting[flight]
                if not flight.done():
                    # Whoever comes next must not wait for one that ends.
                    self._forget(key, flight)
                    flight.cancel()

    async def close(self) -> None:
        """Cancel what is under way, and return when it has ended."""
        flights = list(self._waiting)
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)

    def _landed(self, key: object, flight: asyncio.Task[T]) -> None:
        self._forget(key, flight)
        if not flight.cancelled():
            flight.exception()

    def _forget(self, key: object, flight: asyncio.Task[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
