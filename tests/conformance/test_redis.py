"""The drivers that keep everything in Redis, on each of its shapes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from tests.backends.redis import RedisBackend

from lapel.testing import StateSuite
from lapel.testing.subject import Subject, read_components

COMPONENTS = Path(__file__).parent / "components"


class OnRedis:
    """Takes a component file and replaces the fields that say where the server is."""

    component: ClassVar[Path]
    backend: ClassVar[str]
    """The fixture of the backend."""
    _subject: ClassVar[Subject | None] = None

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest, folder: Path) -> Subject:
        """Return the component under test, the same object each time."""
        cls = type(self)
        if cls._subject is None:
            backend: RedisBackend = request.getfixturevalue(cls.backend)
            ((manifest, pins),) = read_components(cls.component, folder)
            cls._subject = Subject.from_manifest(manifest, pins).variant(backend.properties)
        assert cls._subject is not None
        return cls._subject


class TestState(OnRedis, StateSuite):
    component = COMPONENTS / "state.redis.yaml"
    backend = "redis_server"


class TestStateDocuments(OnRedis, StateSuite):
    component = COMPONENTS / "state.redis-stack.yaml"
    backend = "redis_stack"


class TestStateCluster(OnRedis, StateSuite):
    component = COMPONENTS / "state.redis-cluster.yaml"
    backend = "redis_cluster"


class TestStateSentinel(OnRedis, StateSuite):
    component = COMPONENTS / "state.redis-sentinel.yaml"
    backend = "redis_sentinel"
