"""The host: a set of components, the APIs over it, and their life."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from ..assembly import Components
from ..descriptor import Kind
from ..errors import ClosedError
from ..manifest import Manifest, load_manifests
from .access import AccessRules
from .api import routes
from .configuration import HostConfiguration
from .options import HostOptions
from .routing import Route, Router
from .status import StatusPage

if TYPE_CHECKING:
    from ..assembly import Source
    from .app import AppSide
    from .http import Request

__all__ = ["Host", "Part", "RequestHook"]

_log = logging.getLogger("lapel.host")


class Part(Protocol):
    """Something that lives and ends with the host, for example the application's side.

    `start` is called once the components are open, `drain` when shutdown begins and requests are still served,
    `stop` before the components close, also after a `start` that failed. All are awaited and must be bounded.
    """

    async def start(self) -> None:
        """Begin. What takes long goes on in a task of its own."""

    async def drain(self) -> None:
        """Take in nothing new and wait for what is under way."""

    async def stop(self) -> None:
        """Let go of everything."""

    def unready(self) -> str | None:
        """Return why `healthz` must say no, None when all is well."""

    def metadata(self) -> Mapping[str, Any]:
        """Return what to add to the metadata document."""


class RequestHook(Protocol):
    """Sees every request that has a route, for metrics and traces. Both methods run in the request's own task."""

    def started(self, request: Request, route: Route) -> Any:
        """Return something for `finished`."""

    def finished(self, token: Any, status: int) -> None:
        """Take the status of the answer, 499 when there is none. For a stream, which only begins then, it is 200."""


class Host:
    """Components behind an API. `async with` it, or call `start` and `stop`; all from one event loop.

    `source` is what `open_components` takes. `configuration` says which APIs there are, which secrets may be read, and
    which components may not be; `rules` take the place of its first two.
    """

    def __init__(
        self,
        source: Source | Iterable[Source],
        options: HostOptions | None = None,
        *,
        configuration: HostConfiguration | None = None,
        rules: AccessRules | None = None,
    ) -> None:
        self.options = options or HostOptions()
        self.configuration = configuration or HostConfiguration()
        self.rules = rules or self.configuration.rules
        self.app = _app_side(self)
        """The application's side; None without `app_port`."""
        self.parts: list[Part] = [] if self.app is None else [self.app]
        self.hooks: list[RequestHook] = []
        self.attributes: dict[str, str] = {}
        """The custom attributes of the metadata API."""
        self.stopping = asyncio.Event()
        """Set by the shutdown API; whoever runs the host then drains and stops it."""
        self.ready = False
        """The components are open and shutdown has not begun."""
        self._source = source
        self._components: Components | None = None
        self._starting: asyncio.Task[None] | None = None
        self._stopped = False
        served = [route for route in routes(self) if self.rules.serves(route)]
        if self.options.status_page:
            page = StatusPage(self)
            self.parts.append(page)
            served += page.routes()
        self.router = Router(served)

    @property
    def components(self) -> Components:
        """What is open. Raises `ClosedError` before `start`."""
        if self._components is None:
            raise ClosedError("the host is not started")
        return self._components

    @property
    def started(self) -> bool:
        """Whether the components have been opened, also when they are closed again."""
        return self._components is not None

    def has(self, kind: Kind) -> bool:
        """Tell whether a component of this kind is open."""
        return any(component.descriptor.kind is kind for component in self.components)

    def unready(self) -> list[str]:
        """Return why the host is not ready to serve the application; empty when it is."""
        reasons = [] if self.ready else ["components"]
        return reasons + [reason for part in self.parts if (reason := part.unready()) is not None]

    async def start(self) -> None:
        """Open the components. Idempotent; concurrent callers wait for the same attempt, a failed one can be repeated.

        Raises what `open_components` raises, and `ClosedError` after `stop`.
        """
        if self._stopped:
            raise ClosedError("the host is stopped; make a new one")
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name="lapel start host")
        starting = self._starting
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise ClosedError("the host was stopped while it started") from None
            raise

    async def drain(self) -> None:
        """Begin to shut down: not ready any more, no new work from outside; calls are still served. Idempotent."""
        if not self.ready:
            return
        self.ready = False
        # At once, for one that takes long must not let another one go on taking in.
        await asyncio.gather(*(_quietly(part.drain(), f"draining {type(part).__name__}") for part in self.parts))

    async def stop(self) -> None:
        """Drain, then close everything. Idempotent and bounded."""
        await self.drain()
        if self._stopped:
            return
        self._stopped = True
        if (starting := self._starting) is not None:
            starting.cancel()
            await asyncio.wait([starting])
        for part in reversed(self.parts):
            await _quietly(part.stop(), f"stopping {type(part).__name__}")
        if self._components is not None:
            await self._components.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def _start(self) -> None:
        options = self.options
        started: list[Part] = []
        components = Components(app_id=options.app_id, namespace=options.namespace, unknown=options.unknown)
        try:
            await components.load(await self._permitted())
            self._components = components
            if self.app is not None:
                components.opened_late = self.app.component_opened
            for part in self.parts:
                started.append(part)
                await part.start()
        except BaseException:
            self._starting = self._components = None
            for part in reversed(started):
                await _quietly(part.stop(), f"stopping {type(part).__name__}")
            await components.aclose()
            raise
        self.ready = not self._stopped

    async def _permitted(self) -> Any:
        """Return the source. Raises `ConfigurationError` when it has a component that the configuration denies."""
        source = self._source
        if self.configuration.denied_components:
            if not isinstance(source, (str, os.PathLike, Manifest)):
                source = list(source)
            options = self.options
            loaded = await asyncio.to_thread(load_manifests, source, app_id=options.app_id, namespace=options.namespace)
            for manifest in loaded.components:
                self.configuration.check(manifest)
        return source


def _app_side(host: Host) -> AppSide | None:
    if host.options.app_port is None:
        return None
    from .app import AppSide  # needs aiohttp, and a host without an application does not

    return AppSide(host)


async def _quietly(step: Any, what: str) -> None:
    try:
        await step
    except Exception:
        _log.exception("%s failed; going on without it", what)
