"""Ends a command that is told to end as a failure would, so that it cleans up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["ended_by_signals"]

# Windows has no SIGHUP.
_ENDING: Final = [each for each in signal.Signals if each.name in ("SIGTERM", "SIGHUP")]


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like SIGINT, and then raise `SystemExit` with 128 plus the signal's number.

    Inside of `asyncio.run` that cancels its task. Only the first signal counts, so that nothing disturbs the end which
    it has begun. One that was ignored stays ignored, as `nohup` wants it; the handlers there were are put back. Does
    nothing outside of the main thread, where Python lets nobody handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            return
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)
        else:  # A shell lets its background jobs ignore SIGINT.
            raise KeyboardInterrupt

    before = {each: signal.getsignal(each) for each in _ENDING}
    taken = {each: handler for each, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for each in taken:
            signal.signal(each, end)
        yield
    except KeyboardInterrupt:
        if not received:
            raise
        raise SystemExit(128 + received[0]) from None
    finally:
        for each, handler in taken.items():
            signal.signal(each, handler)
