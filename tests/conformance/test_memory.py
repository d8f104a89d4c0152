"""The drivers that keep everything in memory."""

from __future__ import annotations

from pathlib import Path

from lapel.testing import LockSuite, PubSubSuite, StateSuite

COMPONENTS = Path(__file__).parent / "components"


class TestState(StateSuite):
    component = COMPONENTS / "state.in-memory.yaml"


class TestLock(LockSuite):
    component = COMPONENTS / "lock.in-memory.yaml"


class TestPubSub(PubSubSuite):
    component = COMPONENTS / "pubsub.in-memory.yaml"
