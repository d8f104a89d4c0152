"""One subscription: wait for a sign of change, read, compare with what was delivered last, deliver the difference."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar

from ..errors import LapelError, OperationFailedError
from .driver import Watcher
from .types import ConfigurationEvent, ConfigurationItem

__all__ = ["Subscription"]

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
STOP_SECONDS = 5.0
CANCEL_SECONDS = 1.0

_handling: ContextVar[tuple[Subscription, ...]] = ContextVar("lapel_configuration_handling", default=())
"""The subscriptions whose handlers called this code, be it through other tasks or threads."""


class Subscription:
    """Keeps one handler up to date until stopped. `failure` is the error it is recovering from, else None."""

    def __init__(
        self,
        *,
        id: str,
        handler: Callable[[ConfigurationEvent], Awaitable[None]],
        read: Callable[[], Awaitable[Mapping[str, ConfigurationItem]]],
        watch: Callable[[], Awaitable[Watcher]],
        logger: logging.Logger,
    ) -> None:
        self.id = id
        self.failure: LapelError | None = None
        self._handler = handler
        self._read = read
        self._watch = watch
        self._logger = logger
        self._delivered: Mapping[str, ConfigurationItem] = {}
        self._watcher: Watcher | None = None
        self._task: asyncio.Task[None] | None = None
        self._handling = False
        self._stopped = False

    async def start(self, *, initial: bool) -> None:
        """Arm and return: a change after this is delivered. What fails here is raised and leaves nothing behind."""
        self._watcher = await self._watch()
        try:
            # Read after arming: a change in between wakes the watcher, and the comparison finds it.
            present = await self._read()
        except BaseException:
            await self._discard()
            raise
        if not initial:
            self._delivered = present
        self._task = asyncio.create_task(self._run(initial), name=f"lapel configuration {self.id}")

    async def stop(self) -> None:
        """Deliver nothing more; wait for the handler unless called from it. Bounded."""
        self._stopped = True
        task = self._task
        if task is None or self in _handling.get():
            return
        if not self._handling:
            task.cancel()
        try:
            done, _ = await asyncio.wait([task], timeout=STOP_SECONDS)
        except asyncio.CancelledError:
            task.cancel()
            # Not left to the task, which may not have taken its first step.
            await self._discard()
            raise
        if not done:
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=CANCEL_SECONDS)
        if not done:
            self._logger.error("the handler of configuration subscription %s ignores its cancellation", self.id)
        # A task that was cancelled before its first step has not done it.
        await self._discard()

    async def _run(self, initial: bool) -> None:
        pause = FIRST_PAUSE
        try:
            while not self._stopped:
                try:
                    if self._watcher is None:
                        self._watcher = await self._watch()
                    elif not initial:
                        await self._watcher.changed()
                    initial = False
                    await self._deliver()
                    self.failure, pause = None, FIRST_PAUSE
                except Exception as exc:
                    # What an SDK writes into its own errors may hold a secret.
                    failure = exc if isinstance(exc, LapelError) else _untranslated(exc)
                    if self.failure is None:
                        self._logger.warning("configuration subscription interrupted, trying again: %s", failure)
                    self.failure = failure
                    await self._discard()
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load only
                    pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            await self._discard()

    async def _deliver(self) -> None:
        present = await self._read()
        before = self._delivered
        items = {key: item for key, item in present.items() if before.get(key) != item}
        items.update({key: ConfigurationItem("", deleted=True) for key in before if key not in present})
        self._delivered = present
        if not items or self._stopped:
            return
        self._handling = True
        token = _handling.set((*_handling.get(), self))
        try:
            await self._handler(ConfigurationEvent(self.id, items))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._logger.exception("the handler of configuration subscription %s was cancelled", self.id)
        except Exception:
            self._logger.exception("the handler of configuration subscription %s failed", self.id)
        finally:
            _handling.reset(token)
            self._handling = False

    async def _discard(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        try:
            await watcher.close()
        except Exception as exc:
            # The one that follows does without it; what it says may hold a secret.
            failure = exc if isinstance(exc, LapelError) else _untranslated(exc)
            self._logger.warning("a watcher of configuration subscription %s did not close: %s", self.id, failure)


def _untranslated(exc: Exception) -> LapelError:
    return OperationFailedError(f"the driver raised {type(exc).__name__}, which it should have translated")
