"""pubsub.rabbitmq and bindings.rabbitmq on a real broker."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from tests.backends.rabbitmq import RabbitBackend

from lapel.testing import BindingSuite, PubSubSuite
from lapel.testing.subject import Subject, read_components

COMPONENTS = Path(__file__).parent / "components"


class OnRabbit:
    """Takes a component file and replaces the fields that say where the broker is."""

    component: ClassVar[Path]
    backend: ClassVar[str] = "rabbitmq_server"
    """The fixture of the backend."""
    _subject: ClassVar[Subject | None] = None

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest, folder: Path) -> Subject:
        """Return the component under test, the same object each time."""
        cls = type(self)
        if cls._subject is None:
            backend: RabbitBackend = request.getfixturevalue(cls.backend)
            ((manifest, pins),) = read_components(cls.component, folder)
            cls._subject = Subject.from_manifest(manifest, pins).variant(backend.properties)
        assert cls._subject is not None
        return cls._subject


class TestPubSub(OnRabbit, PubSubSuite):
    component = COMPONENTS / "pubsub.rabbitmq.yaml"


class TestPubSubQuorum(OnRabbit, PubSubSuite):
    component = COMPONENTS / "pubsub.rabbitmq-quorum.yaml"


class TestPubSubPriorities(OnRabbit, PubSubSuite):
    component = COMPONENTS / "pubsub.rabbitmq-priorities.yaml"


class TestPubSubAutoDelete(OnRabbit, PubSubSuite):
    component = COMPONENTS / "pubsub.rabbitmq-auto-delete.yaml"


class TestPubSubTls(OnRabbit, PubSubSuite):
    component = COMPONENTS / "pubsub.rabbitmq.yaml"
    backend = "rabbitmq_tls"


class TestBinding(OnRabbit, BindingSuite):
    component = COMPONENTS / "bindings.rabbitmq.yaml"
