"""State, secrets, configuration and locks without `await`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

from .. import configuration, lock, secretstores, state
from ..errors import ClosedError, LapelError, LockLostError
from .facade import Component, blocking, whole
from .runner import Caller, check_plain

__all__ = ["ConfigurationStore", "LockStore", "SecretStore", "StateStore"]

NO_METADATA: Mapping[str, str] = {}


class StateStore(Component[state.StateStore]):
    """`lapel.StateStore` without `await`."""

    get = blocking(state.StateStore.get)
    set = blocking(state.StateStore.set)
    delete = blocking(state.StateStore.delete)
    bulk_get = blocking(state.StateStore.bulk_get)
    bulk_set = blocking(state.StateStore.bulk_set)
    bulk_delete = blocking(state.StateStore.bulk_delete)
    keys = blocking(state.StateStore.keys)
    delete_with_prefix = blocking(state.StateStore.delete_with_prefix)
    query = blocking(state.StateStore.query)

    def transaction(
        self,
        operations: Iterable[state.SetOperation | state.DeleteOperation],
        *,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> list[str | None]:
        """Apply all operations in order, or none, as `lapel.StateStore.transaction`."""
        return self._runner.run(self._inner.transaction(whole(operations), metadata=metadata))

    def update(self, key: str, change: Callable[[state.StateItem | None], Any], *, tries: int = 20) -> Any:
        """Read, change and write back one key until nobody else wrote in between; return the value written.

        As `lapel.StateStore.update`. `change` is a plain function that is called in this thread; it may block and may
        use the store.
        """
        check_plain(change)
        caller = Caller()

        async def changed(item: state.StateItem | None) -> Any:
            return await caller(partial(change, item))

        return self._runner.run(self._inner.update(key, changed, tries=tries), caller)


class SecretStore(Component[secretstores.SecretStore]):
    """`lapel.SecretStore` without `await`."""

    get = blocking(secretstores.SecretStore.get)
    bulk_get = blocking(secretstores.SecretStore.bulk_get)


class ConfigurationStore(Component[configuration.ConfigurationStore]):
    """`lapel.ConfigurationStore` without `await`. Handlers are plain functions, run in threads of their own."""

    unsubscribe = blocking(configuration.ConfigurationStore.unsubscribe)

    def get(
        self, keys: Iterable[str] = (), *, metadata: Mapping[str, str] = NO_METADATA
    ) -> dict[str, configuration.ConfigurationItem]:
        """Return the items that exist among `keys`, by key; without keys all items there are."""
        return self._runner.run(self._inner.get(whole(keys), metadata=metadata))

    def subscribe(
        self,
        keys: Iterable[str],
        handler: Callable[[configuration.ConfigurationEvent], Any],
        *,
        initial: bool = False,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> str:
        """Call `handler` with every change of `keys`, one at a time, and return an id for `unsubscribe`.

        As `lapel.ConfigurationStore.subscribe`, but `handler` is a plain function and may block.
        """
        handle = self._runner.threaded(handler)
        return self._runner.run(self._inner.subscribe(whole(keys), handle, initial=initial, metadata=metadata))


class LockStore(Component[lock.LockStore]):
    """`lapel.LockStore` without `await`."""

    try_lock = blocking(lock.LockStore.try_lock)
    unlock = blocking(lock.LockStore.unlock)
    renew = blocking(lock.LockStore.renew)

    @contextmanager
    def hold(
        self,
        resource: str,
        *,
        expiry: timedelta | int = 15,
        wait: timedelta | float | None = None,
        owner: str | None = None,
    ) -> Iterator[lock.HeldLock]:
        """Hold the lock while the block runs, renewing it, as `lapel.LockStore.hold`.

        A block in a thread cannot be cancelled. When the lock is lost, `lost` of the held lock becomes true at once,
        and `LockLostError` is raised when the block ends; an error that the block itself raises is passed on instead.
        Look at `lost` before a step that must not happen twice. The store being closed is a loss too.
        """
        keeper = _Keeper(self._inner.hold(resource, expiry=expiry, wait=wait, owner=owner))
        try:
            held = self._runner.run(keeper.begin())
        except BaseException:
            # Interrupted, it may be about to get the lock.
            self._runner.run_closing(keeper.abandon())
            raise
        try:
            yield held
        except BaseException:
            with suppress(LapelError):
                self._runner.run(keeper.end())
            raise
        try:
            self._runner.run(keeper.end())
        except (ClosedError, LockLostError) as exc:
            raise LockLostError(
                f"the lock on {resource!r} was lost while its block ran",
                component=self.name,
                driver=self.type,
                operation="hold",
            ) from (exc if isinstance(exc, ClosedError) else None)


class _Keeper:
    """Stays inside an asynchronous `hold`, in a task of its own, while a block runs in a thread."""

    def __init__(self, hold: AbstractAsyncContextManager[lock.HeldLock]) -> None:
        self._hold = hold
        self._leave = asyncio.Event()
        self._held: lock.HeldLock | None = None
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> lock.HeldLock:
        """Return when the lock is taken."""
        taken = asyncio.Event()
        self._task = asyncio.create_task(self._keep(taken), name="lapel keep lock")
        waiting = asyncio.create_task(taken.wait())
        try:
            await asyncio.wait([self._task, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._held is None:
            await self._task
        assert self._held is not None
        return self._held

    async def end(self) -> None:
        """Give the lock back. Raises `LockLostError` when it was lost."""
        self._leave.set()
        assert self._task is not None
        await self._task

    async def abandon(self) -> None:
        """Give the lock back, or up, in whatever state it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _keep(self, taken: asyncio.Event) -> None:
        try:
            async with self._hold as self._held:
                taken.set()
                await self._leave.wait()
        finally:
            if self._held is not None and not self._leave.is_set():
                self._held.lost = True
