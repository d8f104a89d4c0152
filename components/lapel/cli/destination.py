"""Where a command puts what it makes: all of it or nothing."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import StorageError

__all__ = ["Write", "destination"]

Write = Callable[[bytes], None]
"""Takes the next piece. Blocking. Raises `OSError`."""

_HELD_BYTES = 8 * 1_048_576
_PIECE = 1_048_576


@contextmanager
def destination(target: str, *, whole: bool) -> Iterator[Write]:
    """Give a function that writes, and put what was written at `target` when the block ends without an error.

    A file is written under another name beside its place and renamed; one that is replaced keeps its mode, a new one
    can only be read by its owner. `-` is standard output; a pipe and a device are written as they are. With `whole`
    nothing gets there before the block has ended: up to 8 MiB wait in memory, more in a file without a name. Raises
    `StorageError` when the place cannot be written to, and `OSError`.
    """
    if target == "-":
        with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as file:
            yield from _written(file, whole=whole)
    elif os.path.exists(target) and not os.path.isfile(target):
        with _opened(target) as file:
            yield from _written(file, whole=whole)
    else:
        yield from _replaced(Path(os.path.realpath(target)))


def _written(file: IO[bytes], *, whole: bool) -> Iterator[Write]:
    if not whole:
        yield lambda data: _write_all(file, data)
        return
    with tempfile.SpooledTemporaryFile(max_size=_HELD_BYTES) as held:
        yield lambda data: _write_all(held, data)
        held.seek(0)
        while piece := held.read(_PIECE):
            _write_all(file, piece)


def _replaced(path: Path) -> Iterator[Write]:
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as exc:
        raise StorageError(f"cannot write to the folder {path.parent}: {exc.strerror}") from exc
    try:
        with open(descriptor, "wb", buffering=0) as file:
            if path.exists():
                os.chmod(name, stat.S_IMODE(path.stat().st_mode))
            yield lambda data: _write_all(file, data)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):  # An interruption may come just after the name was changed.
            os.unlink(name)
        raise


def _opened(target: str) -> IO[bytes]:
    try:
        return open(target, "wb", buffering=0)
    except OSError as exc:
        raise StorageError(f"cannot write to {target}: {exc.strerror}") from exc


def _write_all(file: IO[bytes], data: bytes) -> None:
    # A pipe without a buffer may take less than it was given.
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
