"""Objects copied and moved, so that whatever happens there is one whole object at least, and no move is half done."""

from __future__ import annotations

from asyncio import CancelledError
from functools import partial
from typing import Any

from google.cloud.storage import Blob, Bucket

from lapel.coalesce import was_sent
from lapel.errors import (
    EtagMismatchError,
    LapelError,
    NotFoundError,
    OperationFailedError,
    OutcomeUnknownError,
    UnavailableError,
)

from .client import StorageClient
from .threads import TIMEOUT

__all__ = ["copy", "move"]


async def copy(client: StorageClient, source: Blob, bucket: Bucket, key: str, *, generation: int | None) -> None:
    """Copy an object. The copy appears when all of it is there; what it replaces stays until then.

    With `generation` only if the source has that one, so with 0 never. The source is read at one generation, however
    long it takes. Raises `NotFoundError`, `EtagMismatchError`, `OutcomeUnknownError`.
    """
    await _copy(client, source, bucket, key, await _generation_to_copy(client, source, generation))


async def move(client: StorageClient, source: Blob, bucket: Bucket, key: str, *, generation: int | None) -> None:
    """Move an object, replacing what is at the target.

    Within a bucket this is one step of the service. To another bucket, or where the service lacks that step, the object
    is copied and the generation that was copied is removed: a newer one that somebody wrote meanwhile stays. If the
    object is gone by then, the copy is taken back. Raises as `copy` does.
    """
    if bucket.name == source.bucket.name:
        try:
            await client.run(_move, source, key, generation, place=_place(source), writes=True)
            return
        except (NotFoundError, OperationFailedError):
            # There is no such object, or no such step: emulators lack it.
            pass
    moved = await _generation_to_copy(client, source, generation)
    replaced = await _generation_now(client, bucket, key)
    target = await _copy(client, source, bucket, key, moved)
    take_back = partial(_delete, target, target.generation)
    # What the copy replaced cannot be brought back: then the copy stays whatever happens.
    fresh = replaced == 0
    try:
        await client.run(_delete, source, moved, place=_place(source), writes=True)
    except CancelledError as exc:
        if fresh and not was_sent(exc):
            client.tidy(take_back)
        raise
    except (NotFoundError, EtagMismatchError):
        if await _generation_now(client, source.bucket, source.name) or not fresh:
            return  # Somebody wrote a newer one since.
        await client.run(take_back, place=_place(target), writes=True)
        raise NotFoundError(f"{_place(source)}: somebody else removed or moved it at the same time") from None
    except UnavailableError as exc:
        if not fresh:
            raise _unfinished(exc, target) from None
        await client.run(take_back, place=_place(target), writes=True)
        raise UnavailableError(f"{exc.message}; the copy was taken back") from None
    except LapelError as exc:
        if not await _superseded(client, source, moved):
            raise _unfinished(exc, target) from None


async def _copy(client: StorageClient, source: Blob, bucket: Bucket, key: str, generation: int) -> Blob:
    target = bucket.blob(key)
    options: dict[str, Any] = {"if_source_generation_match": generation, "timeout": TIMEOUT, "retry": None}
    token: str | None = None
    while True:
        # The service copies large objects in several turns.
        token = await client.run(_rewrite, target, source, token, options, place=_place(source), writes=True)
        if token is None:
            return target


async def _superseded(client: StorageClient, source: Blob, moved: int) -> bool:
    """Tell whether the generation that was copied is certainly gone, so that nothing is left to remove."""
    try:
        return await _generation_now(client, source.bucket, source.name) != moved
    except LapelError:
        return False


def _unfinished(exc: LapelError, target: Blob) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"{exc.message}; the copy, {_place(target)}, is complete, but the source may still be there: delete it"
    )


async def _generation_to_copy(client: StorageClient, source: Blob, wanted: int | None) -> int:
    return await _generation_of(client, source) if wanted is None else wanted


async def _generation_of(client: StorageClient, blob: Blob) -> int:
    """Read the attributes and return the generation. Raises `NotFoundError`."""
    await client.run(_reload, blob, place=_place(blob), writes=False)
    return int(blob.generation)


async def _generation_now(client: StorageClient, bucket: Bucket, key: str) -> int:
    """Return the generation that an object has now, 0 if there is none."""
    try:
        return await _generation_of(client, bucket.blob(key))
    except NotFoundError:
        return 0


def _place(blob: Blob) -> str:
    return f"object {blob.name!r} in bucket {blob.bucket.name!r}"


def _reload(blob: Blob) -> None:
    blob.reload(timeout=TIMEOUT, retry=None)


def _rewrite(target: Blob, source: Blob, token: str | None, options: dict[str, Any]) -> str | None:
    found: str | None = target.rewrite(source, token=token, **options)[0]
    return found


def _move(source: Blob, key: str, generation: int | None) -> None:
    source.bucket.move_blob(source, key, if_source_generation_match=generation, timeout=TIMEOUT, retry=None)


def _delete(blob: Blob, generation: int) -> None:
    # As whatever is there now: a blob that has a generation would be deleted for good where a bucket keeps versions.
    current = blob.bucket.blob(blob.name)
    current.delete(if_generation_match=generation, timeout=TIMEOUT, retry=None)
