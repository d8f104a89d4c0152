"""A broker that offers little, for what the suite says about missing capabilities."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError
from lapel.pubsub import Consumer, Delivery, Settled, SubscribeRequest
from lapel.testing import Pins, PubSubSuite, Subject
from lapel_contrib.memory.pubsub import MemoryPubSub
from lapel_contrib.memory.settings import MemoryPubSubSettings

SETTINGS = MemoryPubSubSettings.parse({})
KEPT = Capability.CONSUMER_GROUPS | Capability.ATTRIBUTES


class PlainConsumer(Consumer):
    """Neither redelivers nor counts."""

    redelivers = False

    def __init__(self, inner: Consumer) -> None:
        self._inner = inner

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        taken = await self._inner.receive(max_messages, max_wait)
        for delivery in taken:
            delivery.attempt = None
        return taken

    async def settle(self, settled: Sequence[Settled]) -> None:
        await self._inner.settle(settled)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._inner.release(deliveries)

    async def close(self) -> None:
        await self._inner.close()


class PlainPubSub(MemoryPubSub):
    """The broker in memory with most of its flags withdrawn."""

    async def open(self) -> None:
        await super().open()
        self.withdraw(self.descriptor.capabilities & ~KEPT, "this one is plain")

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        if request.topic.endswith("*"):
            raise InvalidArgumentError("a topic must not end in '*'")
        return PlainConsumer(await super().subscribe(request))


def _driver(context: DriverContext) -> PlainPubSub:
    return PlainPubSub(SETTINGS, context)


PLAIN = Subject("plain-messages", _driver, pins=Pins(flags=KEPT))


class TestPlainPubSub(PubSubSuite):
    @pytest.fixture
    def subject(self) -> Subject:
        return PLAIN
