"""What the tests of the RabbitMQ drivers share: components on a broker, and a look behind their back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiormq
from aiormq.channel import Channel
from tests.backends.rabbitmq import RabbitBackend

from lapel.bindings import BindingDriver
from lapel.delivery import Delivery, Ordering
from lapel.driver import DriverContext, SharedClients
from lapel.pubsub import PubSub
from lapel.pubsub.types import SubscribeRequest
from lapel_contrib.rabbitmq.binding import RabbitBinding
from lapel_contrib.rabbitmq.binding_settings import RabbitBindingSettings
from lapel_contrib.rabbitmq.pubsub import RabbitPubSub
from lapel_contrib.rabbitmq.pubsub_settings import RabbitPubSubSettings

__all__ = ["Broker", "received", "request", "until"]

PATIENCE = 20.0
KEPT = {"deletedWhenUnused": "false"}


class Broker:
    """A broker, and names that no other test uses."""

    def __init__(self, backend: RabbitBackend) -> None:
        self.backend = backend
        self.topic = f"t-{uuid.uuid4().hex[:12]}"

    def driver(self, **fields: str) -> RabbitPubSub:
        """Return a new driver; queues stay unless `fields` say otherwise."""
        settings = RabbitPubSubSettings.parse({**self.backend.properties, **KEPT, "consumerID": "shop", **fields})
        return RabbitPubSub(settings, DriverContext(component="bus"))

    @asynccontextmanager
    async def bus(self, **fields: str) -> AsyncIterator[PubSub]:
        """Open a pub/sub component."""
        async with PubSub(self.driver(**fields)) as bus:
            yield bus

    def binding(self, shared: SharedClients | None = None, **fields: str) -> BindingDriver[Any]:
        """Return a new binding driver on a queue of this test's own."""
        settings = RabbitBindingSettings.parse({**self.backend.properties, "queueName": self.topic, **fields})
        return RabbitBinding(settings, DriverContext(component="work", shared=shared or SharedClients()))

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Channel]:
        """Open a channel of the test's own."""
        address = self.backend.address
        context = None if address.tls is None else address.tls.context()
        async with aiormq.connect(address.amqp, context=context) as connection:
            channel = await connection.channel()
            assert isinstance(channel, Channel)
            yield channel

    async def counts(self, queue: str) -> tuple[int, int]:
        """Return how many messages wait in a queue, and how many consumers it has."""
        async with self.channel() as channel:
            found = await channel.queue_declare(queue, passive=True)
            return found.message_count or 0, found.consumer_count or 0


def request(topic: str, **changes: Any) -> SubscribeRequest:
    """Return the request for a subscription without an order."""

    async def revoked(deliveries: Any, seconds: float) -> None:
        raise AssertionError("RabbitMQ revokes nothing")

    terms: dict[str, Any] = {"group": "shop", "ordering": Ordering.NONE, "prefetch": 10, "metadata": {}, **changes}
    return SubscribeRequest(topic, terms["group"], terms["ordering"], terms["prefetch"], revoked, terms["metadata"])


async def received(consumer: Any, count: int = 1) -> list[Delivery]:
    """Return so many deliveries."""
    got: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < count:
            got += await consumer.receive(count - len(got), 5.0)
    return got


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition, which may be a coroutine function."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if found if not asyncio.iscoroutine(found) else await found:
                return
            await asyncio.sleep(0.05)
    raise AssertionError(what)
