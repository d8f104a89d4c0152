"""The drivers that keep everything in a SQLite file."""

from __future__ import annotations

from pathlib import Path

from lapel.testing import ConfigurationSuite, LockSuite, PubSubSuite, StateSuite

COMPONENTS = Path(__file__).parent / "components"


class TestState(StateSuite):
    component = COMPONENTS / "state.sqlite.yaml"


class TestConfiguration(ConfigurationSuite):
    component = COMPONENTS / "configuration.sqlite.yaml"


class TestLock(LockSuite):
    component = COMPONENTS / "lock.sqlite.yaml"


class TestPubSub(PubSubSuite):
    component = COMPONENTS / "pubsub.sqlite.yaml"
