"""What the tests of configuration stores have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from ...component import Component
from ...configuration import ConfigurationDriver, ConfigurationEvent, ConfigurationItem, ConfigurationStore
from ...descriptor import Capability, Kind
from ..harness import ComponentHooks, Operations
from ..lifecycle import wait_until
from ..subject import Subject
from .writers import ConfigurationWriter

__all__ = ["ConfigurationBase", "Inbox", "eventually"]

PATIENCE = 30.0
"""How long a test waits, in seconds, for an event."""

SEED = "conformance-seed"


class ConfigurationBase(ComponentHooks):
    """Fixtures and hooks of the configuration suite."""

    kind = Kind.CONFIGURATION
    front = ConfigurationStore
    driver_base = ConfigurationDriver
    options: ClassVar[Mapping[str, Any]] = {
        **ComponentHooks.options,
        "emptyValues": "true",
        "metadata": "true",
        "versionBars": "true",
        "writer": "",
    }
    methods = {Capability.WATCH: ("watch",)}  # noqa: RUF012  # declared as a ClassVar by the base class

    @pytest.fixture
    def store(self, opened: Component[Any]) -> ConfigurationStore:
        """Return an open store."""
        return cast("ConfigurationStore", opened)

    @pytest.fixture
    def writer(self, subject: Subject) -> ConfigurationWriter:
        """Return a way to change the items."""
        return self.writer_of(subject)

    def writer_of(self, subject: Subject) -> ConfigurationWriter:
        """Return what the option `writer` names, as `module:Class`."""
        module, _, name = str(self.option(subject, "writer")).partition(":")
        if not module:
            pytest.fail("name a `writer`, as `module:Class`, in the options of the Conformance document")
        made: ConfigurationWriter = getattr(import_module(module), name)(subject.driver().settings)
        return made

    def metadata(self, subject: Subject, **metadata: str) -> Mapping[str, str]:
        """Return these metadata of an item, or none where the store keeps none."""
        return metadata if self.option(subject, "metadata") == "true" else {}

    def _read(self, folder: Path) -> Subject:
        subject = super()._read(folder)
        self.writer_of(subject).put({SEED: ConfigurationItem("seeded")})
        return subject

    async def exercise(self, component: Component[Any], payload: str) -> None:
        """Read an item that is always there and one that never is."""
        found = await cast("ConfigurationStore", component).get([f"missing-{hash(payload):x}", SEED])
        assert {key: item.value for key, item in found.items()} == {SEED: "seeded"}

    def operations(self, component: Component[Any], payload: str) -> Operations:
        """Return all operations that the store offers."""
        store = cast("ConfigurationStore", component)
        offered: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: store.get([SEED]),
            "get all": store.get,
        }
        if Capability.WATCH in store.capabilities:

            async def subscribe() -> None:
                await store.unsubscribe(await store.subscribe([], Inbox()))

            offered["subscribe"] = subscribe
        return offered


class Inbox:
    """A handler that keeps its events, and what they add up to: the latest item of each key."""

    def __init__(self) -> None:
        self.events: list[ConfigurationEvent] = []
        self.items: dict[str, ConfigurationItem] = {}

    async def __call__(self, event: ConfigurationEvent) -> None:
        self.events.append(event)
        self.items.update(event.items)

    async def expect(self, items: Mapping[str, ConfigurationItem]) -> None:
        """Wait until the latest events say `items`, with version and metadata."""

        async def there() -> bool:
            return all(self.items.get(key) == item for key, item in items.items())

        await eventually(
            there,
            lambda: f"expected {items}, got { ({key: self.items.get(key) for key in items}) }",
        )


async def eventually(condition: Callable[[], Awaitable[bool]], message: Callable[[], str]) -> None:
    """Return as soon as `condition` holds; fail with `message` when it does not within `PATIENCE`."""
    await wait_until(condition, message, seconds=PATIENCE)
