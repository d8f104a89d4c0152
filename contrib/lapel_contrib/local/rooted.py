"""Reach files below one folder and nothing outside it, whatever others do to the folder meanwhile.

A path is walked part by part from an open folder, each part relative to the last and without following links; a
symbolic link is read and its text walked in the same way. So no check can be overtaken by a rename or a new link.
All functions block.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from lapel.errors import (
    InvalidArgumentError,
    LapelError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    StorageError,
)

__all__ = ["FILE_NAME", "PARTIAL_PREFIX", "Place", "located", "path_parts", "translated", "walk_files"]

FILE_NAME: Final = "fileName"
"""The request metadata that names the file."""

PARTIAL_PREFIX: Final = ".lapel-partial-"
"""How the names of files begin that are still being written. No request reaches them and no listing shows them."""

_FOLDER: Final = (
    os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
)
_MOST_LINKS: Final = 40

_ARGUMENT_ERRORS: Final = {
    errno.ENAMETOOLONG: "is too long for this file system",
    errno.EISDIR: "names a folder, not a file",
    errno.EEXIST: "names a folder, not a file",
    errno.EINVAL: "is not a name that this file system takes",
    errno.EILSEQ: "is not a name that this file system takes",
}


class Place(NamedTuple):
    """Where a path ends: an open folder, the name in it, and what is there (None: nothing)."""

    folder: int
    name: str
    found: os.stat_result | None


def path_parts(root: str, name: str) -> list[str]:
    """Return the parts of a requested path relative to `root`.

    An absolute path counts when it lies in `root`, as those that a listing returns do. Raises `InvalidArgumentError`
    for one that leaves it, goes through `..`, names nothing or cannot be a path.
    """
    if "\0" in name:
        raise _refused(name, "holds a NUL character")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise _refused(name, "holds characters that no file name can have") from None
    if name.startswith("/"):
        inside = name.removeprefix(root.rstrip("/") + "/")
        if inside == name:
            raise _refused(name, "is an absolute path outside rootPath; give one relative to it")
        name = inside
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(name, "holds '..'; give the path relative to rootPath without it")
    if any(part.startswith(PARTIAL_PREFIX) for part in parts):
        raise _refused(name, f"begins with {PARTIAL_PREFIX!r}, which is reserved for files being written")
    return parts


@contextmanager
def located(root: str, parts: list[str], *, create: bool = False, follow_last: bool = True) -> Iterator[Place]:
    """Open the folder that holds the last part, making the folders on the way if `create`.

    Links are followed while they stay below `root`; a last part that is a link is checked as well, and replaced by its
    target if `follow_last`. Raises `OSError`, and `InvalidArgumentError` for a link that leads outside.
    """
    path = "/".join(parts)
    folders = [os.open(root, _FOLDER & ~getattr(os, "O_NOFOLLOW", 0))]
    try:
        place = _walk(root, path, folders, list(reversed(parts)), create)
        if not follow_last and parts:
            while len(folders) > 1:
                os.close(folders.pop())
            # The walk above has shown that what the link leads to lies inside; this one stops at the link itself.
            place = _walk(root, path, folders, list(reversed(parts)), create, stop_at_link=True)
        yield place
    finally:
        for folder in folders:
            os.close(folder)


def _walk(
    root: str, path: str, folders: list[int], pending: list[str], create: bool, *, stop_at_link: bool = False
) -> Place:
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if len(folders) == 1:
                raise _refused(path, "is or goes through a symbolic link that leaves rootPath")
            os.close(folders.pop())
            continue
        try:
            found = os.lstat(part, dir_fd=folders[-1])
        except FileNotFoundError:
            found = None
        last = not pending
        if found is not None and stat.S_ISLNK(found.st_mode) and not (last and stop_at_link):
            links += 1
            if links > _MOST_LINKS:
                raise _refused(path, "goes through too many symbolic links")
            target = os.readlink(part, dir_fd=folders[-1])
            if target.startswith("/"):
                inside = target.removeprefix(root.rstrip("/") + "/")
                if inside == target and target != root:
                    raise _refused(path, "is or goes through a symbolic link that leaves rootPath")
                target = "" if target == root else inside
                while len(folders) > 1:
                    os.close(folders.pop())
            pending += reversed(target.split("/"))
            continue
        if last:
            return Place(folders[-1], part, found)
        if found is None and create:
            try:
                os.mkdir(part, dir_fd=folders[-1])
                os.fsync(folders[-1])
            except FileExistsError:
                pass
        folders.append(os.open(part, _FOLDER, dir_fd=folders[-1]))
    return Place(folders[-1], ".", os.fstat(folders[-1]))


def walk_files(root: str, parts: list[str]) -> list[str]:
    """Return the absolute paths of all files below a folder, sorted.

    A link counts when it leads to a file below `root`; folders behind links are not entered.
    """
    found: list[str] = []
    with located(root, parts) as place:
        if place.found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such folder")
        if not stat.S_ISDIR(place.found.st_mode):
            raise _refused("/".join(parts), "names a file, not a folder")
        top = os.open(place.name, _FOLDER, dir_fd=place.folder)
    pending = [(top, list(parts))]
    try:
        while pending:
            folder, prefix = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        path = [*prefix, entry.name]
                        if entry.is_dir(follow_symlinks=False):
                            try:
                                pending.append((os.open(entry.name, _FOLDER, dir_fd=folder), path))
                            except (FileNotFoundError, NotADirectoryError):
                                continue  # gone since
                        elif not entry.name.startswith(PARTIAL_PREFIX) and _is_file(root, path, entry):
                            found.append("/".join([root.rstrip("/"), *path]))
            finally:
                os.close(folder)
    finally:
        for folder, _ in pending:
            os.close(folder)
    return sorted(found)


def _is_file(root: str, path: list[str], entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return entry.is_file(follow_symlinks=False)
    try:
        with located(root, path) as place:
            return place.found is not None and stat.S_ISREG(place.found.st_mode)
    except (OSError, InvalidArgumentError):
        return False


def translated(exc: OSError, name: str, action: str) -> LapelError:
    """Return the error of lapel for one of the operating system; `name` is the path as it was requested."""
    where = f"{FILE_NAME} {name!r}"
    if exc.errno == errno.ENOENT:
        return NotFoundError(f"there is no {where}")
    if exc.errno in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(f"this process may not {action} {where}; check owner and mode of file and folders")
    if exc.errno in (errno.ENOTDIR, errno.ELOOP):
        if action in ("read", "list", "delete"):
            return NotFoundError(f"there is no {where}: a part of its path is a file")
        return InvalidArgumentError(f"{where} goes through a file as if it were a folder")
    if exc.errno == errno.ENOTEMPTY:
        return OperationFailedError(f"{where} is a folder that is not empty; delete its files first")
    if exc.errno in _ARGUMENT_ERRORS:
        return InvalidArgumentError(f"{where} {_ARGUMENT_ERRORS[exc.errno]}")
    return StorageError(f"could not {action} {where}: {os.strerror(exc.errno or 0)}; check the disk behind rootPath")


def _refused(name: str, reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{FILE_NAME} {name!r} {reason}")
