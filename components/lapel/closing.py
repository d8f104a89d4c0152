"""End what a component has under way, in bounded time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from .concealment import shows_secret
from .deadlines import Deadlines
from .driver import Driver

if TYPE_CHECKING:
    from .component import Component

__all__ = ["close_all", "close_driver", "end_calls", "log_failure"]

_log = logging.getLogger("lapel.assembly")

_GRACE_SECONDS = 0.5
"""How long what was cancelled at the end may take to react."""


async def end_calls(deadlines: Deadlines, seconds: float) -> None:
    """Wait for the calls under way, up to `seconds`, then expire those that are left."""
    await _until_idle(deadlines, seconds)
    if deadlines.expire_all():
        await _until_idle(deadlines, _GRACE_SECONDS)
    deadlines.close()


async def close_driver(driver: Driver[Any], seconds: float) -> None:
    """Close a driver. Returns after `seconds` and a little more, also when it raises, hangs or ignores cancellation."""
    name, logger = driver.context.component, driver.context.logger
    closing = asyncio.create_task(driver.close(), name=f"lapel close driver {name}")
    try:
        await asyncio.wait([closing], timeout=seconds)
    except asyncio.CancelledError:
        closing.cancel()
        raise
    if not closing.done():
        logger.error("%s did not close within %g s; going on", name, seconds)
        closing.cancel()
        await asyncio.wait([closing], timeout=_GRACE_SECONDS)
    if closing.done() and not closing.cancelled() and isinstance(exc := closing.exception(), Exception):
        log_failure(driver, "closing", exc)


def log_failure(driver: Driver[Any], doing: str, exc: Exception) -> None:
    """Log that doing something with the component failed, with the traceback unless that would show a secret."""
    shown = None if shows_secret(exc, driver.settings) else exc
    driver.context.logger.error("%s %s failed: %s", doing, driver.context.component, type(exc).__name__, exc_info=shown)


async def close_all(*groups: Iterable[Component[Any]]) -> None:
    """Close group after group, the components of one concurrently, to the end even if the caller is cancelled."""

    async def close() -> None:
        for group in groups:
            closings = (component.aclose() for component in group)
            for result in await asyncio.gather(*closings, return_exceptions=True):
                if isinstance(result, Exception):
                    _log.error("closing a component failed: %s", result)

    await _to_the_end(close())


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    task.result()
    if cancelled is not None:
        raise cancelled


async def _until_idle(deadlines: Deadlines, seconds: float) -> None:
    now = asyncio.get_running_loop().time
    end = now() + seconds
    while deadlines.busy and now() < end:  # noqa: ASYNC110  # an event would cost every call
        await asyncio.sleep(0.005)
