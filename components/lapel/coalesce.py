"""Concurrent calls of one component, sent in one round trip.

Callers submit operations; whatever has gathered while the previous round trip was under way goes out together with
the next one. Nothing is delayed to make a batch larger: a lone call is sent in the next turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from copy import copy
from typing import Generic, TypeVar

from .errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    OutcomeUnknownError,
    UnavailableError,
    WrongLoopError,
)

__all__ = ["Coalescer", "duplicate", "mark_not_sent", "was_sent"]

Op = TypeVar("Op")
Result = TypeVar("Result")

_NOTHING_DONE = (ClosedError, DeadlineExceededError, InvalidArgumentError, UnavailableError, WrongLoopError)
_NOT_SENT = "_lapel_not_sent"
_CANCEL_GRACE = 0.5
"""Seconds that a flush may take to react to its cancellation before `close` leaves it behind."""


def was_sent(exc: BaseException) -> bool:
    """Tell whether the operation that failed with this exception may have reached the backend.

    False means certainly not applied: the caller was cancelled while its operation was still queued, or the error's
    class promises that nothing was done. True is the careful answer in every other case. The mark is on the exception
    object that `submit` raised, so ask in the task that awaited it: `asyncio.wait_for` replaces the object.
    """
    return not (isinstance(exc, _NOTHING_DONE) or getattr(exc, _NOT_SENT, False))


def mark_not_sent(exc: BaseException) -> None:
    """Make `was_sent` answer False for this exception, a cancellation that came before anything was sent."""
    exc.__dict__[_NOT_SENT] = True


class _Entry(Generic[Op, Result]):
    __slots__ = ("future", "op", "sent", "size")

    def __init__(self, op: Op, size: int, future: asyncio.Future[Result]) -> None:
        self.op = op
        self.size = size
        self.future = future
        self.sent = False


class Coalescer(Generic[Op, Result]):
    """Gather concurrent operations into batches and hand each its own result.

    `flush` gets a non-empty list of operations, first in first out, and returns one result for each, in the same
    order; an exception instance in a slot is raised to that caller only. When `flush` raises, every caller of that
    batch gets the error: the first the object itself, the others a copy with the same cause where it can be copied.
    A wrong number of results is `OutcomeUnknownError` for the whole batch. `flush` runs in an empty
    `contextvars.Context`, so it sees no caller's variables.

    At most `max_items` operations and `max_bytes` (None: unbounded) of their stated sizes go into one batch; an
    operation larger than that goes alone. At most `concurrency` batches are under way at a time; with more than one,
    they start in order but may end in another.

    A cancelled caller changes nothing for the others: an operation that no flush has taken yet is never sent,
    otherwise its result is discarded. `was_sent` tells the two apart. Building one does no I/O; it belongs to the
    event loop of the first call. `name` appears in error texts and task names, so it must hold no secret.
    """

    def __init__(
        self,
        flush: Callable[[list[Op]], Awaitable[Sequence[Result | BaseException]]],
        *,
        max_items: int,
        max_bytes: int | None = None,
        concurrency: int = 1,
        name: str = "coalescer",
    ) -> None:
        if max_items < 1 or concurrency < 1 or (max_bytes is not None and max_bytes < 1):
            raise InvalidArgumentError(f"{name}: max_items, max_bytes and concurrency must be at least 1")
        self._flush = flush
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._concurrency = concurrency
        self._name = name
        self._queue: deque[_Entry[Op, Result]] = deque()
        self._inflight: list[list[_Entry[Op, Result]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        self._starting = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def pending(self) -> int:
        """Operations that no flush has taken yet, cancelled ones included."""
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """`close` was called."""
        return self._closed

    async def submit(self, op: Op, size: int = 0) -> Result:
        """Queue one operation and wait for its result.

        `size` is what it counts for `max_bytes`. Calls may overlap; there is no deadline here, the caller's
        cancellation ends the wait. Raises what its slot holds, what `flush` raised, `ClosedError` (not sent),
        `WrongLoopError` (not sent), or `OutcomeUnknownError` when `close` gave up on the batch.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._bind(loop)
        if self._closed:
            raise ClosedError(f"{self._name} is closed; open a new component")
        entry: _Entry[Op, Result] = _Entry(op, size, loop.create_future())
        self._queue.append(entry)
        if self._running < self._concurrency and len(self._queue) > self._starting * self._max_items:
            self._start(loop)
        try:
            return await entry.future
        except asyncio.CancelledError as exc:
            if not entry.sent:
                mark_not_sent(exc)
            raise

    async def close(self, deadline: float = 5.0) -> None:
        """Refuse new operations, fail the queued ones with `ClosedError` and wait for what is under way.

        After `deadline` seconds the flush is cancelled, and its callers get `OutcomeUnknownError`, also when it
        ignores that. Always returns, at most half a second later. Idempotent; calls may overlap, and a flush may call
        it (it does not wait for itself).
        """
        self._closed = True
        self._fail_queue()
        tasks = self._tasks - {asyncio.current_task()}
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=deadline)
        if late:
            for task in late:
                task.cancel()
            _, deaf = await asyncio.wait(late, timeout=_CANCEL_GRACE)
            if deaf:
                for batch in self._inflight:
                    _fail(batch, self._stopped())

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            raise WrongLoopError(
                f"{self._name} belongs to another event loop; open one set of components per loop or use lapel.blocking"
            )
        self._loop = loop

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._starting += 1
        self._running += 1
        task = loop.create_task(self._run(), name=self._name, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            # By `close`, or by a loop that shuts down, possibly before it ran: nobody takes the queue any more.
            self._closed = True
            self._fail_queue()

    async def _run(self) -> None:
        self._starting -= 1
        try:
            while batch := self._take():
                await self._send(batch)
                # The callers just answered get one turn to submit again, so that they share the next round trip with
                # those who queued meanwhile instead of alternating with them.
                await asyncio.sleep(0)
        finally:
            self._running -= 1

    def _take(self) -> list[_Entry[Op, Result]]:
        queue = self._queue
        batch: list[_Entry[Op, Result]] = []
        size = 0
        while queue and len(batch) < self._max_items:
            entry = queue[0]
            if entry.future.done():
                queue.popleft()
                continue
            size += entry.size
            if batch and self._max_bytes is not None and size > self._max_bytes:
                break
            queue.popleft()
            entry.sent = True
            batch.append(entry)
        return batch

    async def _send(self, batch: list[_Entry[Op, Result]]) -> None:
        self._inflight.append(batch)
        try:
            results = await self._flush([entry.op for entry in batch])
            count = len(results)
        except Exception as exc:
            _fail(batch, exc)
            return
        except BaseException:
            _fail(batch, self._stopped())
            raise
        finally:
            self._inflight.remove(batch)
        if count != len(batch):
            text = f"{self._name}: {count} results came back for {len(batch)} operations"
            _fail(batch, OutcomeUnknownError(text))
            return
        for entry, result in zip(batch, results, strict=True):
            if entry.future.done():
                continue
            if isinstance(result, BaseException):
                _set_exception(entry.future, result)
            else:
                entry.future.set_result(result)

    def _stopped(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(f"{self._name} was stopped while the operation was under way; read it back")

    def _fail_queue(self) -> None:
        queued = list(self._queue)
        self._queue.clear()
        _fail(queued, ClosedError(f"{self._name} was closed before the operation was sent; nothing was done"))


def _fail(entries: list[_Entry[Op, Result]], error: Exception) -> None:
    given = error
    for entry in entries:
        if not entry.future.done():
            _set_exception(entry.future, given)
            given = duplicate(error)


def _set_exception(future: asyncio.Future[Result], error: BaseException) -> None:
    if isinstance(error, StopIteration):  # a future refuses it
        wrapped = RuntimeError("the operation raised StopIteration")
        wrapped.__cause__ = error
        error = wrapped
    future.set_exception(error)


def duplicate(error: Exception) -> Exception:
    """Return a copy of an error with the same cause, for a further caller; the error itself if it cannot be copied.

    Raising one object in several tasks would grow its traceback and let one caller's annotations show up in another.
    """
    try:
        twin = copy(error)
    except Exception:
        # Its constructor wants other arguments than those it keeps. Better the one object for all than no error.
        return error
    if type(twin) is not type(error):
        return error
    twin.__cause__ = error.__cause__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)
