"""The health probe of the application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ...errors import LapelError
from ..options import HostOptions
from .channel import AppChannel

__all__ = ["AppHealth"]

_log = logging.getLogger("lapel.host")


class AppHealth:
    """Asks the application how it is, and calls `changed` with True or False when that changes.

    It is unwell after so many failures in a row, and well again after one success.
    """

    def __init__(self, channel: AppChannel, options: HostOptions, changed: Callable[[bool], Awaitable[None]]) -> None:
        self._channel = channel
        self._options = options
        self._changed = changed
        self.well = True

    async def wait_until_well(self) -> None:
        """Return when the application is well; waits for ever."""
        while not await self._probe():  # noqa: ASYNC110  # only asking tells
            await asyncio.sleep(self._options.app_health_probe_interval)

    async def run(self) -> None:
        """Probe until cancelled."""
        failures = 0
        while True:
            await asyncio.sleep(self._options.app_health_probe_interval)
            failures = 0 if await self._probe() else failures + 1
            well = failures < self._options.app_health_threshold if self.well else failures == 0
            if well is self.well:
                continue
            self.well = well
            if well:
                _log.info("the application is well again; deliveries go on")
            else:
                _log.warning("the application failed %d health probes; deliveries pause", failures)
            await self._changed(well)

    async def _probe(self) -> bool:
        options = self._options
        try:
            reply = await self._channel.probe(options.app_health_check_path, options.app_health_probe_timeout)
        except LapelError:
            return False
        return reply.ok
