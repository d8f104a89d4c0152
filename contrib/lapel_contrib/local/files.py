"""One file below a root, written whole or read in pieces. Everything here blocks and is meant for threads."""

from __future__ import annotations

import errno
import os
import stat
import threading
import uuid
from typing import Final

from lapel.errors import InvalidArgumentError

from .rooted import FILE_NAME, PARTIAL_PREFIX, located

__all__ = ["CHUNK_BYTES", "Download", "Upload", "remove"]

CHUNK_BYTES: Final = 256 * 1024

_READ: Final = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)


class Upload:
    """A file that appears under its name only when it is complete and on the disk.

    Methods may come from different threads. `abort` may come at any time, waits for the method under way and makes the
    others do nothing.
    """

    def __init__(self, root: str, parts: list[str]) -> None:
        self._root = root
        self._parts = parts
        self._lock = threading.Lock()
        self._partial = f"{PARTIAL_PREFIX}{uuid.uuid4().hex}"
        self._folder = -1
        self._file = -1
        self._name = ""
        self._over = False

    def store(self, data: bytes) -> None:
        """Do it all: begin, write, commit, and abort when one of them fails."""
        try:
            self.begin()
            self.write(data)
            self.commit()
        finally:
            self.abort()

    def begin(self) -> None:
        """Create the partial file beside the target, with the target's mode if there is one."""
        with self._lock:
            if self._over:
                return
            with located(self._root, self._parts, create=True) as place:
                if place.found is not None and stat.S_ISDIR(place.found.st_mode):
                    raise IsADirectoryError(errno.EISDIR, "is a folder")
                self._name = place.name
                self._folder = os.dup(place.folder)
            self._file = os.open(self._partial, _WRITE, 0o666, dir_fd=self._folder)
            if place.found is not None:
                os.fchmod(self._file, stat.S_IMODE(place.found.st_mode))

    def write(self, data: bytes) -> None:
        """Append to the partial file."""
        with self._lock:
            rest = memoryview(data)
            while rest and not self._over:
                rest = rest[os.write(self._file, rest) :]

    def commit(self) -> None:
        """Bring the data to the disk and put it in the target's place in one step."""
        with self._lock:
            if self._over:
                return
            os.fsync(self._file)
            os.rename(self._partial, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._partial = ""
            os.fsync(self._folder)
            self._end()

    def abort(self) -> None:
        """Leave nothing behind. Idempotent; after `commit` it does nothing."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._over = True
        file, folder, self._file, self._folder = self._file, self._folder, -1, -1
        if file >= 0:
            os.close(file)
            if self._partial:
                os.unlink(self._partial, dir_fd=folder)
        if folder >= 0:
            os.close(folder)


class Download:
    """A file read in pieces. Methods may come from different threads; `close` waits for a read under way."""

    def __init__(self, root: str, parts: list[str]) -> None:
        self._root = root
        self._parts = parts
        self._lock = threading.Lock()
        self._file = -1
        self._over = False

    def read(self) -> bytes:
        """Return the next piece, opening the file at the first call; a short one is the last and closes it."""
        with self._lock:
            if self._over:
                return b""
            if self._file < 0:
                self._file = self._open()
            pieces, missing = [], CHUNK_BYTES
            try:
                while missing and (piece := os.read(self._file, missing)):
                    pieces.append(piece)
                    missing -= len(piece)
            except BaseException:
                self._end()
                raise
            if missing:
                self._end()
            return b"".join(pieces)

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        with self._lock:
            self._end()

    def _open(self) -> int:
        with located(self._root, self._parts) as place:
            if place.found is None:
                raise FileNotFoundError(errno.ENOENT, "there is no such file")
            if not stat.S_ISREG(place.found.st_mode):
                raise InvalidArgumentError(f"{FILE_NAME} {'/'.join(self._parts)!r} is not a file that can be read")
            return os.open(place.name, _READ, dir_fd=place.folder)

    def _end(self) -> None:
        self._over = True
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def remove(root: str, parts: list[str]) -> None:
    """Remove a file, a link or an empty folder."""
    with located(root, parts, follow_last=False) as place:
        if place.found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        if stat.S_ISDIR(place.found.st_mode):
            os.rmdir(place.name, dir_fd=place.folder)
        else:
            os.unlink(place.name, dir_fd=place.folder)
        os.fsync(place.folder)
