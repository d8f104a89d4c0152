"""Tasks that run handlers, made on demand and reused."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from asyncio import Future, Task
from contextvars import Context, ContextVar, copy_context

from .schedule import Held, Schedule
from .types import DispatchPolicy, Ordering

__all__ = ["CANCEL_GRACE", "Worker", "Workers", "context_changed", "inside_handler"]

CANCEL_GRACE = 1.0
"""Seconds that a cancelled handler has to end before it is abandoned."""

_REPLACE_DELAY = 0.05

_abandoned: set[Task[None]] = set()
_current: ContextVar[tuple[Worker, ...]] = ContextVar("lapel_delivery_workers", default=())


class Worker:
    """A task that runs handlers one after another. `work` is what it has in hand, `cancelled` that we cancelled it."""

    __slots__ = ("cancelled", "owner", "task", "waiter", "work")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.task: Task[None] | None = None
        self.waiter: Future[None] | None = None
        self.work: tuple[Held, ...] = ()
        self.cancelled = False


def inside_handler(owner: object) -> bool:
    """Tell whether this code was called by a handler of a subscription that belongs to `owner`."""
    return any(worker.owner is owner for worker in _current.get())


class Workers(ABC):
    """Up to `concurrency` workers, fed from a schedule.

    A worker that is woken wakes the next one if there is more to do, so a handler that never waits is run by a single
    worker, and no wake-up is paid for each message. A worker whose handler changed a context variable, or that was
    cancelled, ends and is replaced: no message sees what another one left behind. Workers run in copies of the
    context in which this object was made; `owner` is what `inside_handler` asks for.
    """

    def __init__(self, policy: DispatchPolicy, *, name: str, logger: logging.Logger, owner: object = None) -> None:
        self.name = name
        self.policy = policy
        self.logger = logger
        self.concurrency = 1 if policy.ordering is Ordering.ALL else policy.concurrency
        self.schedule = Schedule(policy.ordering)
        self.abandoned = 0
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        self._waking = False
        self._paused = False
        self._stopping = False

    @property
    def running(self) -> int:
        """How many handlers run."""
        return sum(1 for worker in self._workers if worker.work)

    def own_workers(self) -> set[Worker]:
        """Return the workers whose handlers called this code."""
        return self._workers.intersection(_current.get())

    @abstractmethod
    async def _run(self, worker: Worker) -> None:
        """Work until `_rest` says that it is over."""

    @abstractmethod
    def _mark_lost(self, held: Held) -> None:
        """Make sure that a running delivery is not settled any more."""

    def _due(self) -> bool:
        """Tell whether a handler could start."""
        return bool(self.schedule.ready)

    def _wake(self) -> None:
        """Have one more worker look at the schedule."""
        if self._paused or self._stopping or not self._due():
            return
        if self._idle:
            waiter = self._idle.pop().waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        elif len(self._workers) < self.concurrency:
            worker = Worker(self._owner)
            self._workers.add(worker)
            context = self._context.copy()
            context.run(_current.set, (*context.get(_current, ()), worker))
            worker.task = self._loop.create_task(self._run(worker), name=f"lapel handler {self.name}", context=context)
            worker.task.add_done_callback(lambda task: self._ended(worker, task))
        else:
            return
        self._waking = True

    async def _rest(self, worker: Worker) -> bool:
        """Wait until there may be something to do; False at the end."""
        if self._stopping:
            return False
        worker.waiter = self._loop.create_future()
        self._idle.append(worker)
        await worker.waiter
        worker.waiter = None
        self._waking = False
        return not self._stopping

    def _retires(self, worker: Worker) -> bool:
        """Tell whether a worker must end after its delivery because it was cancelled or everything stops."""
        return worker.cancelled or self._stopping or (worker.task is not None and worker.task.cancelling() > 0)

    def _ended(self, worker: Worker, task: Task[None]) -> None:
        self._workers.discard(worker)
        self._waking = False
        if worker in self._idle:
            self._idle.remove(worker)
        if task.cancelled() or (task.cancelling() and not worker.cancelled):
            # Perhaps the loop is ending, which must not find a new task; if not, a little later is early enough.
            self._loop.call_later(_REPLACE_DELAY, self._wake)
            return
        error = task.exception()
        if error is not None and not isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit):
            self.logger.error("a worker of %s failed; please report this", self.name, exc_info=error)
        self._wake()

    # stop

    def stop_starting(self) -> None:
        """Start no handler from now on, for good."""
        self._stopping = True
        for worker in self._idle:
            if worker.waiter is not None and not worker.waiter.done():
                worker.waiter.set_result(None)

    async def wait_for_others(self, own: set[Worker]) -> None:
        """Wait until all handlers but those of `own` have ended or been abandoned."""
        others = [worker.task for worker in self._workers - own if worker.task is not None]
        if others:
            await asyncio.wait(others, timeout=self.policy.drain_timeout + CANCEL_GRACE)

    async def drain(self) -> None:
        """Wait for running handlers up to the drain deadline, then cancel them, and abandon those that ignore it."""
        workers = {worker.task: worker for worker in self._workers if worker.task is not None}
        if not workers:
            return
        _, late = await asyncio.wait(workers, timeout=self.policy.drain_timeout)
        if not late:
            return
        self.logger.warning("%s: %d handlers run past the drain deadline and are cancelled", self.name, len(late))
        for task in late:
            self._cancel(workers[task])
        _, deaf = await asyncio.wait(late, timeout=CANCEL_GRACE)
        for task in deaf:
            self.abandoned += 1
            _abandoned.add(task)
            task.add_done_callback(_abandoned.discard)
            self.logger.error(
                "%s: a handler ignores its cancellation; it is left behind and its message goes back to the broker",
                self.name,
            )

    def _cancel(self, worker: Worker) -> None:
        for held in worker.work:
            self._mark_lost(held)
        worker.cancelled = True
        if worker.task is not None:
            worker.task.cancel()


def context_changed(base: Context) -> bool:
    """Tell whether this context is no longer equal to `base`. Costs next to nothing while nothing was set."""
    try:
        return copy_context() != base
    except Exception:
        # A value that does not like to be compared.
        return True
