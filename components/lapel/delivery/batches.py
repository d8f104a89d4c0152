"""A dispatcher whose handler takes several deliveries at once."""

from __future__ import annotations

import logging
from asyncio import TimerHandle
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from typing_extensions import override

from ..errors import InvalidArgumentError
from .dispatcher import Dispatcher, Raised
from .schedule import RUNNING, Held
from .types import DispatchPolicy, Dropped
from .workers import Worker, context_changed

__all__ = ["BatchDispatcher"]


class BatchDispatcher(Dispatcher):
    """Hand up to `max_messages` deliveries to one call of `handler`, the first of them at most `max_wait` seconds old.

    `handler` returns None for success of all, or one outcome for each delivery, in order; anything else, and whatever
    it raises, is a failure of the whole batch. Only failed ones are retried. With an order kept, a batch holds at most
    one delivery of each key.
    """

    def __init__(
        self,
        handler: Callable[[tuple[Held, ...]], Awaitable[Any]],
        policy: DispatchPolicy,
        *,
        max_messages: int,
        max_wait: float,
        name: str,
        logger: logging.Logger,
        owner: object = None,
        dead_letter: Callable[[Held, str], Awaitable[None]] | None = None,
    ) -> None:
        if type(max_messages) is not int or max_messages < 1 or max_wait < 0:
            raise InvalidArgumentError("max_messages must be a whole number from 1 and max_wait not negative")
        super().__init__(handler, policy, name=name, logger=logger, owner=owner, dead_letter=dead_letter)
        self.capacity = max_messages * (self.concurrency + 1)
        self._max_messages = max_messages
        self._max_wait = max_wait
        self._old = False
        self._timer: TimerHandle | None = None

    @override
    def ready_for_more(self) -> bool:
        running = sum(len(worker.work) for worker in self._workers)
        return not self._paused and self.schedule.active - running < self._max_messages and self.room() > 0

    @override
    def _due(self) -> bool:
        ready = self.schedule.ready
        if len(ready) >= self._max_messages or (ready and self._old):
            return True
        if ready and self._timer is None:
            self._timer = self._loop.call_later(self._max_wait, self._grow_old)
        return False

    def _grow_old(self) -> None:
        self._timer = None
        self._old = True
        self._wake()

    @override
    async def _run(self, worker: Worker) -> None:
        base = copy_context()
        self._waking = False
        while True:
            while self._paused or not self._due():
                if not await self._rest(worker):
                    return
            batch = worker.work = self._take(worker)
            if not self._waking:
                self._wake()
            try:
                results = await self._handle(batch)
                for held, result in zip(batch, results, strict=True):
                    if self._decide(held, result):
                        await self._publish_dead_letter(worker, held)
            finally:
                for held in batch:
                    if held.phase == RUNNING:
                        self.let_go(held)
            worker.work = ()
            self.make_room()
            if context_changed(base) or self._retires(worker):
                return

    async def _handle(self, batch: tuple[Held, ...]) -> list[Any]:
        """Return one result for each delivery; those already given up have theirs."""
        fresh = tuple(held for held in batch if held.reason is None)
        answer: Any = None
        failure: BaseException | None = None
        try:
            if fresh:
                answer = await self._handler(fresh)
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            failure = exc
        if answer is not None and not (isinstance(answer, list | tuple) and len(answer) == len(fresh)):
            failure = TypeError(f"a batch handler returns None or a list of {len(fresh)} outcomes")
        if failure is not None:
            answer = [Raised(failure, trace=number == 0) for number in range(len(fresh))]
        answers = iter(answer or [None] * len(fresh))
        return [next(answers) if held.reason is None else Dropped(held.reason) for held in batch]

    def _take(self, worker: Worker) -> tuple[Held, ...]:
        self._old = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ready = self.schedule.ready
        batch = tuple(ready.popleft() for _ in range(min(self._max_messages, len(ready))))
        for held in batch:
            held.phase = RUNNING
            held.worker = worker
        return batch
