"""pubsub.kafka and bindings.kafka on a real broker."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from tests.backends.kafka import KafkaBackend

from lapel.testing import BindingSuite, PubSubSuite
from lapel.testing.subject import Subject, read_components

COMPONENTS = Path(__file__).parent / "components"


class OnKafka:
    """Takes a component file and replaces the fields that say where the brokers are."""

    component: ClassVar[Path]

    @pytest.fixture
    def subject(self, kafka_server: KafkaBackend, folder: Path) -> Subject:
        """Return the component under test. A binding has a topic and a group of its own in each test."""
        ((manifest, pins),) = read_components(self.component, folder)
        subject = Subject.from_manifest(manifest, pins).variant(kafka_server.properties)
        assert subject is not None
        return subject


class TestPubSub(OnKafka, PubSubSuite):
    component = COMPONENTS / "pubsub.kafka.yaml"


class TestBinding(OnKafka, BindingSuite):
    component = COMPONENTS / "bindings.kafka.yaml"
