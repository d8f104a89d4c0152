"""The fault suites on the five Redis drivers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.backends.redis_fixtures import OwnRedis
from tests.backends.redis_node import RedisOptions
from tests.conformance.redis_subject import COMPONENTS

from lapel.testing import (
    BindingFaultSuite,
    ConfigurationFaultSuite,
    FaultBackend,
    LockFaultSuite,
    PubSubFaultSuite,
    StateFaultSuite,
)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


class OnRedis:
    """Puts the suite on a server of its own that keeps its data."""

    @pytest.fixture
    def backend(self, own_redis: OwnRedis) -> FaultBackend:
        # With the default user off, Redis 7.0 refuses to load what scripts wrote: it replays them as that user.
        options = RedisOptions(persistent=True, auth="password", settings={"appendfsync": "always"})
        server = own_redis.server(options)

        def fields(host: str, port: int) -> Mapping[str, Any]:
            return {**server.properties, "redisHost": f"{host}:{port}", "readTimeout": "2s"}

        def restart() -> None:
            server.kill()
            server.start()

        return FaultBackend(host=server.host, port=server.port, fields=fields, restart=restart)


class TestState(OnRedis, StateFaultSuite):
    component = COMPONENTS / "state.redis.yaml"


class TestPubSub(OnRedis, PubSubFaultSuite):
    component = COMPONENTS / "pubsub.redis.yaml"


class TestConfiguration(OnRedis, ConfigurationFaultSuite):
    component = COMPONENTS / "configuration.redis.yaml"


class TestLock(OnRedis, LockFaultSuite):
    component = COMPONENTS / "lock.redis.yaml"


class TestBinding(OnRedis, BindingFaultSuite):
    component = COMPONENTS / "bindings.redis.yaml"
