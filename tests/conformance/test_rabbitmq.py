"""pubsub.rabbitmq and bindings.rabbitmq on a real broker."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import ClassVar

import pytest
from tests.backends.rabbitmq import RabbitBackend

from lapel.testing import BindingSuite, PubSubSuite
from lapel.testing.subject import Subject, read_components

COMPONENTS = Path(__file__).parent / "components"


class OnRabbit:
    """Takes a component file and replaces the fields that say where the broker is.

    `own_queue`: each test has a queue of its own, which holds nothing that others left.
    """

    component: ClassVar[Path]
    backend: ClassVar[str] = "rabbitmq_server"
    """The fixture of the backend."""
    own_queue: ClassVar[bool] = False
    _subject: ClassVar[Subject | None] = None

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest, folder: Path) -> Subject:
        """Return the component under test, the same object each time."""
        cls = type(self)
        if cls._subject is None:
            backend: RabbitBackend = request.getfixturevalue(cls.backend)
            ((manifest, pins),) = read_components(cls.component, folder)
            cls._subject = Subject.from_manifest(manifest, pins).variant(backend.properties)
        found = cls._subject
        assert found is not None
        if cls.own_queue:
            found = found.variant({"queueName": f"work-{uuid.uuid4()}"})
            assert found is not None
        return found


class TestPubSub(OnRabbit, PubSubSuite):
    component = COMPONENTS / "pubsub.rabbitmq.yaml"


class TestPubSubQuorum(OnRabbit, PubSubSuite):
    component = COMPONENTS / "pubsub.rabbitmq-quorum.yaml"


class TestPubSubPriorities(OnRabbit, PubSubSuite):
    component = COMPONENTS / "pubsub.rabbitmq-priorities.yaml"


class TestPubSubAutoDelete(OnRabbit, PubSubSuite):
    component = COMPONENTS / "pubsub.rabbitmq-auto-delete.yaml"


class TestBinding(OnRabbit, BindingSuite):
    component = COMPONENTS / "bindings.rabbitmq.yaml"
    own_queue = True
