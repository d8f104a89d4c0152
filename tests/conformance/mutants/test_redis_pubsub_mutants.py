"""Wrong variants of pubsub.redis: each is killed by the row it names, while the right one passes that row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
import pytest
from tests.backends.redis import RedisBackend
from tests.conformance.mutants.wrong_scripts import changed, with_scripts
from tests.conformance.redis_subject import COMPONENTS

from lapel.delivery import Consumer, Delivery
from lapel.pubsub.types import PublishRequest, SubscribeRequest
from lapel.testing import Mutant, PubSubSuite, assert_killed, judge, row
from lapel.testing.pubsub import base
from lapel.testing.report import ComponentReport
from lapel.testing.subject import read_components
from lapel_contrib.redis.client import RedisClient
from lapel_contrib.redis.pubsub import RedisPubSub
from lapel_contrib.redis.pubsub_consumer import RedisConsumer
from lapel_contrib.redis.pubsub_scripts import ARM, HAND_BACK, RECLAIM
from lapel_contrib.redis.pubsub_settings import RedisPubSubSettings
from lapel_contrib.redis.scripts import Script


class OtherScripts(RedisPubSub):
    """Runs other scripts."""

    scripts: ClassVar[Mapping[Script, Script]]

    def _opened(self) -> RedisClient:
        return with_scripts(super()._opened(), self.scripts)


class OtherConsumer(RedisPubSub):
    """Consumes in another way."""

    consumer: ClassVar[type[RedisConsumer]]

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        consumer = await super().subscribe(request)
        consumer.__class__ = self.consumer
        return consumer


class StartsNewGroupsAtTheEnd(OtherScripts):
    scripts: ClassVar = {ARM: changed(ARM, "ARGV[1], '0'", "ARGV[1], '$'")}


class CountsEachDeliveryAsTheFirst(OtherScripts):
    scripts: ClassVar = {RECLAIM: changed(RECLAIM, "item[4] + 1", "1")}


class CountsWhatItHandsBack(OtherScripts):
    scripts: ClassVar = {HAND_BACK: changed(HAND_BACK, "math.max(item[4] - 1, 0)", "item[4]")}


class _AcknowledgesFirst(RedisConsumer):
    async def receive(self, max_messages: int, max_wait: float) -> Sequence[Delivery]:
        taken = await super().receive(max_messages, max_wait)
        if taken:
            ids = [delivery.handle.id for delivery in taken]
            await self._client.call("XACK", self.terms.topic, self.terms.group, *ids, key=self.terms.topic)
        return taken


class AcknowledgesBeforeTheHandler(OtherConsumer):
    consumer = _AcknowledgesFirst


class _LetsLeasesRunOut(RedisConsumer):
    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return []


class LetsLeasesRunOut(OtherConsumer):
    consumer = _LetsLeasesRunOut


class _HandsNothingBack(RedisConsumer):
    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._claims.held.pop(delivery.handle.id, None)


class HandsNothingBack(OtherConsumer):
    consumer = _HandsNothingBack


class _DoesNotPause(RedisConsumer):
    async def pause(self) -> None:
        pass


class DoesNotPause(OtherConsumer):
    consumer = _DoesNotPause


class GivesEachSubscriptionAll(RedisPubSub):
    subscriptions = 0

    async def subscribe(self, request: SubscribeRequest) -> Consumer:
        self.subscriptions += 1
        return await super().subscribe(msgspec.structs.replace(request, group=f"{request.group}{self.subscriptions}"))


class LosesAttributes(RedisPubSub):
    async def publish(self, request: PublishRequest) -> None:
        await super().publish(msgspec.structs.replace(request, metadata={}))


# The module's fixture runs many suites, and leases run out in real time.
pytestmark = pytest.mark.timeout(300)

MUTANTS = [
    Mutant(StartsNewGroupsAtTheEnd, "stricter-055"),
    Mutant(CountsEachDeliveryAsTheFirst, "stricter-051"),
    Mutant(CountsWhatItHandsBack, "stricter-052"),
    Mutant(AcknowledgesBeforeTheHandler, "stricter-035"),
    Mutant(LetsLeasesRunOut, "stricter-057"),
    Mutant(HandsNothingBack, "stricter-052"),
    Mutant(DoesNotPause, "stricter-056"),
    Mutant(GivesEachSubscriptionAll, "stricter-038"),
    Mutant(LosesAttributes, "stricter-044"),
]


@pytest.fixture(scope="module")
def outcomes(redis_server: RedisBackend) -> Mapping[str, ComponentReport]:
    ((manifest, pins),) = read_components(COMPONENTS / "pubsub.redis.yaml")
    fields = {item.name: str(item.value) for item in manifest.metadata}
    settings = RedisPubSubSettings.parse({**fields, **redis_server.properties})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "WAIT_SECONDS", 5.0)
        return judge(PubSubSuite, RedisPubSub, settings, MUTANTS, pins=pins)


@row("stricter-140")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.id}-{mutant.row}")
def test_a_wrong_redis_broker_is_caught(outcomes: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(outcomes, mutant)
