"""Wrong brokers: each is killed by the row it names, while the right one passes that row."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec
import pytest

from lapel.errors import ThrottledError
from lapel.pubsub import Consumer, Delivery, PublishRequest, Settled, Settlement, SubscribeRequest
from lapel.testing import Mutant, Pins, PubSubSuite, assert_killed, judge, row
from lapel.testing.pubsub import base, consumer
from lapel.testing.report import ComponentReport
from lapel_contrib.memory.groups import Group, PlainGroup
from lapel_contrib.memory.pubsub import MemoryPubSub
from lapel_contrib.memory.settings import MemoryPubSubSettings

# The first test runs all mutants.
pytestmark = pytest.mark.timeout(240)

LIMIT = 200
PINS = Pins(
    options={
        "pendingLimit": str(LIMIT),
        "wildcards": [{"pattern": "TOPIC*", "matching": ["TOPIC-a"], "strangers": ["TOPIC", "x-TOPIC"]}],
    }
)


class Wrapped(Consumer):
    """Passes everything on."""

    def __init__(self, inner: Consumer) -> None:
        self.inner = inner

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        return await self.inner.receive(max_messages, max_wait)

    async def settle(self, settled: Sequence[Settled]) -> None:
        await self.inner.settle(settled)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self.inner.release(deliveries)

    async def pause(self) -> None:
        await self.inner.pause()

    async def resume(self) -> None:
        await self.inner.resume()

    async def lag(self) -> int | None:
        return await self.inner.lag()

    async def close(self) -> None:
        await self.inner.close()


class WithConsumer(MemoryPubSub):
    consumer: type[Wrapped]

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        return self.consumer(await super().subscribe(request))


class ForgetsWhatIsReleased(WithConsumer):
    class consumer(Wrapped):  # noqa: N801  # an attribute of its driver
        async def release(self, deliveries: Sequence[Delivery]) -> None:
            await self.inner.settle([Settled(delivery, Settlement.ACK) for delivery in deliveries])


class CountsWhatIsReleased(WithConsumer):
    class consumer(Wrapped):  # noqa: N801
        async def release(self, deliveries: Sequence[Delivery]) -> None:
            await self.inner.settle([Settled(delivery, Settlement.RETRY) for delivery in deliveries])


class SettlesOnReceive(WithConsumer):
    class consumer(Wrapped):  # noqa: N801
        async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
            taken = await self.inner.receive(max_messages, max_wait)
            await self.inner.settle([Settled(delivery, Settlement.ACK) for delivery in taken])
            return taken


class NeverSettles(WithConsumer):
    class consumer(Wrapped):  # noqa: N801
        async def settle(self, settled: Sequence[Settled]) -> None:
            await self.inner.settle([item for item in settled if item.settlement is not Settlement.ACK])


class LosesWhatARetryAsksFor(WithConsumer):
    class consumer(Wrapped):  # noqa: N801
        async def settle(self, settled: Sequence[Settled]) -> None:
            await self.inner.settle([Settled(item.delivery, Settlement.ACK) for item in settled])


class DoesNotCountRetries(WithConsumer):
    class consumer(Wrapped):  # noqa: N801
        async def settle(self, settled: Sequence[Settled]) -> None:
            for item in settled:
                if item.settlement is Settlement.RETRY:
                    await self.inner.release([item.delivery])
                else:
                    await self.inner.settle([item])


class RetriesAtOnce(WithConsumer):
    class consumer(Wrapped):  # noqa: N801
        async def settle(self, settled: Sequence[Settled]) -> None:
            await self.inner.settle([Settled(item.delivery, item.settlement) for item in settled])


class TurnsBatchesAround(WithConsumer):
    class consumer(Wrapped):  # noqa: N801
        async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
            return list(reversed(await self.inner.receive(max_messages, max_wait)))


class LosesWhatACancelledReceiveTook(WithConsumer):
    class consumer(Wrapped):  # noqa: N801
        async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
            taken = await self.inner.receive(max_messages, max_wait)
            await asyncio.sleep(0)
            return taken


class TakesMessagesWhilePaused(WithConsumer):
    class consumer(Wrapped):  # noqa: N801
        async def pause(self) -> None:
            pass


class ArmsWithTheFirstReceive(MemoryPubSub):
    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        return Late(self, request)


class Late(Wrapped):
    def __init__(self, driver: MemoryPubSub, request: SubscribeRequest) -> None:
        self.driver = driver
        self.request = request
        self.armed = False

    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        if not self.armed:
            self.armed = True
            self.inner = await MemoryPubSub.subscribe(self.driver, self.request)
        return await self.inner.receive(max_messages, max_wait)

    async def lag(self) -> int | None:
        return await self.inner.lag() if self.armed else 0

    async def close(self) -> None:
        if self.armed:
            await self.inner.close()


class PublishesTwice(MemoryPubSub):
    async def publish(self, request: PublishRequest) -> None:
        await super().publish(request)
        await super().publish(request)


class GivesEveryMemberAll(MemoryPubSub):
    members = 0

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        self.members += 1
        return await super().subscribe(msgspec.structs.replace(request, group=f"{request.group}{self.members}"))


class HasOneGroupForAll(MemoryPubSub):
    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        return await super().subscribe(msgspec.structs.replace(request, group="all"))


class IgnoresLifetimes(MemoryPubSub):
    async def publish(self, request: PublishRequest) -> None:
        await super().publish(msgspec.structs.replace(request, ttl=None))


class IgnoresDelays(MemoryPubSub):
    async def publish(self, request: PublishRequest) -> None:
        await super().publish(msgspec.structs.replace(request, delay=None))


class DropsAttributes(MemoryPubSub):
    async def publish(self, request: PublishRequest) -> None:
        await super().publish(msgspec.structs.replace(request, metadata={}))


class DropsContentTypes(MemoryPubSub):
    async def publish(self, request: PublishRequest) -> None:
        await super().publish(msgspec.structs.replace(request, content_type=None))


class ConfirmsWhatItDidNotTake(MemoryPubSub):
    async def publish(self, request: PublishRequest) -> None:
        with suppress(ThrottledError):
            await super().publish(request)


class StoresWhatWasCancelled(MemoryPubSub):
    async def publish(self, request: PublishRequest) -> None:
        await asyncio.shield(asyncio.ensure_future(super().publish(request)))


class KnowsNoOrder(MemoryPubSub):
    def _group(self, request: SubscribeRequest) -> Group:
        return PlainGroup(request.topic, self.settings.max_pending)


class NamesThePatternInsteadOfTheTopic(WithConsumer):
    class consumer(Wrapped):  # noqa: N801
        async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
            taken = await self.inner.receive(max_messages, max_wait)
            for delivery in taken:
                delivery.topic = delivery.topic.removesuffix("-a")
            return taken


class MatchesTheBarePrefix(MemoryPubSub):
    def _group(self, request: SubscribeRequest) -> Group:
        group = super()._group(request)
        matches = group.matches
        prefix = request.topic.removesuffix("*")
        setattr(group, "matches", lambda topic: topic == prefix or matches(topic))  # noqa: B010  # mypy forbids the plain form
        return group


MUTANTS = [
    Mutant(ForgetsWhatIsReleased, "stricter-036"),
    Mutant(CountsWhatIsReleased, "stricter-052"),
    Mutant(SettlesOnReceive, "stricter-036"),
    Mutant(NeverSettles, "PS-07"),
    Mutant(LosesWhatARetryAsksFor, "PS-02"),
    Mutant(DoesNotCountRetries, "stricter-035"),
    Mutant(RetriesAtOnce, "stricter-035"),
    Mutant(TurnsBatchesAround, "stricter-034"),
    Mutant(KnowsNoOrder, "stricter-034"),
    Mutant(LosesWhatACancelledReceiveTook, "stricter-130"),
    Mutant(TakesMessagesWhilePaused, "stricter-056"),
    Mutant(ArmsWithTheFirstReceive, "stricter-055"),
    Mutant(PublishesTwice, "PS-09"),
    Mutant(GivesEveryMemberAll, "stricter-038"),
    Mutant(HasOneGroupForAll, "stricter-038"),
    Mutant(IgnoresLifetimes, "stricter-049"),
    Mutant(IgnoresDelays, "stricter-049"),
    Mutant(DropsAttributes, "stricter-046"),
    Mutant(DropsContentTypes, "stricter-044"),
    Mutant(ConfirmsWhatItDidNotTake, "stricter-053"),
    Mutant(StoresWhatWasCancelled, "stricter-053"),
    Mutant(NamesThePatternInsteadOfTheTopic, "stricter-050"),
    Mutant(MatchesTheBarePrefix, "stricter-050"),
]


@pytest.fixture(scope="module")
def outcomes() -> Mapping[str, ComponentReport]:
    settings = MemoryPubSubSettings.parse({"maxPendingMessages": str(LIMIT)})
    with pytest.MonkeyPatch.context() as impatient:
        # Most mutants are killed by a message that never comes.
        impatient.setattr(base, "WAIT_SECONDS", 1.5)
        impatient.setattr(consumer, "PATIENCE", 1.5)
        return judge(PubSubSuite, MemoryPubSub, settings, MUTANTS, pins=PINS)


@row("stricter-140")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.id}-{mutant.row}")
def test_a_wrong_broker_is_caught(outcomes: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(outcomes, mutant)
