"""An inbox for events of configuration that can be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lapel.configuration import ConfigurationEvent


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


class Inbox:
    """Collects events and what they add up to."""

    def __init__(self) -> None:
        self.events: list[ConfigurationEvent] = []
        self.state: dict[str, str | None] = {}

    def __call__(self, event: ConfigurationEvent) -> None:
        self.events.append(event)
        self.state.update({key: None if item.deleted else item.value for key, item in event.items.items()})

    async def holds(self, **wanted: str | None) -> None:
        await until(lambda: wanted.items() <= self.state.items())
