"""Pub/sub components to test with: one whose driver records what it is given, and one that works in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

from lapel.component import ComponentOptions
from lapel.descriptor import Capability, Descriptor, Kind, Limits
from lapel.driver import DriverContext
from lapel.errors import LapelError, UnavailableError
from lapel.pubsub import (
    BulkPublishRequest,
    Consumer,
    PublishRequest,
    PubSub,
    PubSubDriver,
    PubSubSettings,
    SubscribeRequest,
)
from lapel_contrib.memory.pubsub import MemoryPubSub
from lapel_contrib.memory.settings import MemoryPubSubSettings

# The first use of a settings class compiles it, which reads files; components do that off the loop.
PubSubSettings()
MemoryPubSubSettings()
NOTHING = Capability(0)


class Recorder(PubSubDriver[PubSubSettings]):
    """Keeps what it is given."""

    descriptor: ClassVar[Descriptor] = Descriptor(
        kind=Kind.PUBSUB, name="recorder", driver="", settings="", summary="", limits=Limits(value_bytes=10_000)
    )

    def __init__(self, capabilities: Capability = NOTHING, app_id: str | None = None, **fields: Any) -> None:
        super().__init__(PubSubSettings(**fields), DriverContext(component="bus", app_id=app_id))
        self._capabilities = capabilities
        self.requests: list[PublishRequest] = []
        self.bulks: list[BulkPublishRequest] = []
        self.subscribed: list[SubscribeRequest] = []
        self.failure: Exception | None = None

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def publish(self, request: PublishRequest) -> None:
        if request.topic == "slow":
            await asyncio.sleep(1000)
        if self.failure:
            raise self.failure
        self.requests.append(request)

    async def bulk_publish(self, request: BulkPublishRequest) -> Sequence[LapelError | None]:
        self.bulks.append(request)
        return [UnavailableError("full") if entry.data == b"x" else None for entry in request.entries]

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        self.subscribed.append(request)
        raise self.failure or UnavailableError("not here")

    @property
    def last(self) -> PublishRequest:
        return self.requests[-1]


def recording(
    capabilities: Capability = NOTHING, *, app_id: str | None = None, envelope: bool = True, **fields: Any
) -> tuple[PubSub, Recorder]:
    driver = Recorder(capabilities, app_id, **fields)
    return PubSub(driver, options=ComponentOptions(app_id=app_id, envelope=envelope)), driver


def memory(name: str = "bus", *, options: ComponentOptions | None = None, **fields: Any) -> PubSub:
    return PubSub(MemoryPubSub(MemoryPubSubSettings(**fields), DriverContext(component=name)), options=options)
