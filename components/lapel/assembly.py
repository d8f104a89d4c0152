"""Component files become open components: secret stores first, closed in reverse, replaced one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from .building import build
from .closing import close_all
from .component import REOPEN_SECONDS, Component, ComponentOptions
from .descriptor import Kind
from .driver import SharedClients
from .errors import (
    AssemblyError,
    ClosedError,
    LapelError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    Problem,
    UnavailableError,
)
from .manifest import Document, Manifest, Manifests, SecretRef, load_manifests
from .members import Members
from .opening import Opening
from .ordering import opening_order
from .policy import RetryPolicy
from .registry import Registry, default_registry
from .resiliency.documents import Resiliency, read_resiliency
from .validation import refuse, validate

if TYPE_CHECKING:
    import os

    from .secretstores import SecretValues

    Source = str | os.PathLike[str] | Manifest

__all__ = ["Components", "open_components"]

_log = logging.getLogger("lapel.assembly")
T = TypeVar("T")


def open_components(
    source: Source | Iterable[Source],
    *,
    app_id: str | None = None,
    namespace: str | None = None,
    retries: RetryPolicy | None = None,
    call_timeout: timedelta | None = None,
    envelope: bool = True,
    unknown: Literal["error", "warn"] = "error",
    registry: Registry | None = None,
) -> Opening[Components]:
    """Open every component of a folder, of files, or of manifests made in code.

    `async with lapel.open_components("resources/", app_id="shop") as c: store = c.state("statestore")`, or await it
    and call `aclose` yourself. `app_id` selects by scopes, prefixes keys and names the consumer group; without it all
    components are opened and nothing is prefixed. `retries`, `call_timeout` and `envelope` override what the
    components and resiliency documents say, for runtimes that bring their own. `unknown="warn"` turns unknown fields
    into warnings.

    Raises one `ManifestError` with every problem that can be seen without opening, and then nothing was opened;
    one `AssemblyError` with every component that failed to open, and then the others were closed again. Components
    with `ignoreErrors: true` start degraded and keep trying instead; those whose settings cannot be had, for example
    because a secret is missing, are left out (`Components.failures`).
    """

    async def open_() -> Components:
        components = Components(
            app_id=app_id,
            namespace=namespace,
            retries=retries,
            call_timeout=call_timeout,
            envelope=envelope,
            unknown=unknown,
            registry=registry,
        )
        await components.load(source)
        return components

    return Opening(open_, Components.aclose)


class Components(Members):
    """Open components by name. Belongs to the loop that opened it; calls may overlap.

    Components that the same backend serves with the same settings share one client. Arguments as for
    `open_components`. `resiliency` has the policies of the documents of kind `Resiliency` that were loaded.
    """

    def __init__(
        self,
        *,
        app_id: str | None = None,
        namespace: str | None = None,
        retries: RetryPolicy | None = None,
        call_timeout: timedelta | None = None,
        envelope: bool = True,
        unknown: Literal["error", "warn"] = "error",
        registry: Registry | None = None,
    ) -> None:
        super().__init__()
        self.app_id = app_id
        self.namespace = namespace
        self._retries = retries
        self._call_timeout = call_timeout
        self._envelope = envelope
        self.resiliency = Resiliency()
        self._documents: list[Document] = []
        self._unknown: Literal["error", "warn"] = unknown
        self._registry = registry or default_registry()
        self._shared = SharedClients()
        self._change = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None
        self.opened_late: Callable[[str], None] | None = None
        """Called with the name of a component that was left out at first (`ignoreErrors`) and is open now."""
        # Those left out for a reason that may pass: their secret store does not answer.
        self._waiting: dict[str, asyncio.Task[None]] = {}

    @property
    def documents(self) -> tuple[Document, ...]:
        """The documents that are not components, of every file that was loaded, whatever their scope."""
        return tuple(self._documents)

    def _use_documents(self, documents: Iterable[Document]) -> None:
        """Take other documents in place of those there are. Components that are opened from now on go by them."""
        self._documents = list(documents)
        self.resiliency, _ = read_resiliency(self._documents, app_id=self.app_id, namespace=self.namespace)

    async def load(self, source: Source | Iterable[Source]) -> None:
        """Open every component of `source` beside those that are open. All or none, but for `ignoreErrors`.

        Raises as `open_components` does.
        """
        async with self._change:
            self._check_open()
            loaded = await asyncio.to_thread(load_manifests, source, app_id=self.app_id, namespace=self.namespace)
            taken = [
                Problem("a component of this name is open already", None, manifest.name, manifest.file, manifest.line)
                for manifest in loaded.components
                if manifest.name in self._members
            ]
            await self._check(loaded, taken)
            self._use_documents([*self._documents, *loaded.others])
            await self._open_all(loaded.components)

    async def add(self, manifest: Manifest) -> None:
        """Open one more component. Raises as `open_components` does."""
        await self.load(manifest)

    async def replace(self, manifest: Manifest) -> None:
        """Open the new component, see that it is healthy, let it take over the name, then drain and close the old one.

        Whoever asks by name from then on gets the new one; subscriptions of the old one end with it. When the new one
        fails, the old one stays and the error is raised, also with `ignoreErrors` unless the old one is not healthy
        either. A name that is not open is simply added.
        """
        async with self._change:
            self._check_open()
            await self._check(Manifests(components=[manifest]))
            old = self._members.get(manifest.name, {})
            tolerant = manifest.ignore_errors and not (old and await _unhealthy(old) is None)
            sides = await self._opened(manifest)
            try:
                reason = None if tolerant else await _unhealthy(sides)
                if reason is not None:
                    raise UnavailableError(
                        f"the new component is not healthy{', the old one stays' if old else ''}: {reason}",
                        component=manifest.name,
                        driver=manifest.type,
                        operation="replace",
                    )
            except BaseException:
                await close_all(sides.values())
                raise
            self._members[manifest.name] = sides
            self._manifests[manifest.name] = manifest
            self._failed.pop(manifest.name, None)
            await self._stop_waiting([manifest.name])
            await close_all(old.values())

    async def remove(self, name: str) -> None:
        """Drain and close one component. Raises `NotFoundError` when there is none of this name."""
        async with self._change:
            if name not in self._members and name not in self._failed:
                raise self._unknown_name(name)
            await self._forget([name])

    async def aclose(self) -> None:
        """Close everything in reverse order of opening, secret stores last. Idempotent and bounded.

        May be called from several tasks. Goes on in the background when the caller is cancelled.
        """
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._close_all(), name="lapel close components")
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _close_all(self) -> None:
        async with self._change:
            await self._forget(list(self._manifests))

    async def _forget(self, names: Iterable[str]) -> None:
        """Close these components, all others before secret stores, and those in reverse order."""
        names = list(names)
        await self._stop_waiting(names)
        stores: list[Component[Any]] = []
        others: list[Component[Any]] = []
        for name in reversed(names):
            manifest = self._manifests.pop(name, None)
            self._failed.pop(name, None)
            is_store = manifest is not None and manifest.kind is Kind.SECRETSTORES
            (stores if is_store else others).extend(self._members.pop(name, {}).values())
        await close_all(others, *([store] for store in stores))

    async def _check(self, loaded: Manifests, more: Iterable[Problem] = ()) -> None:
        """Log the warnings about manifests that are to be opened, and raise their problems as one error."""
        names = {manifest.name for manifest in loaded.components}
        present = [
            name
            for name, manifest in self._manifests.items()
            if manifest.kind is Kind.SECRETSTORES and name not in names
        ]
        problems = await asyncio.to_thread(
            validate,
            loaded,
            app_id=self.app_id,
            namespace=self.namespace,
            unknown=self._unknown,
            registry=self._registry,
            present=present,
        )
        for problem in problems:
            if problem.warning:
                _log.warning("%s", problem)
        refuse([*problems, *more])

    async def _open_all(self, manifests: list[Manifest]) -> None:
        await self._stop_waiting(manifest.name for manifest in manifests)
        waves, _ = opening_order(manifests, self._manifests)
        failures: list[LapelError] = []
        try:
            for wave in waves:
                results = await _all(partial(self._open_member, manifest) for manifest in wave)
                failures += [result for result in results if result is not None]
            if failures:
                lines = [f"{len(failures)} of {len(manifests)} components failed to open:", *map(str, failures)]
                raise AssemblyError("\n  ".join(lines), failures)
        except BaseException:
            await self._forget([manifest.name for wave in waves for manifest in wave])
            raise

    async def _open_member(self, manifest: Manifest) -> None:
        try:
            sides = await self._opened(manifest)
        except LapelError as exc:
            exc.locate(component=manifest.name, driver=manifest.type, operation="open")
            if not manifest.ignore_errors:
                raise
            if manifest.name not in self._failed:
                _log.warning("component %s is left out (ignoreErrors): %s", manifest.name, exc)
            self._failed[manifest.name] = exc
            if isinstance(exc, UnavailableError) and manifest.name not in self._waiting:
                task = asyncio.create_task(self._keep_trying(manifest), name=f"lapel reopen {manifest.name}")
                self._waiting[manifest.name] = task
        else:
            self._members[manifest.name] = sides
            self._failed.pop(manifest.name, None)
        self._manifests[manifest.name] = manifest

    async def _keep_trying(self, manifest: Manifest) -> None:
        pause, longest = REOPEN_SECONDS
        while manifest.name in self._failed:
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
            async with self._change:
                if manifest.name in self._failed and not self._closed:
                    await self._open_member(manifest)
                    if manifest.name in self._members and self.opened_late is not None:
                        self.opened_late(manifest.name)

    async def _stop_waiting(self, names: Iterable[str]) -> None:
        # The lock is ours, so none of these is opening anything right now.
        tasks = [task for name in names if (task := self._waiting.pop(name, None)) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _opened(self, manifest: Manifest) -> dict[str, Component[Any]]:
        sides = await self._build(manifest)
        try:
            for side, component in sides.items():
                if manifest.ignore_errors:
                    await component.open_or_keep_trying(partial(self._rebuild, manifest, side))
                else:
                    await component.open()
        except BaseException:
            await close_all(sides.values())
            raise
        return sides

    async def _rebuild(self, manifest: Manifest, side: str) -> Any:
        return (await self._build(manifest))[side].driver

    async def _build(self, manifest: Manifest) -> dict[str, Component[Any]]:
        secrets = await self._secrets(manifest)
        options = ComponentOptions(
            app_id=self.app_id,
            namespace=self.namespace,
            retries=self._retries,
            call_timeout=self._call_timeout,
            init_timeout=manifest.init_timeout,
            envelope=self._envelope,
            # A runtime that brings its own retries brings all policies.
            resiliency=None if self._retries else self.resiliency.component(manifest.name, manifest.kind),
        )
        return await asyncio.to_thread(
            build,
            manifest,
            options,
            self._registry,
            secrets=secrets,
            shared=self._shared,
            unknown=self._unknown,
        )

    async def _secrets(self, manifest: Manifest) -> dict[SecretRef, str]:
        refs = manifest.secret_refs()
        found: dict[SecretRef, str] = {}
        for name in dict.fromkeys(ref.name for ref in refs):
            try:
                values = await self._secret(manifest, manifest.secret_store or "", name)
            except NotFoundError:
                continue  # building reports it with the field that needs it
            found |= {ref: values[ref.key] for ref in refs if ref.name == name and ref.key in values}
        return found

    async def _secret(self, manifest: Manifest, store: str, name: str) -> SecretValues:
        place = {"component": manifest.name, "driver": manifest.type}
        if store not in self._members:
            raise UnavailableError(f"its secret store {store!r} did not open", **place)
        metadata = {"namespace": manifest.namespace} if manifest.namespace else {}
        try:
            return await self.secret_store(store).get(name, metadata=metadata)
        except NotFoundError:
            raise
        except LapelError as exc:
            # What failed is this component; the store's own error says why.
            refused = isinstance(exc, PermissionDeniedError)
            failure = PermissionDeniedError if refused else UnavailableError
            raise failure(f"cannot read the secret {name!r}: {exc}", **place) from exc

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the components are closed; open new ones")


async def _unhealthy(sides: dict[str, Component[Any]]) -> str | None:
    """Return why a component does not do its job, None when it does."""
    for component in sides.values():
        health = await component.health()
        if not health.ok:
            return health.reason or health.state.value
    return None


async def _all(calls: Iterable[Callable[[], Awaitable[None]]]) -> list[LapelError | None]:
    """Run all calls concurrently to their end and return the error of each; a cancellation cancels all."""

    async def one(call: Callable[[], Awaitable[None]]) -> LapelError | None:
        try:
            await call()
        except LapelError as exc:
            return exc
        except Exception as exc:
            failure = OperationFailedError(f"unexpected {type(exc).__name__} while opening; please report this")
            failure.__cause__ = exc
            return failure
        return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(call)) for call in calls]
    return [task.result() for task in tasks]
