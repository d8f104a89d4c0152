"""Reload component files when they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import watchfiles

from ..errors import LapelError
from ..reloading import reload_components

if TYPE_CHECKING:
    from .host import Host

__all__ = ["Watching"]

SETTLE_MILLISECONDS = 200
"""How long files must be quiet before they are read."""
_log = logging.getLogger("lapel.host")


class Watching:
    """Watches files and folders and brings the components of a host up to date; a `Part` of it.

    A mistake in a file is logged, and everything stays as it was until it is mended.
    """

    def __init__(self, host: Host, paths: Iterable[Path]) -> None:
        self._host = host
        self._paths = list(paths)
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(), name="lapel watch components")

    async def drain(self) -> None:
        """Watch no longer; a reload under way is finished."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._host.options.graceful_shutdown_seconds)

    async def stop(self) -> None:
        """Let go of the files."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=5.0)

    def unready(self) -> str | None:
        """Return None: whoever watches is ready."""
        return None

    def metadata(self) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    async def _watch(self) -> None:
        changes = watchfiles.awatch(
            *self._paths, watch_filter=self._counts, stop_event=self._stopping, debounce=SETTLE_MILLISECONDS
        )
        async for _ in changes:
            try:
                await self._reload()
            except LapelError as exc:
                _log.error("component files are not reloaded: %s", exc)

    def _counts(self, _: watchfiles.Change, path: str) -> bool:
        """Tell whether a change matters: other files of a folder, such as a log that is written there, do not."""
        changed = Path(path)
        # Kubernetes swaps a link named `..data` when it renews what is mounted.
        return (
            changed.suffix.lower() in (".yaml", ".yml")
            or changed.name.startswith("..")
            or any(changed.name == each.name for each in self._paths)
        )

    async def _reload(self) -> None:
        host = self._host
        paths = [str(path) for path in self._paths]
        result = await reload_components(host.components, paths, check=host.configuration.check)
        for what in ("added", "replaced", "removed"):
            if names := getattr(result, what):
                _log.info("%s: %s", what, ", ".join(names))
        if host.app is not None:
            if result.documents:
                await host.app.documents_changed()
            for name in result.changed:
                await host.app.component_changed(name)
