"""The fault suite of configuration stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from ...component import Component
from ...configuration import ConfigurationItem, ConfigurationStore
from ...descriptor import Capability
from ...policy import Effect
from ..configuration.base import SEED, ConfigurationBase, Inbox
from ..configuration.writers import ConfigurationWriter
from ..marks import needs, row
from ..proxy import FaultProxy
from ..subject import Subject
from .base import Request, new_name
from .cancellation import CancellationTests
from .connection import ConnectionTests

__all__ = ["ConfigurationFaultSuite"]


class ConfigurationFaultSuite(ConnectionTests, CancellationTests, ConfigurationBase):
    """What every configuration store must show when something breaks. Override the fixture `backend`.

    The option `writer` of the Conformance document names how items are changed, as for the conformance suite.
    """

    @pytest.fixture
    def writer(self, direct: Subject) -> ConfigurationWriter:
        """Return a way to change the items, past the proxy."""
        return self.writer_of(direct)

    @pytest.fixture(autouse=True)
    def _seeded(self, writer: ConfigurationWriter) -> None:
        writer.put({SEED: ConfigurationItem("seeded")})
        self._writer = writer

    @row("stricter-091")
    @needs(Capability.WATCH)
    @pytest.mark.parametrize("fault", ["cut", "black hole", "frozen"])
    async def test_changes_during_an_outage_are_delivered_after_it(
        self, impatient: Component[Any], writer: ConfigurationWriter, proxy: FaultProxy, fault: str
    ) -> None:
        store, inbox = cast("ConfigurationStore", impatient), Inbox()
        key, gone = new_name(), new_name()
        writer.put({key: ConfigurationItem("before", "1"), gone: ConfigurationItem("there")})
        await store.subscribe([key, gone], inbox)
        if fault == "cut":
            proxy.refuse()
            assert proxy.cut(), "the watcher has no connection to the backend"
        elif fault == "frozen":
            proxy.freeze()
        else:
            proxy.black_hole()
        for number in range(2, 6):
            writer.put({key: ConfigurationItem("during", str(number))})
        writer.remove([gone])
        assert inbox.events == [], "the fault did not hit: something was delivered"
        proxy.heal()
        await inbox.expect({key: ConfigurationItem("during", "5"), gone: ConfigurationItem("", deleted=True)})
        writer.put({key: ConfigurationItem("after", "6")})
        await inbox.expect({key: ConfigurationItem("after", "6")})
        versions = [int(event.items[key].version) for event in inbox.events if key in event.items]
        assert versions == sorted(set(versions)), "an old item came after a new one, or one came twice"

    def requests(self, component: Component[Any], behind: Component[Any], name: str) -> Sequence[Request]:
        """Return the call that reads."""
        store = cast("ConfigurationStore", component)

        async def get() -> None:
            assert {key: item.value for key, item in (await store.get([name])).items()} == {name: "value"}

        async def prepare() -> None:
            self._writer.put({name: ConfigurationItem("value")})

        return [Request(name="get", effect=Effect.SAFE, mark=name, prepare=prepare, send=get)]
