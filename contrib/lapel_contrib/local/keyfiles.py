"""A folder of key files: the key's name is the file's path inside the folder."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePath
from time import time_ns
from typing import Final, NamedTuple

from lapel.errors import (
    ClosedError,
    ConfigurationError,
    InvalidArgumentError,
    KeyTypeError,
    LapelError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)

from .keys import KeyFormat, LocalKey, holds_secret, parse_key
from .parsed_file import last_change

__all__ = ["MAX_KEY_FILE", "KeyFolder", "readable_by_others"]

MAX_KEY_FILE: Final = 65_536
"""Bytes that a key file may have."""

_FORMATS: Final[dict[str, KeyFormat]] = {".json": "jwk", ".pem": "pem", ".der": "der"}
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})
# The resolved path has no link left to follow; a pipe put in the key's place must not block the thread.
_OPEN_FLAGS: Final = (
    os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)
_READS: Final = 3
_THREADS: Final = 4
_FINE_NS: Final = 100_000_000
_COARSE_NS: Final = 2_000_000_000
"""What is surely longer than a tick of the clock of file times: of a usual one, and of one that has whole seconds."""
_LOOKED_AT: Final = 1_000
"""Files whose modes are looked at when the folder is opened."""


class _Stamp(NamedTuple):
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @property
    def settled(self) -> bool:
        """Whether a later change is sure to give another stamp, which within one tick of the clock it is not."""
        now = time_ns()
        last = last_change(self.modified_ns, self.changed_ns, now)
        return now - last > (_FINE_NS if last % 1_000_000_000 else _COARSE_NS)


class _Known(NamedTuple):
    path: str
    stamp: _Stamp
    key: LocalKey


class KeyFolder:
    """Loads keys from the files of one folder and keeps them until their file changes.

    Extensions: `.json` is a JWK, `.pem` PEM, `.der` DER; any other file is recognised by its content. Each `load` looks
    at the file, so a replaced key is used by the next call; replace files by renaming, since one that is being
    written is read half. Names that differ only in `.` and doubled slashes are one key. A key file that group or others
    may read is reported once in the log, unless it holds a public key. Use one folder object from one event loop; calls
    may overlap.
    """

    def __init__(self, path: str | os.PathLike[str], logger: logging.Logger | None = None) -> None:
        self._path = Path(path)
        self._logger = logger or logging.getLogger("lapel.component")
        self._known: dict[str, _Known] = {}
        self._looking: dict[str, list[asyncio.Future[LocalKey]]] = {}
        self._waiting: dict[str, list[asyncio.Future[LocalKey]]] = {}
        # Calls are so short that what `run_in_executor` and `shield` add would be half of one.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lapel key files")
        self._warned: set[str] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<KeyFolder {str(self._path)!r}>"

    async def check(self) -> None:
        """Raise `ConfigurationError` when the path is not an existing folder."""
        if not await asyncio.to_thread(self._path.is_dir):
            raise ConfigurationError(f"path {str(self._path)!r} is not an existing folder")

    async def open(self) -> None:
        """Report the secret keys that group or others may read. Raises what `check` raises.

        Looks at the first 1000 files, without parsing any; those that are found later are reported when they are used.
        """
        await self.check()
        await asyncio.to_thread(self._look_around)

    async def load(self, name: str) -> LocalKey:
        """Return the key in the file `name`, which may lie in a subfolder.

        Calls for one name that come while a look is under way share the next one, and a cancelled call does not
        disturb the others. Raises `InvalidArgumentError` for a name that leaves the folder (also through a symbolic
        link), `NotFoundError` when there is no such file, `KeyTypeError` when it holds no key that can be read,
        `PermissionDeniedError`, `UnavailableError` when the file system fails, and `ClosedError`.
        """
        if self._closed:
            raise ClosedError("the folder of keys is closed")
        # One name is kept for each file: whoever makes up names, in documents for example, must not fill the memory.
        if name not in self._known:
            name = _plain(name)
        waiter: asyncio.Future[LocalKey] = asyncio.get_running_loop().create_future()
        if name in self._looking:
            # The look under way may have begun before the file was replaced: the next one answers.
            self._waiting.setdefault(name, []).append(waiter)
        else:
            self._look(name, [waiter])
        return await waiter

    async def aclose(self) -> None:
        """Forget all keys, after the loads under way have ended. May be called again."""
        self._closed = True
        while self._looking:
            await asyncio.wait([waiter for waiters in self._looking.values() for waiter in waiters])
        self._threads.shutdown(wait=False)
        self._known.clear()

    def _look(self, name: str, waiters: list[asyncio.Future[LocalKey]]) -> None:
        self._looking[name] = waiters
        self._threads.submit(self._load, name, asyncio.get_running_loop())

    def _load(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        """Look at a key's file, in a thread, and tell those who wait."""
        key: LocalKey | None = None
        error: BaseException | None = None
        try:
            known = self._known.get(name)
            # The same file as before, wherever a link leads by now.
            key = known.key if known is not None and known.stamp == _stamp(os.stat(known.path)) else self._read(name)
        except OSError as exc:
            error = _translate(exc, name)
        except BaseException as exc:
            error = exc
        if error is not None:
            self._known.pop(name, None)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._landed, name, key, error)

    def _landed(self, name: str, key: LocalKey | None, error: BaseException | None) -> None:
        for waiter in self._looking.pop(name):
            if waiter.done():
                continue
            if key is not None:
                waiter.set_result(key)
            else:
                waiter.set_exception(error or RuntimeError("no key and no error"))
        if waiting := self._waiting.pop(name, None):
            self._look(name, waiting)

    def _read(self, name: str) -> LocalKey:
        path, data, status = self._content(name)
        key = parse_key(data, name, _format(name))
        if key.private:
            self._warn_if_readable(name, path, status)
        stamp = _stamp(status)
        if stamp.settled:
            self._known[name] = _Known(os.path.join(self._path, name), stamp, key)
        return key

    def _content(self, name: str) -> tuple[str, bytes, os.stat_result]:
        """Return where a key's file lies, what is in it, and its status."""
        root = os.path.realpath(self._path)
        path = os.path.realpath(os.path.join(root, name), strict=True)
        if not Path(path).is_relative_to(root):
            raise InvalidArgumentError(f"key {name!r} is a link that leads out of the folder of keys")
        descriptor = os.open(path, _OPEN_FLAGS)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NotFoundError(f"key {name!r} is not a file in the folder of keys")
            data, status = _read_settled(descriptor, name)
        finally:
            os.close(descriptor)
        return path, data, status

    def _look_around(self) -> None:
        for name in _files(self._path):
            try:
                if readable_by_others(os.stat(os.path.join(self._path, name))):
                    path, data, status = self._content(name)
                    # Parsing all the keys of a large folder would make the component miss its time to open.
                    if holds_secret(data, _format(name)):
                        self._warn_if_readable(name, path, status)
            except (OSError, LapelError):
                continue  # What is no key is nobody's secret, and an error when it is used.

    def _warn_if_readable(self, name: str, path: str, status: os.stat_result) -> None:
        if readable_by_others(status) and path not in self._warned:
            self._warned.add(path)
            self._logger.warning(
                "key file %r may be read by group or others (mode %04o): make it 0600",
                name,
                stat.S_IMODE(status.st_mode),
            )


def readable_by_others(status: os.stat_result) -> bool:
    """Tell whether group or others may read the file; False where the system has no such modes."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _files(folder: Path) -> Iterator[str]:
    """Give the names of keys that there may be, a limited number."""
    left = _LOOKED_AT
    for place, folders, names in os.walk(folder):
        # Such names cannot be used; Kubernetes keeps the files of a mounted secret below one.
        folders[:] = [name for name in folders if ".." not in name]
        for name in names:
            left -= 1
            if left < 0:
                return
            if ".." not in name:
                yield os.path.relpath(os.path.join(place, name), folder)


def _plain(name: str) -> str:
    """Return the one name of the file that a key's name means. Raises `InvalidArgumentError`."""
    path = PurePath(name)
    if not name or "\0" in name or ".." in name or path.anchor:
        raise InvalidArgumentError(
            f"key name {name!r} is not allowed: expected a path inside the folder of keys, without '..' and NUL"
        )
    return path.as_posix()


def _format(name: str) -> KeyFormat | None:
    return _FORMATS.get(PurePath(name).suffix.lower())


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read_settled(descriptor: int, name: str) -> tuple[bytes, os.stat_result]:
    """Read the whole file, again when it changed meanwhile."""
    for _ in range(_READS):
        status = os.fstat(descriptor)
        if status.st_size > MAX_KEY_FILE:
            raise KeyTypeError(f"key {name!r} has {status.st_size} bytes, a key file has at most {MAX_KEY_FILE}")
        os.lseek(descriptor, 0, os.SEEK_SET)
        data = os.read(descriptor, MAX_KEY_FILE)
        if _stamp(os.fstat(descriptor)) == _stamp(status) and len(data) == status.st_size:
            return data, status
    raise UnavailableError(f"key {name!r} changes while it is read: replace key files by renaming")


def _translate(exc: OSError, name: str) -> LapelError:
    if exc.errno in _ABSENT:
        return NotFoundError(f"key {name!r} does not exist in the folder of keys")
    if exc.errno in _DENIED:
        return PermissionDeniedError(f"key {name!r} may not be read: give this process read access to its file")
    return UnavailableError(f"key {name!r} cannot be read: {os.strerror(exc.errno) if exc.errno else 'unknown error'}")
