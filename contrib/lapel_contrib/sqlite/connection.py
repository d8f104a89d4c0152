"""Connection strings of the SQLite components, and connections opened from them."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

import msgspec

from lapel.errors import ConfigurationError, StorageError

from .errors import is_busy, location, translate

__all__ = [
    "SqliteOptions",
    "Target",
    "filesystem_type",
    "network_filesystem",
    "open_connection",
    "parse_connection_string",
]

BUSY_SLICE = 0.05
"""Seconds that SQLite itself waits for a lock in write-ahead mode; longer waits are loops that can be stopped."""

_FIELD = "connectionString"
_TRUE = frozenset({"1", "yes", "true", "on"})
_MODES = frozenset({"ro", "rw", "rwc", "memory"})
_OPTIONS = frozenset({"cache", "immutable", "mode", "modeof", "nolock", "psow", "vfs"})
_OWN_SETTING = {
    "busy_timeout": "use busyTimeout",
    "journal_mode": "use disableWAL",
    "foreign_keys": "it cannot be changed",
}
_PRAGMA = re.compile(r"([a-z_]+)\s*(?:=\s*|\(\s*)([A-Za-z0-9_.+-]+)\s*\)?")
_NETWORK = frozenset(
    {"9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre"}
    | {"ncpfs", "nfs", "nfs3", "nfs4", "orangefs", "smb", "smb2", "smb3", "smbfs"}
)
_NETWORK_FUSE = ("blobfuse", "ceph", "davfs", "gcsfuse", "glusterfs", "goofys", "rclone", "s3fs", "sshfs")


class Target(NamedTuple):
    """What a connection string names.

    `path` is the absolute path of the file, None for a database in memory. `uri` goes to `sqlite3.connect`. `key`
    is equal for strings that name the same file with the same options, and None for a private database in memory,
    which cannot be shared. `begin` starts a write transaction; `pragmas` are statements for every connection.
    """

    uri: str
    path: str | None
    key: str | None
    read_only: bool
    immutable: bool
    creates: bool
    begin: str
    pragmas: tuple[str, ...]

    @property
    def memory(self) -> bool:
        """The database is in memory: one connection, gone when it closes."""
        return self.path is None


class _ConcealedPath(str):
    """A path that came from a secret store. `repr`, by which errors and logs show paths, hides it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class SqliteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one engine. Equal options on an equal `Target.key` may share one engine.

    `connection_string` is a path, a `file:` URI or `:memory:`. `busy_timeout` is the wait, in seconds, for the lock
    of another process (0 or less: none). `synchronous` is SQLite's; below FULL the last commits may be lost with the
    power. `readers` is the most threads for point reads. One transaction takes at most `max_group_items` writes
    and `max_group_bytes` of their sizes; a larger write goes alone. `concealed` keeps the path out of errors and logs.
    """

    connection_string: str
    busy_timeout: float = 2.0
    disable_wal: bool = False
    synchronous: Literal["OFF", "NORMAL", "FULL", "EXTRA"] = "FULL"
    readers: int = 2
    max_group_items: int = 512
    max_group_bytes: int = 1024 * 1024
    concealed: bool = False

    def target(self) -> Target:
        """Parse the connection string, as `parse_connection_string` does. Raises `ConfigurationError`."""
        target = parse_connection_string(self.connection_string)
        if self.concealed and target.path is not None:
            return target._replace(path=_ConcealedPath(target.path))
        return target


def parse_connection_string(text: str) -> Target:
    """Read a connection string the way the Dapr SQLite components do.

    A relative path is joined to the working directory, which is asked for then (off the event loop, please); nothing
    else needs I/O.

    Taken from the query part: SQLite's own URI parameters, `_txlock` (deferred, immediate, exclusive; default
    immediate) and `_pragma=name(value)`. Everything that would have no effect here is refused with
    `ConfigurationError`, as are the pragmas that have a setting of their own.
    """
    rest = text.strip().removeprefix("file:")
    head, _, query = rest.partition("?")
    if "#" in rest:
        raise _wrong("has a '#', which ends a URI; write %23")
    if head.startswith("//"):
        authority, slash, head = head[2:].partition("/")
        if authority not in {"", "localhost"}:
            raise _wrong(f"names the host {authority!r}; only local files can be opened: file:///path")
        head = slash + head
    name = unquote(head)
    if not name or "\0" in name:
        raise _wrong("names no file; write a path, a file: URI or :memory:")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise _wrong("holds a lone surrogate, which is not text") from None
    options, begin, pragmas = _parse_query(query)
    suffix = "?" + "&".join(f"{key}={quote(value)}" for key, value in options.items()) if options else ""
    mode = options.get("mode", "rwc")
    shared = options.get("cache") == "shared"
    if name == ":memory:" or mode == "memory":
        uri = f"file:{quote(name, safe='/:')}{suffix}"
        return Target(uri, None, uri if shared else None, False, False, True, begin, pragmas)
    path = os.path.normpath(name if os.path.isabs(name) else os.path.join(_working_directory(), name))
    uri = f"file:{quote(path)}{suffix}"
    immutable = options.get("immutable", "").lower() in _TRUE
    return Target(uri, path, uri, mode == "ro" or immutable, immutable, mode == "rwc", begin, pragmas)


def open_connection(target: Target, options: SqliteOptions, *, writer: bool) -> sqlite3.Connection:
    """Open one connection in autocommit mode, in write-ahead mode unless that is switched off. Blocking.

    A reader is `query_only`. Raises `StorageError` where the file cannot be used and `UnavailableError` when another
    process kept it locked for `busy_timeout`.
    """
    _check_file(target)
    wait = max(0.0, options.busy_timeout)
    sliced = min(wait, BUSY_SLICE) if writer and not options.disable_wal else wait
    try:
        connection = sqlite3.connect(
            target.uri,
            timeout=sliced,
            isolation_level=None,
            check_same_thread=False,  # interrupted and, at interpreter exit, dropped by other threads
            cached_statements=256,
            uri=True,
        )
    except sqlite3.Error as exc:
        raise translate(exc, path=target.path, action="open") from exc
    try:
        _configure(connection, target, options, writer=writer, until=time.monotonic() + wait)
    except sqlite3.Error as exc:
        connection.close()
        raise translate(exc, path=target.path, action="open") from exc
    except BaseException:
        connection.close()
        raise
    return connection


def filesystem_type(path: str | os.PathLike[str]) -> str | None:
    """Return the type of the file system that holds a path, None where the system does not tell (not Linux).

    The path need not exist. Blocking, reads `/proc/self/mountinfo`.
    """
    real = os.path.realpath(path)
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return None
    best, found = -1, None
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, types = left.split(" "), right.split(" ")
        if len(fields) < 5 or not types[0]:
            continue
        mount = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= best:  # the later of two mounts on one place covers the earlier
            best, found = len(mount), types[0]
    return found


def network_filesystem(path: str | os.PathLike[str]) -> str | None:
    """Return the type of the file system that holds a path if it is a network one, else None. Blocking.

    On those, SQLite's locks and its shared memory between hosts do not work.
    """
    found = filesystem_type(path)
    if found is None:
        return None
    fuse = found.startswith("fuse.") and found[5:].startswith(_NETWORK_FUSE)
    return found if found in _NETWORK or fuse else None


def _parse_query(query: str) -> tuple[dict[str, str], str, tuple[str, ...]]:
    options: dict[str, str] = {}
    pragmas: list[str] = []
    begin = "BEGIN IMMEDIATE"
    for pair in filter(None, query.split("&")):
        key, _, raw = pair.partition("=")
        value = unquote(raw)
        if key == "_txlock":
            if value.lower() not in {"deferred", "immediate", "exclusive"}:
                raise _wrong("has an unknown _txlock; allowed: deferred, immediate, exclusive")
            begin = f"BEGIN {value.upper()}"
        elif key == "_pragma":
            pragmas.append(_parse_pragma(value))
        elif key not in _OPTIONS:
            raise _wrong(f"has the unknown option {key!r}; allowed: _pragma, _txlock, {', '.join(sorted(_OPTIONS))}")
        elif key == "mode" and value not in _MODES:
            raise _wrong(f"has an unknown mode; allowed: {', '.join(sorted(_MODES))}")
        else:
            options[key] = value
    return options, begin, tuple(pragmas)


def _parse_pragma(value: str) -> str:
    match = _PRAGMA.fullmatch(value.strip().lower())
    if match is None:
        raise _wrong("has a _pragma that is not of the form name(value)")
    if match[1] in _OWN_SETTING:
        raise _wrong(f"must not set _pragma={match[1]}; {_OWN_SETTING[match[1]]}")
    return f"PRAGMA {match[1]} = {match[2]}"


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        raise _wrong("is relative to the working directory, which is gone; write an absolute path") from None


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(f"field {_FIELD!r} {what}")


def _is_concealed(target: Target) -> bool:
    return isinstance(target.path, _ConcealedPath)


def _check_file(target: Target) -> None:
    if target.path is None:
        return
    place = location(target.path)
    if os.path.isdir(target.path):
        raise StorageError(f"cannot open, {place}: this is a directory; name a file in it")
    if os.path.exists(target.path):
        return
    directory = os.path.dirname(target.path)
    if not os.path.isdir(directory):
        missing = "its directory is missing" if _is_concealed(target) else f"there is no directory {directory!r}"
        raise StorageError(f"cannot open, {place}: {missing}; create it, or correct {_FIELD}")
    if not target.creates or target.read_only:
        raise StorageError(f"cannot open, {place}: there is no such file, and its mode does not allow to create it")


def _configure(
    connection: sqlite3.Connection, target: Target, options: SqliteOptions, *, writer: bool, until: float
) -> None:
    execute = connection.execute
    if writer:
        execute(f"PRAGMA synchronous = {options.synchronous}")
        execute("PRAGMA journal_size_limit = 67108864")
    for pragma in target.pragmas:
        execute(pragma)
    wanted = None
    if writer and not target.memory and not target.read_only:
        wanted = "DELETE" if options.disable_wal else "WAL"
    while True:
        try:
            if wanted is not None:
                execute(f"PRAGMA journal_mode = {wanted}").fetchone()
            execute("PRAGMA schema_version").fetchone()  # the first look into the file: is it a database at all?
            break
        except sqlite3.OperationalError as exc:
            # SQLite does not always wait by itself when two processes switch the mode of one new file.
            if not is_busy(exc) or time.monotonic() >= until:
                raise
            time.sleep(0.005)
    if not writer:
        execute("PRAGMA query_only = ON")
