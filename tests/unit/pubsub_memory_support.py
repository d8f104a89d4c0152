"""Components on pubsub.in-memory without an envelope, and a handler that keeps what it gets."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from lapel.component import ComponentOptions
from lapel.driver import DriverContext
from lapel.pubsub import Message, PubSub
from lapel_contrib.memory.pubsub import MemoryPubSub
from lapel_contrib.memory.settings import MemoryPubSubSettings

# The first use of a settings class compiles it, which reads files; components do that off the loop.
MemoryPubSubSettings()


def memory(name: str = "bus", *, timeout: float = 5.0, **fields: Any) -> PubSub:
    driver = MemoryPubSub(MemoryPubSubSettings(**fields), DriverContext(component=name))
    return PubSub(driver, options=ComponentOptions(call_timeout=timedelta(seconds=timeout), envelope=False))


class Inbox:
    """A handler that keeps what it gets."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.got: list[Message] = []

    async def __call__(self, message: Message) -> None:
        if self.pause:
            await asyncio.sleep(self.pause)
        self.got.append(message)

    @property
    def data(self) -> list[bytes]:
        return [message.data for message in self.got]
