"""`lapel crypto`: documents of any length, on files and pipes, in constant memory."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from ..assembly import Components
from ..crypto import CryptoProvider
from ..descriptor import Kind
from ..errors import AssemblyError, ConfigurationError
from ..manifest import Manifest, load_manifests
from ..registry import Registry
from ..validation import refuse
from .destination import Write, destination
from .output import counted
from .signals import ended_by_signals

__all__ = ["Transform", "transform_file"]

Transform = Callable[[CryptoProvider, AsyncIterable[bytes]], AsyncIterator[bytes]]
"""What is done to a stream of bytes with an open provider."""

T = TypeVar("T")
_CHUNK = 1_048_576


def transform_file(
    registry: Registry, transform: Transform, *, source: str, target: str, component: Path, whole: bool, title: str
) -> int:
    """Send `source` through `transform` to `target`, and return the exit code. `-` stands for the standard streams.

    `component` is a file with one crypto component; secret stores beside it are opened as well, other components are
    not. With `whole` nothing is given out before everything is known to be right. `title` is what a progress bar
    says, if standard error is a terminal. SIGTERM and SIGHUP end it as SIGINT does, with nothing left that is half
    written, and raise `SystemExit` with 143 and 129. Must not be called from a running event loop.
    """
    manifests, name = _components(component)
    try:
        with (
            ended_by_signals(),
            destination(target, whole=whole) as write,
            _source(source) as file,
            _progress(title, file) as advance,
        ):
            asyncio.run(_run(registry, manifests, name, transform, file, write, advance))
    except AssemblyError as exc:
        for failure in exc.exceptions:
            print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


def _components(path: Path) -> tuple[list[Manifest], str]:
    """Return the crypto component of a file with the secret stores that it may need, and its name."""
    loaded = load_manifests(path)
    refuse(loaded.problems)
    found = [manifest for manifest in loaded.components if manifest.kind is Kind.CRYPTO]
    if len(found) != 1:
        names = f" ({', '.join(manifest.name for manifest in found)})" if found else ""
        raise ConfigurationError(f"{path} has {counted(len(found), 'crypto component')}{names}; name a file with one")
    stores = [manifest for manifest in loaded.components if manifest.kind is Kind.SECRETSTORES]
    return [*stores, *found], found[0].name


async def _run(
    registry: Registry,
    manifests: list[Manifest],
    name: str,
    transform: Transform,
    file: IO[bytes],
    write: Write,
    advance: Callable[[int], None],
) -> None:
    async with Components(registry=registry) as components:
        await components.load(manifests)
        gathered: list[bytes] = []
        size = 0
        async for piece in transform(components.crypto(name), _chunks(file, advance)):
            gathered.append(piece)
            size += len(piece)
            if size >= _CHUNK:
                data = b"".join(gathered)
                await _aside(lambda data=data: write(data))  # type: ignore[misc]  # mypy infers no lambda with defaults
                gathered, size = [], 0
        await _aside(lambda: write(b"".join(gathered)))


async def _chunks(file: IO[bytes], advance: Callable[[int], None]) -> AsyncIterator[bytes]:
    while chunk := await _aside(lambda: file.read(_CHUNK)):
        advance(len(chunk))
        yield chunk


async def _aside(work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own, which does not hold up the end of an interrupted program.

    The pools of asyncio would: a pipe may stay silent for ever.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # None only if that is what the work returns

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as exc:
            error = exc
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="lapel crypto", daemon=True).start()
    return await answer


@contextmanager
def _source(source: str) -> Iterator[IO[bytes]]:
    if source == "-":
        descriptor = sys.stdin.fileno()
        if os.name == "posix":
            # A pipe that another program made non-blocking would look as if it had ended.
            os.set_blocking(descriptor, True)
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            yield file
    else:
        with open(source, "rb", buffering=0) as file:
            yield file


@contextmanager
def _progress(title: str, file: IO[bytes]) -> Iterator[Callable[[int], None]]:
    """Show how far it is, on standard error and only if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    size = os.fstat(file.fileno()).st_size
    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.description}", markup=False)
    with Progress(text, *columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=size or None)
        yield lambda size: progress.advance(task, size)
