"""Threads that are made on demand and never keep a process alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from typing_extensions import override

__all__ = ["DaemonThreads"]

IDLE_SECONDS = 30.0

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """An executor of daemon threads without a limit, so that work which waits for other work cannot starve it.

    The executor of the standard library joins its threads when the interpreter exits, for ever if one hangs, and
    refuses work a moment before the program has ended. A thread that finds nothing to do for `IDLE_SECONDS` ends. The
    base class is there because event loops insist on it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(max_workers=1)
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._guard = threading.Lock()
        self._members: set[threading.Thread] = set()
        # Waiting threads for which there is no job in the queue yet.
        self._free = 0
        self._ended = False

    @override
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` at once. Raises `RuntimeError` after `shutdown`."""
        future: Future[T] = Future()
        job = partial(_run, future, partial(fn, *args, **kwargs))
        with self._guard:
            if self._ended:
                raise RuntimeError("the threads have been shut down")
            if self._free:
                self._free -= 1
            else:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._members.add(thread)
                thread.start()
            self._jobs.put(job)
        return future

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs and let idle threads end; those under way end with their job. Does not wait."""
        with self._guard:
            self._ended = True
            for _ in range(self._free):
                self._jobs.put(None)
            self._free = 0

    def join(self, seconds: float) -> int:
        """Wait for the threads to end after `shutdown`; return how many still run after `seconds`."""
        end = time.monotonic() + seconds
        threads = [thread for thread in list(self._members) if thread is not threading.current_thread()]
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return sum(thread.is_alive() for thread in threads)

    def inside(self) -> bool:
        """Tell whether this code runs in one of the threads."""
        return threading.current_thread() in self._members

    def _work(self) -> None:
        try:
            while True:
                try:
                    job = self._jobs.get(timeout=IDLE_SECONDS)
                except Empty:
                    if self._leave():
                        return
                    continue
                if job is None:
                    return
                job()
                del job
                with self._guard:
                    if self._ended:
                        return
                    self._free += 1
        finally:
            self._members.discard(threading.current_thread())

    def _leave(self) -> bool:
        """Tell whether this thread is not needed: no job is on its way to it."""
        with self._guard:
            if self._free:
                self._free -= 1
                return True
            return False


def _run(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as exc:
        future.set_exception(exc)
    else:
        future.set_result(result)
