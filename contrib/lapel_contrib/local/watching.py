"""Tell any number of watchers that one file may have changed."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import watchfiles
from typing_extensions import override

from lapel.configuration import Watcher

from .parsed_file import Stamp, read_stamp

__all__ = ["FileWatch"]

_LOOK_MS: Final = 500
"""How often the stamp is compared anyway: links to elsewhere and network file systems send no events."""
_CLOSE_SECONDS: Final = 2.0


class FileWatch:
    """Watches one file with one thread, which runs from the first watcher until `close`."""

    def __init__(self, path: Path, logger: logging.Logger) -> None:
        self._path = path
        self._logger = logger
        self._stop = threading.Event()
        self._ended: asyncio.Future[None] | None = None
        self._watchers: set[_FileWatcher] = set()

    def watcher(self) -> Watcher:
        """Return a watcher that is armed: what changes from now on wakes it up."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._run, args=(self._ended,), name="lapel-file-watch", daemon=True).start()
        return _FileWatcher(self._watchers)

    async def close(self) -> None:
        """Stop the thread and wait for it, for at most two seconds."""
        self._stop.set()
        if self._ended is not None:
            await asyncio.wait([self._ended], timeout=_CLOSE_SECONDS)

    def _run(self, ended: asyncio.Future[None]) -> None:
        loop = ended.get_loop()
        seen: Stamp | None = None

        def look(touched: bool) -> None:
            # The first look always differs, which covers what happened before the thread had armed itself.
            nonlocal seen
            stamp = read_stamp(self._path)
            if touched or stamp != seen:
                _post(loop, self._wake)
            seen = stamp

        try:
            self._follow(look)
            while not self._stop.wait(_LOOK_MS / 1000):
                look(False)
        finally:
            _post(loop, lambda: None if ended.done() else ended.set_result(None))

    def _follow(self, look: Callable[[bool], None]) -> None:
        """Look at every event until stopped, or return early where the system refuses to send any."""
        try:
            # The folder and not the file: a file that is replaced by renaming is another one.
            for changes in watchfiles.watch(
                *{self._path.absolute().parent, self._path.resolve().parent},
                watch_filter=None,
                debounce=200,
                stop_event=self._stop,
                rust_timeout=_LOOK_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                recursive=False,
            ):
                look(any(os.path.basename(changed) == self._path.name for _, changed in changes))
        except (OSError, RuntimeError) as exc:
            self._logger.warning(
                "%s cannot be watched (%s); it is looked at every %g s instead",
                self._path,
                type(exc).__name__,
                _LOOK_MS / 1000,
            )

    def _wake(self) -> None:
        for watcher in self._watchers:
            watcher.event.set()


class _FileWatcher(Watcher):
    def __init__(self, watchers: set[_FileWatcher]) -> None:
        self.event = asyncio.Event()
        self._watchers = watchers
        watchers.add(self)

    @override
    async def changed(self) -> None:
        await self.event.wait()
        self.event.clear()

    @override
    async def close(self) -> None:
        self._watchers.discard(self)


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
        loop.call_soon_threadsafe(callback)
