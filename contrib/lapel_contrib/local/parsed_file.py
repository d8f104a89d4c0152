"""A file that is parsed once and again whenever it changes; a broken version never replaces a good one."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

from lapel.errors import ConfigurationError, LapelError, PermissionDeniedError, StorageError

__all__ = ["MalformedError", "ParsedFile", "Stamp", "last_change", "read_stamp"]

T = TypeVar("T")

# A pipe or device put in the file's place must not hold up the thread.
_FLAGS: Final = getattr(os, "O_NONBLOCK", 0)
_SETTLED_NS: Final = 2_000_000_000
"""File times may be this coarse: within it, equal stamps do not prove equal content."""


class MalformedError(Exception):
    """The text is not what it should be. `message` never repeats a value from it; `line` counts from 1."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class Stamp(NamedTuple):
    """What tells one version of a file from another without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class _Reading(NamedTuple):
    stamp: Stamp | None
    settled: bool
    value: Any
    error: LapelError | None


_NOTHING: Final = _Reading(None, False, None, None)


def last_change(modified_ns: int, changed_ns: int, now_ns: int) -> int:
    """Return when a file with these times was changed last.

    A time of modification can be set to anything, so one in the future tells nothing. To set it changed the file's
    status, and the time of that comes from the system's clock.
    """
    return changed_ns if modified_ns > now_ns else max(modified_ns, changed_ns)


def read_stamp(path: Path) -> Stamp | None:
    """Return the file's stamp, None when it cannot be looked at. Blocking."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


class ParsedFile(Generic[T]):
    """The parsed content of one file.

    `parse` gets the text on a thread and raises `MalformedError`. `field` is the setting that names the file, for
    error texts. Use it from one event loop; calls may overlap.
    """

    def __init__(self, path: Path, parse: Callable[[str], T], *, field: str, logger: logging.Logger) -> None:
        self.path = path
        self._parse = parse
        self._field = field
        self._logger = logger
        self._reading = _NOTHING
        self._value: T
        self._problem: str | None = None
        self._lock = asyncio.Lock()
        self._started = 0
        self._finished = 0

    async def open(self) -> None:
        """Read the file for the first time.

        Raises `ConfigurationError` when it is missing or malformed, `PermissionDeniedError` when it may not be
        read, `StorageError` when reading fails.
        """
        reading = await asyncio.to_thread(self._read, _NOTHING)
        if reading.error is not None:
            raise reading.error
        self._reading, self._value = reading, reading.value

    async def current(self) -> T:
        """Return the content as of now, or of the last good version while the file is broken or away.

        A version that cannot be used is logged once, as is the recovery. Many calls at once share one look.
        """
        asked = self._started
        async with self._lock:
            # Only a look that began after this call was made is fresh enough to share.
            if self._finished <= asked:
                self._started += 1
                number = self._started
                self._take(await asyncio.to_thread(self._read, self._reading))
                self._finished = number
        return self._value

    async def check(self) -> None:
        """Raise `StorageError` when the newest version of the file is not in use, saying why."""
        await self.current()
        if self._problem is not None:
            raise StorageError(f"{self._problem}; the last good version stays in use")

    def _take(self, reading: _Reading) -> None:
        self._reading = reading
        if reading.error is None:
            self._value = reading.value
            if self._problem is not None:
                self._logger.info("%s %s is usable again", self._field, self.path)
            self._problem = None
        elif reading.error.message != self._problem:
            self._problem = reading.error.message
            self._logger.warning("%s; the last good version stays in use", self._problem)

    def _read(self, known: _Reading) -> _Reading:
        problem: LapelError
        try:
            with open(self.path, "rb", opener=_open) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    return _Reading(None, False, None, self._wrong("is not a regular file"))
                stamp = _stamp(status)
                if known.settled and known.stamp == stamp:
                    return known
                now = time.time_ns()
                settled = now - last_change(stamp.modified_ns, stamp.changed_ns, now) > _SETTLED_NS
                content = file.read()
        except FileNotFoundError:
            problem = self._wrong("does not exist; a relative path starts at the working directory")
        except PermissionError:
            problem = PermissionDeniedError(f"{self._field} {self.path} may not be read by this user")
        except OSError as exc:
            problem = StorageError(f"{self._field} {self.path} cannot be read: {os.strerror(exc.errno or 0)}")
        else:
            # Outside of any handler: the errors of the parsers hold the text, and it would stay in the context.
            return _Reading(stamp, settled, *self._parsed(content))
        return _Reading(None, False, None, problem)

    def _parsed(self, content: bytes) -> tuple[T | None, LapelError | None]:
        try:
            return self._parse(content.decode("utf-8-sig")), None
        except MalformedError as exc:
            message, line = exc.message, exc.line
        except UnicodeDecodeError as exc:
            message, line = "is not UTF-8 text", content.count(b"\n", 0, exc.start) + 1
        except RecursionError:
            message, line = "is nested too deeply", None
        return None, self._wrong(message, line)

    def _wrong(self, message: str, line: int | None = None) -> ConfigurationError:
        place = f"{self.path}:{line}" if line is not None else str(self.path)
        return ConfigurationError(f"{self._field} {place} {message}")


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | _FLAGS)


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
