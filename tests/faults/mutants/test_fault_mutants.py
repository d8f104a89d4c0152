"""Wrong drivers: each is killed by the fault that it does not survive, while the right one passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.backends.redis import RedisServer
from tests.backends.redis_fixtures import OwnRedis
from tests.backends.redis_node import RedisOptions
from tests.conformance.redis_subject import COMPONENTS
from tests.faults.mutants import plain_redis, redis_kinds

from lapel.driver import Driver
from lapel.testing import (
    BindingFaultSuite,
    ConfigurationFaultSuite,
    FaultBackend,
    LockFaultSuite,
    Mutant,
    PubSubFaultSuite,
    StateFaultSuite,
    SuiteBase,
    assert_killed,
    judge_classes,
    row,
)
from lapel.testing.configuration import base as configuration_base
from lapel.testing.faults import base
from lapel.testing.pubsub import base as pubsub_base
from lapel.testing.report import ComponentReport
from lapel_contrib.redis.binding import RedisBinding
from lapel_contrib.redis.configuration import RedisConfiguration
from lapel_contrib.redis.lock import RedisLock
from lapel_contrib.redis.pubsub import RedisPubSub

# The module's fixture runs many suites.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PATIENCE = 6.0
LOST, NEVER_ARRIVED, FROZEN, RESTART, NETWORK, CANCELLED = (
    "stricter-141",
    "stricter-142",
    "stricter-131",
    "stricter-132",
    "stricter-133",
    "stricter-143",
)

SUITES: Sequence[tuple[type[SuiteBase], Path, type[Driver[Any]], Sequence[Mutant]]] = [
    (
        StateFaultSuite,
        COMPONENTS / "state.redis.yaml",
        plain_redis.PlainState,
        [
            Mutant(plain_redis.SendsWritesAgain, LOST),
            Mutant(plain_redis.SaysThatNothingWasDone, LOST),
            Mutant(plain_redis.TakesTheLossForDone, NEVER_ARRIVED),
            Mutant(plain_redis.DoesNotSayWhy, RESTART),
            Mutant(plain_redis.StaysOutOfStep, CANCELLED),
            Mutant(plain_redis.NeverConnectsAgain, NETWORK),
            Mutant(plain_redis.WaitsTooLong, FROZEN),
            Mutant(plain_redis.TakesAPacketForAReply, NETWORK),
        ],
    ),
    (
        PubSubFaultSuite,
        COMPONENTS / "pubsub.redis.yaml",
        RedisPubSub,
        [
            Mutant(redis_kinds.PublishesAgain, LOST),
            Mutant(redis_kinds.ReadsWithoutRecord, NETWORK),
            Mutant(redis_kinds.StartsAtTheEndAgain, "stricter-054"),
        ],
    ),
    (
        LockFaultSuite,
        COMPONENTS / "lock.redis.yaml",
        RedisLock,
        [
            Mutant(redis_kinds.TakesTheLockAgain, LOST),
            Mutant(redis_kinds.ForgetsLocksWithItsServer, "stricter-102"),
        ],
    ),
    (
        ConfigurationFaultSuite,
        COMPONENTS / "configuration.redis.yaml",
        RedisConfiguration,
        [
            Mutant(redis_kinds.GivesUpReading, LOST),
            Mutant(redis_kinds.IsDeafAfterAnOutage, "stricter-091"),
        ],
    ),
    (
        BindingFaultSuite,
        COMPONENTS / "bindings.redis.yaml",
        RedisBinding,
        [Mutant(redis_kinds.CreatesAgain, LOST)],
    ),
]
CASES = [(number, mutant) for number, (*_, mutants) in enumerate(SUITES) for mutant in mutants]


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    own = OwnRedis(pytestconfig)
    options = RedisOptions(persistent=True, auth="password", settings={"appendfsync": "always"})
    yield own.server(options)
    own.close()


@pytest.fixture(scope="module")
def judged(server: RedisServer) -> Mapping[int, Mapping[str, ComponentReport]]:
    def fields(host: str, port: int) -> dict[str, str]:
        return {**server.properties, "redisHost": f"{host}:{port}", "readTimeout": "2s"}

    @pytest.fixture
    def backend(self: SuiteBase) -> FaultBackend:
        return FaultBackend(host=server.host, port=server.port, fields=fields, restart=server.restart)

    outcomes: dict[int, Mapping[str, ComponentReport]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "PATIENCE", PATIENCE)
        patch.setattr(pubsub_base, "WAIT_SECONDS", PATIENCE)
        patch.setattr(configuration_base, "PATIENCE", PATIENCE)
        for number, (suite, component, original, mutants) in enumerate(SUITES):

            def make(
                name: str,
                driver: type[Driver[Any]],
                suite: type[SuiteBase] = suite,
                component: Path = component,
                observer: type[Driver[Any]] = original,
            ) -> type[SuiteBase]:
                members = {"component": component, "replacement": driver, "observer": observer, "backend": backend}
                return type(name, (suite,), {**members, "__module__": "lapel_mutants"})

            outcomes[number] = judge_classes(make, original, mutants)
    return outcomes


@row("stricter-140")
@pytest.mark.parametrize(("number", "mutant"), CASES, ids=[f"{mutant.id}-{mutant.row}" for _, mutant in CASES])
def test_a_driver_that_does_not_survive_a_fault_is_caught(
    judged: Mapping[int, Mapping[str, ComponentReport]], number: int, mutant: Mutant
) -> None:
    assert_killed(judged[number], mutant)
