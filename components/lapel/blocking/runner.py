"""One background thread with one event loop, and the ways in and out of it."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from ..errors import ClosedError, InvalidArgumentError, WrongLoopError
from .threads import DaemonThreads

__all__ = ["Caller", "Runner", "awaited", "check_plain"]

FINISH_SECONDS = 5.0
"""How long `stop` waits for tasks that were cancelled, and for threads that have nothing to do any more."""

_log = logging.getLogger("lapel.blocking")
_living: WeakSet[Runner] = WeakSet()
T = TypeVar("T")


class Runner:
    """A thread with an event loop. All methods may be called from any thread, at the same time.

    Contexts (`contextvars`) go along: a call runs in a copy of its caller's, a handler in a copy of its
    subscription's. Raises `WrongLoopError` when made inside a running event loop.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        _check_no_loop()
        self._guard = threading.Lock()
        self._stopping = threading.RLock()
        self._ended = False
        self._pending: set[Future[Any]] = set()
        self._threads = DaemonThreads("lapel blocking worker")
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(self._threads)
        self._thread = threading.Thread(target=self._loop.run_forever, name="lapel blocking", daemon=True)
        self._thread.start()
        _living.add(self)

    def run(self, work: Coroutine[Any, Any, T], caller: Caller | None = None) -> T:
        """Run `work` in the loop and return its result. An interruption of this thread cancels it.

        Meanwhile this thread does what `work` asks of it through `caller`. Raises what `work` raises, `WrongLoopError`
        inside a running event loop or after a fork, and `ClosedError` after `stop` or when it comes in between.
        """
        future = self._submit(work)
        try:
            if caller is not None:
                future.add_done_callback(caller.end)
                caller.serve()
            return future.result()
        except CancelledError:
            raise ClosedError("was closed before the call had ended") from None
        except BaseException:
            future.cancel()
            raise
        finally:
            # Its exception refers to this frame.
            del future

    def call(self, function: Callable[[], T]) -> T:
        """Run a function that does not wait in the loop and return its result. Raises as `run` does."""
        return self.run(_called(function))

    def run_closing(self, work: Coroutine[Any, Any, None]) -> None:
        """Do as `run`, but nothing after `stop` or in a forked child, where there is nothing left to close."""
        if self._pid != os.getpid():
            work.close()
            return
        try:
            self.run(work)
        except ClosedError:
            if not self._ended:
                raise

    def close(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `aclose` and then `stop`. In a forked child it does nothing.

        Called by a handler, which it would have to wait for, it goes on in the background and returns at once.
        """
        if self._threads.inside():
            # An empty context, in which nothing is called by a handler.
            work = partial(Context().run, self.close, aclose)
            threading.Thread(target=work, name="lapel blocking close", daemon=True).start()
            return
        try:
            self.run_closing(aclose())
        except WrongLoopError:
            raise
        except BaseException:
            self.stop()
            raise
        self.stop()

    def stop(self) -> None:
        """Cancel what is under way and end loop and thread. Idempotent and bounded; does not wait for handlers."""
        if self._pid != os.getpid():
            return
        with self._guard:
            self._ended = True
        with self._stopping:
            if self._loop.is_closed() or not self._thread.is_alive():
                return
            try:
                asyncio.run_coroutine_threadsafe(_finish(), self._loop).result(FINISH_SECONDS * 3)
            except TimeoutError:
                _log.error("the background loop does not react; going on without it")
            finally:
                self._end_thread(FINISH_SECONDS)
                for future in list(self._pending):
                    with suppress(InvalidStateError):
                        future.set_exception(ClosedError("was closed before the call had ended"))

    def threaded(self, handler: Callable[..., T]) -> Callable[..., Coroutine[Any, Any, T]]:
        """Return a coroutine function that runs `handler`, which may block, in a thread of its own.

        Raises `InvalidArgumentError` for a coroutine function.
        """
        check_plain(handler)

        async def call(*args: Any) -> T:
            work = partial(copy_context().run, _outcome, partial(handler, *args))
            # The error is carried as a value: a future refuses some, and the loop would end with others.
            result, error = await asyncio.get_running_loop().run_in_executor(self._threads, work)
            try:
                if error is None:
                    return result  # type: ignore[return-value]  # None only where the handler returned it
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise RuntimeError(f"the handler raised {type(error).__name__} in its thread") from error
                raise error
            finally:
                del error

        return call

    def abandon(self) -> None:
        """Let nothing happen in the loop any more, without closing anything; for the end of the program."""
        if self._pid == os.getpid() and self._thread.is_alive():
            with self._guard:
                self._ended = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(1.0)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            self._check()
            with self._guard:
                if self._ended:
                    raise ClosedError("is closed; open a new one")
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
                self._pending.add(future)
        except BaseException:
            work.close()
            raise
        future.add_done_callback(self._pending.discard)
        return future

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise WrongLoopError("was opened before fork; open it in the child process")
        if threading.current_thread() is self._thread:
            raise WrongLoopError("called in its own background loop, which it would stop for ever")
        _check_no_loop()

    def _end_thread(self, seconds: float) -> None:
        self._threads.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(seconds)
        if self._thread.is_alive():
            return
        self._loop.close()
        # Those that are idle end at once; a handler that goes on is not waited for.
        if left := self._threads.join(0.2):
            _log.warning(
                "closed while %d handlers still run in their threads; they are left to end by themselves", left
            )


class Caller:
    """Lets a coroutine call functions in the thread that waits for it in `Runner.run`. Serves one call of `run`."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[_Request[Any] | None] = SimpleQueue()

    async def __call__(self, function: Callable[[], T]) -> T:
        """Run `function` in the waiting thread; return its result, or raise what it raises."""
        request = _Request(function)
        self._requests.put(request)
        result, error = await request.answer
        try:
            if error is not None:
                raise error
            return result  # type: ignore[return-value]  # None only where the function returned it
        finally:
            del error

    def serve(self) -> None:
        """Do what is asked until `end`. What is neither a result nor an `Exception`, like an interrupt, is raised."""
        while (request := self._requests.get()) is not None:
            request.fulfil()

    def end(self, _: object = None) -> None:
        """Let `serve` return."""
        self._requests.put(None)


class _Request(Generic[T]):
    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[tuple[T | None, BaseException | None]] = self._loop.create_future()

    def fulfil(self) -> None:
        outcome: tuple[T | None, BaseException | None]
        try:
            outcome = self._function(), None
        except Exception as exc:
            outcome = None, exc
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._set, outcome)

    def _set(self, outcome: tuple[T | None, BaseException | None]) -> None:
        if not self.answer.done():
            self.answer.set_result(outcome)


def check_plain(function: Callable[..., Any]) -> None:
    """Raise `InvalidArgumentError` for a coroutine function, which nobody would await here."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004  # what it is, not whether it is there
        raise InvalidArgumentError(
            "lapel.blocking calls plain functions; for coroutine functions use lapel's async classes"
        )


async def awaited(work: Awaitable[T]) -> T:
    """Make a coroutine of anything that can be awaited."""
    return await work


async def _called(function: Callable[[], T]) -> T:
    return function()


def _outcome(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return function(), None
    except BaseException as exc:
        return None, exc


async def _finish() -> None:
    """End what is left in the loop before it stops, so that nothing is destroyed while it is pending."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=FINISH_SECONDS)
    with suppress(TimeoutError):
        async with asyncio.timeout(FINISH_SECONDS):
            await asyncio.get_running_loop().shutdown_asyncgens()


def _check_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WrongLoopError(
        "called inside a running event loop, which it would stop; use lapel's async classes with `await` there"
    )


@atexit.register
def _abandon_all() -> None:
    for runner in list(_living):
        runner.abandon()
