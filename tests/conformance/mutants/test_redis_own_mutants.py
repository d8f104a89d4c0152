"""Wrong variants of the Redis drivers in what no other driver has: killed by the tests that right ones pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from tests.backends.redis import RedisBackend
from tests.backends.redis_fixtures import OwnRedis
from tests.conformance.mutants.test_redis_pubsub_mutants import OtherScripts
from tests.conformance.mutants.wrong_scripts import changed
from tests.unit import test_redis_configuration as configuration_checks
from tests.unit import test_redis_pubsub as checks

from lapel.driver import DriverContext
from lapel.testing import row
from lapel_contrib.redis import watching
from lapel_contrib.redis.pubsub import RedisPubSub
from lapel_contrib.redis.pubsub_scripts import ACK, EXTEND, HAND_BACK, REAP
from lapel_contrib.redis.pubsub_settings import RedisPubSubSettings

Check = Callable[..., Awaitable[None]]


class NeverTrims(RedisPubSub):
    def __init__(self, settings: RedisPubSubSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._max_len, self._keep_ms = (), 0


class AcknowledgesWhatIsNotItsOwn(OtherScripts):
    scripts: ClassVar = {ACK: changed(ACK, "if mine(ARGV[i]) then", "if true then")}


class TakesBackWhatOthersTook(OtherScripts):
    scripts: ClassVar = {EXTEND: changed(EXTEND, "if mine(ARGV[i]) then", "if true then")}


class CountsItsHeartbeats(OtherScripts):
    scripts: ClassVar = {EXTEND: changed(EXTEND, ", 'JUSTID')", ")")}


class LeavesItsNameBehind(OtherScripts):
    scripts: ClassVar = {HAND_BACK: changed(HAND_BACK, "redis.call('XGROUP', 'DELCONSUMER', stream, group, me)", "")}


class ReapsTheLiving(OtherScripts):
    scripts: ClassVar = {REAP: changed(REAP, "if ours and consumer.pending == 0 and", "if")}


CASES: list[tuple[type[RedisPubSub], Check]] = [
    (NeverTrims, checks.test_maxlenapprox_trims_when_publishing),
    (NeverTrims, checks.test_streamttl_trims_when_publishing),
    (AcknowledgesWhatIsNotItsOwn, checks.test_a_stolen_message_is_lost_and_its_settlement_changes_nothing),
    (TakesBackWhatOthersTook, checks.test_a_stolen_message_is_not_taken_back_by_extending_its_lease),
    (CountsItsHeartbeats, checks.test_a_lease_that_is_extended_is_not_counted),
    (LeavesItsNameBehind, checks.test_a_consumer_leaves_no_name_behind_and_hands_back),
    (ReapsTheLiving, checks.test_the_reaper_takes_idle_consumers_of_ours_that_hold_nothing),
]


@pytest.fixture
async def opener(redis_server: RedisBackend) -> AsyncIterator[Callable[[type[RedisPubSub]], Any]]:
    async with AsyncExitStack() as stack:

        def of(driver_class: type[RedisPubSub]) -> Any:
            async def open_driver(**fields: str) -> RedisPubSub:
                settings = RedisPubSubSettings.parse({**redis_server.properties, **fields})
                driver = driver_class(settings, DriverContext(component="bus"))
                await driver.open()
                stack.push_async_callback(driver.close)
                return driver

            return open_driver

        yield of


@row("stricter-140")
@pytest.mark.parametrize(
    ("wrong", "check"), CASES, ids=[f"{wrong.__name__}-{check.__name__[5:40]}" for wrong, check in CASES]
)
async def test_a_wrong_redis_consumer_is_caught(
    opener: Any, redis_server: RedisBackend, monkeypatch: pytest.MonkeyPatch, wrong: type[RedisPubSub], check: Check
) -> None:
    def arguments(driver: type[RedisPubSub]) -> dict[str, Any]:
        given = {"opener": opener(driver), "redis_server": redis_server, "topic": f"own-{uuid4().hex}"}
        return {**given, "monkeypatch": monkeypatch} if "monkeypatch" in check.__annotations__ else given

    await check(**arguments(RedisPubSub))
    with pytest.raises((AssertionError, TimeoutError)):
        await check(**arguments(wrong))


@row("stricter-140")
async def test_flags_that_are_overwritten_are_noticed(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    check = configuration_checks.test_subscribing_keeps_what_the_server_notifies_of_already
    await check(own_redis)
    monkeypatch.setattr(watching, "merge_flags", lambda present: watching.NEEDED)
    with pytest.raises(AssertionError):
        await check(own_redis)
