"""Components of the sample drivers, opened together in a world of their own."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit import sample_drivers
from tests.unit.sample_drivers import World, registry

from lapel.assembly import Components, open_components
from lapel.errors import AssemblyError, LapelError
from lapel.manifest import Manifest
from lapel.opening import Opening


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    fresh = World()
    monkeypatch.setattr(sample_drivers, "world", fresh)
    return fresh


def state(name: str, backend: str = "b1", **more: Any) -> Manifest:
    metadata = {"backend": backend, **more.pop("metadata", {})}
    return Manifest.of(name, "state.sample", metadata, **more)


def secrets(name: str, **more: Any) -> Manifest:
    return Manifest.of(name, "secretstores.sample", **more)


def opening(*manifests: Any, **more: Any) -> Opening[Components]:
    return open_components(list(manifests), registry=more.pop("registry", None) or registry(), **more)


def failures(caught: pytest.ExceptionInfo[AssemblyError]) -> dict[str | None, LapelError]:
    return {error.component: error for error in caught.value.exceptions if isinstance(error, LapelError)}
