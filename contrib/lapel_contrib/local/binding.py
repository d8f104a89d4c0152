"""Files below one folder as an output binding."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from asyncio import CancelledError
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar, TypeVarTuple

from lapel.bindings import BindingDriver, BindingResponse, InvokeRequest
from lapel.coalesce import mark_not_sent
from lapel.driver import DriverContext
from lapel.errors import ConfigurationError, InvalidArgumentError, PermissionDeniedError, StorageError
from lapel.jsontext import JSON_CONTENT_TYPE

from . import BINDING
from .files import CHUNK_BYTES, Download, Upload, remove
from .rooted import FILE_NAME, path_parts, translated, walk_files
from .settings import LocalStorageSettings, forbidden_root

__all__ = ["LocalStorageBinding"]

THREADS: Final = 8
_Args = TypeVarTuple("_Args")
_T = TypeVar("_T")


class LocalStorageBinding(BindingDriver[LocalStorageSettings]):
    """`bindings.localstorage`: create, get, list and delete files below `rootPath`.

    Data is stored exactly as given. A file appears under its name when it is complete and synced, and replaces an
    older one in the same step; a process that is killed may leave a hidden `.lapel-partial-*` file. Symbolic links are
    followed while they stay below `rootPath`. `list` returns a JSON array of absolute paths, `[]` when there are none.
    Files of 256 KiB and more are read as a stream. Needs a POSIX system.
    """

    descriptor = BINDING
    content_operations = frozenset({"create"})

    def __init__(self, settings: LocalStorageSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._root = ""
        # Threads of its own: a disk that hangs must not take those of the loop, which look up host names.
        self._threads: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        if os.open not in os.supports_dir_fd:
            raise ConfigurationError("needs a POSIX system, where files can be opened relative to an open folder")
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"lapel-{self.context.component}")
        self._root = await self._run(_prepared, os.fspath(self.settings.root_path))

    async def close(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            # What has begun ends by itself and lets go of its files.
            threads.shutdown(wait=False)

    async def ping(self) -> None:
        await self._run(_look, self._root)

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        match request.operation:
            case "create":
                return await self._create(request)
            case "get":
                return await self._get(request)
            case "list":
                return await self._list(request)
            case _:
                return await self._delete(request)

    async def _create(self, request: InvokeRequest) -> BindingResponse:
        parts = self._file_parts(request) if FILE_NAME in request.metadata else [str(uuid.uuid4())]
        path = "/".join(parts)
        upload = Upload(self._root, parts)
        try:
            if request.data is None or isinstance(request.data, bytes):
                await self._run(upload.store, request.data or b"")
            else:
                await self._create_from_stream(upload, request.data)
        except OSError as exc:
            raise translated(exc, path, "write") from exc
        return BindingResponse(json.dumps({"fileName": path}).encode(), content_type=JSON_CONTENT_TYPE)

    async def _create_from_stream(self, upload: Upload, data: AsyncIterable[bytes]) -> None:
        pending = bytearray()
        committing = False
        try:
            await self._run(upload.begin)
            async for chunk in data:
                pending += chunk
                if len(pending) >= CHUNK_BYTES:
                    await self._run(upload.write, bytes(pending))
                    pending.clear()
            await self._run(upload.write, bytes(pending))
            committing = True
            await self._run(upload.commit)
        except CancelledError as exc:
            if not committing:
                mark_not_sent(exc)
            raise
        finally:
            await asyncio.shield(self._run(upload.abort))

    async def _get(self, request: InvokeRequest) -> BindingResponse:
        parts = self._file_parts(request)
        path = "/".join(parts)
        download = Download(self._root, parts)
        try:
            head = await self._run(download.read)
        except OSError as exc:
            raise translated(exc, path, "read") from exc
        except CancelledError:
            await asyncio.shield(self._run(download.close))
            raise
        if len(head) < CHUNK_BYTES:
            return BindingResponse(head)
        return BindingResponse(_FileStream(download, head, path, self._run))

    async def _list(self, request: InvokeRequest) -> BindingResponse:
        name = request.metadata.get(FILE_NAME, "")
        parts = path_parts(self._root, name)
        try:
            found = await self._run(_listing, self._root, parts)
        except OSError as exc:
            raise translated(exc, name, "list") from exc
        return BindingResponse(found, content_type=JSON_CONTENT_TYPE)

    async def _delete(self, request: InvokeRequest) -> BindingResponse:
        parts = self._file_parts(request)
        try:
            await self._run(remove, self._root, parts)
        except OSError as exc:
            raise translated(exc, "/".join(parts), "delete") from exc
        return BindingResponse()

    def _file_parts(self, request: InvokeRequest) -> list[str]:
        name = request.metadata.get(FILE_NAME)
        if name is None:
            raise InvalidArgumentError(f"{request.operation} needs the request metadata {FILE_NAME!r}")
        parts = path_parts(self._root, name)
        if not parts or (request.operation == "create" and name.endswith("/")):
            raise InvalidArgumentError(f"{FILE_NAME} {name!r} names no file")
        return parts

    def _run(self, job: Callable[[*_Args], _T], *args: *_Args) -> asyncio.Future[_T]:
        """Run a job on a thread; what is left to tidy up after `close` runs on one of the loop's."""
        return asyncio.get_running_loop().run_in_executor(self._threads, job, *args)


class _Runner(Protocol):
    def __call__(self, job: Callable[[], _T], /) -> asyncio.Future[_T]: ...


class _FileStream(AsyncIterator[bytes]):
    """The rest of a file, piece by piece."""

    def __init__(self, download: Download, head: bytes, path: str, run: _Runner) -> None:
        self._download = download
        self._head = head
        self._path = path
        self._run = run

    async def __anext__(self) -> bytes:
        head, self._head = self._head, b""
        try:
            chunk = head or await self._run(self._download.read)
        except OSError as exc:
            raise translated(exc, self._path, "read") from exc
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        await asyncio.shield(self._run(self._download.close))


def _prepared(path: str) -> str:
    """Create the root if it is missing and return its real path."""
    try:
        root = os.path.realpath(path)
        if forbidden_root(root):
            raise ConfigurationError(f"rootPath leads to {root!r}, which is not allowed; choose another folder")
        os.makedirs(root, exist_ok=True)
    except OSError as exc:
        reason = f"cannot make the folder rootPath={path!r}: {os.strerror(exc.errno or 0)}; create it or choose another"
        raise (PermissionDeniedError if isinstance(exc, PermissionError) else StorageError)(reason) from exc
    _look(root)
    return root


def _look(root: str) -> None:
    try:
        with os.scandir(root):
            pass
    except OSError as exc:
        reason = f"cannot open the folder rootPath={root!r}: {os.strerror(exc.errno or 0)}"
        raise (PermissionDeniedError if isinstance(exc, PermissionError) else StorageError)(reason) from exc


def _listing(root: str, parts: list[str]) -> bytes:
    return json.dumps(walk_files(root, parts)).encode()
