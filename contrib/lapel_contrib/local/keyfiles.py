"""A folder of key files: the key's name is the file's path inside the folder."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
import time
from pathlib import Path, PurePath
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

from .keys import KeyFormat, LocalKey, parse_key

__all__ = ["MAX_KEY_FILE", "KeyFolder", "readable_by_others"]

MAX_KEY_FILE: Final = 65_536
"""Bytes that a key file may have."""

_log = logging.getLogger(__name__)

_FORMATS: Final[dict[str, KeyFormat]] = {".json": "jwk", ".pem": "pem", ".der": "der"}
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})
# The resolved path has no link left to follow; a pipe put in the key's place must not block the thread.
_OPEN_FLAGS: Final = (
    os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)
_READS: Final = 3
_SETTLED_NS: Final = 2_000_000_000


class _Stamp(NamedTuple):
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class KeyFolder:
    """Loads keys from the files of one folder and keeps them until their file changes.

    Extensions: `.json` is a JWK, `.pem` PEM, `.der` DER; any other file is recognised by its content. Each `load` looks
    at the file, so a replaced key is used by the next call; replace files by renaming, since one that is being
    written is read half. A key file that group or others may read is reported once in the log, unless it holds a
    public key. Use one folder object from one event loop; calls may overlap.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._keys: dict[str, tuple[_Stamp, LocalKey]] = {}
        self._flights: dict[str, asyncio.Task[LocalKey]] = {}
        self._warned: set[str] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<KeyFolder {str(self._path)!r}>"

    async def check(self) -> None:
        """Raise `ConfigurationError` when the path is not an existing folder."""
        if not await asyncio.to_thread(self._path.is_dir):
            raise ConfigurationError(f"path {str(self._path)!r} is not an existing folder")

    async def load(self, name: str) -> LocalKey:
        """Return the key in the file `name`, which may lie in a subfolder.

        Concurrent calls for one name share one look at the file, and a cancelled call does not disturb the others.
        Raises `InvalidArgumentError` for a name that leaves the folder (also through a symbolic link),
        `NotFoundError` when there is no such file, `KeyTypeError` when it holds no key that can be read,
        `PermissionDeniedError`, `UnavailableError` when the file system fails, and `ClosedError`.
        """
        if self._closed:
            raise ClosedError("the folder of keys is closed")
        _check_name(name)
        flight = self._flights.get(name)
        if flight is None:
            flight = asyncio.create_task(asyncio.to_thread(self._load, name), name="lapel key file")
            self._flights[name] = flight
            flight.add_done_callback(lambda done: self._landed(name, done))
        return await asyncio.shield(flight)

    async def aclose(self) -> None:
        """Forget all keys, after the loads under way have ended. May be called again."""
        self._closed = True
        if self._flights:
            await asyncio.wait(list(self._flights.values()))
        self._keys.clear()

    def _landed(self, name: str, flight: asyncio.Task[LocalKey]) -> None:
        del self._flights[name]
        if not flight.cancelled():
            flight.exception()  # Marks it as seen when every caller was cancelled.

    def _load(self, name: str) -> LocalKey:
        try:
            return self._read(name)
        except OSError as exc:
            self._keys.pop(name, None)
            raise _translate(exc, name) from exc
        except LapelError:
            self._keys.pop(name, None)
            raise

    def _read(self, name: str) -> LocalKey:
        root = os.path.realpath(self._path)
        path = os.path.realpath(os.path.join(root, name), strict=True)
        if not Path(path).is_relative_to(root):
            raise InvalidArgumentError(f"key {name!r} is a link that leads out of the folder of keys")
        descriptor = os.open(path, _OPEN_FLAGS)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NotFoundError(f"key {name!r} is not a file in the folder of keys")
            known = self._keys.get(name)
            if known is not None and known[0] == _stamp(status):
                return known[1]
            data, status = _read_settled(descriptor, name)
        finally:
            os.close(descriptor)
        key = parse_key(data, name, _FORMATS.get(PurePath(name).suffix.lower()))
        if key.private:
            self._warn_if_readable(name, path, status)
        # A file that changes again within one tick of its clock keeps its stamp, so a young one is not kept.
        if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
            self._keys[name] = (_stamp(status), key)
        return key

    def _warn_if_readable(self, name: str, path: str, status: os.stat_result) -> None:
        if readable_by_others(status) and path not in self._warned:
            self._warned.add(path)
            _log.warning(
                "key file %r may be read by group or others (mode %04o): make it 0600",
                name,
                stat.S_IMODE(status.st_mode),
            )


def readable_by_others(status: os.stat_result) -> bool:
    """Tell whether group or others may read the file; False where the system has no such modes."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _check_name(name: str) -> None:
    if not name or "\0" in name or ".." in name or PurePath(name).anchor:
        raise InvalidArgumentError(
            f"key name {name!r} is not allowed: expected a path inside the folder of keys, without '..' and NUL"
        )


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
