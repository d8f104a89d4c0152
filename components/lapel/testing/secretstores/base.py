"""What the tests of secret stores have in common."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from ...component import Component
from ...descriptor import Capability, Kind
from ...errors import NotFoundError
from ...secretstores import SecretStore, SecretStoreDriver
from ..harness import ComponentHooks, Operations
from ..lifecycle import wait_until
from ..subject import Subject
from .writers import SecretWriter

__all__ = ["SECRETS", "SecretStoreBase", "eventually", "put"]

PATIENCE = 10.0
"""How long a test waits, in seconds, for a change to be read."""

SECRETS = {"conftestsecret": "abcd", "secondsecret": "efgh"}
"""What is there before anything is opened: put by the writer, or prepared by whoever runs the suite."""


class SecretStoreBase(ComponentHooks):
    """Fixtures and hooks of the secret store suite."""

    kind = Kind.SECRETSTORES
    front = SecretStore
    driver_base = SecretStoreDriver
    options: ClassVar[Mapping[str, Any]] = {
        **ComponentHooks.options,
        "emptyValues": "true",
        "hidden": "",
        "refresh": "true",
        "writer": "",
    }
    methods = {Capability.BULK_SECRETS: ("bulk_get",)}  # noqa: RUF012  # declared as a ClassVar by the base class

    @pytest.fixture
    def base(self) -> str:
        """Return a text that no other test uses, to begin names with: letters and digits, as every store takes."""
        return uuid.uuid4().hex

    @pytest.fixture
    def store(self, opened: Component[Any]) -> SecretStore:
        """Return an open store."""
        return cast("SecretStore", opened)

    @pytest.fixture
    def writer(self, subject: Subject) -> SecretWriter:
        """Return a way to change the secrets; skip the test where the component file names none."""
        made = self.writer_of(subject)
        if made is None:
            pytest.skip("the component file names no `writer` in its options")
        made.put({name: {name: value} for name, value in SECRETS.items()})
        return made

    def writer_of(self, subject: Subject) -> SecretWriter | None:
        """Return what the option `writer` names, as `module:Class`, or None."""
        module, _, name = str(self.option(subject, "writer")).partition(":")
        if not module:
            return None
        made: SecretWriter = getattr(import_module(module), name)(subject.driver().settings)
        return made

    def _read(self, folder: Path) -> Subject:
        subject = super()._read(folder)
        writer = self.writer_of(subject)
        if writer is not None:
            writer.put({name: {name: value} for name, value in SECRETS.items()})
        return subject

    async def exercise(self, component: Component[Any], payload: str) -> None:
        """Read a secret that is always there."""
        name = "conftestsecret"
        assert await cast("SecretStore", component).get(name) == {name: SECRETS[name]}

    def operations(self, component: Component[Any], payload: str) -> Operations:
        """Return all operations that the store offers."""
        store = cast("SecretStore", component)
        offered: dict[str, Callable[[], Awaitable[object]]] = {"get": lambda: store.get("conftestsecret")}
        if Capability.BULK_SECRETS in store.capabilities:
            offered["bulk_get"] = store.bulk_get
        return offered


async def put(store: SecretStore, writer: SecretWriter, secrets: dict[str, dict[str, str]]) -> None:
    """Write secrets and wait until the last is read."""
    writer.put(secrets)
    name, fields = list(secrets.items())[-1]

    async def there() -> bool:
        try:
            return dict(await store.get(name)) == fields
        except NotFoundError:
            return False

    await eventually(there, lambda: f"{name} was written and is not read as written")


async def eventually(condition: Callable[[], Awaitable[bool]], message: Callable[[], str]) -> None:
    """Return as soon as `condition` holds; fail with `message` when it does not within `PATIENCE`."""
    await wait_until(condition, message, seconds=PATIENCE)
