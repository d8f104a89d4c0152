"""Rulings on components that start degraded, and on what is checked without opening anything."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.embedded import EMBEDDED, Embedded, prepare

import lapel.component as component_module
from lapel.errors import NotFoundError, UnavailableError
from lapel.manifest import load_manifests
from lapel.registry import default_registry
from lapel.validation import validate


@pytest.mark.parametrize("embedded", EMBEDDED, ids=lambda embedded: embedded.type)
async def test_a_component_that_was_reopened_works_with_the_new_driver_only(
    embedded: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component_module, "REOPEN_SECONDS", (0.0, 0.0))
    folder = prepare(tmp_path)
    component = await embedded.made(folder, app_id="shop")
    first, name = weakref.ref(component.driver), f"lapel reopen {component.name}"
    monkeypatch.setattr(component.driver, "open", _down)

    async def rebuild() -> Any:
        return (await embedded.made(folder, app_id="shop")).driver

    await component.open_or_keep_trying(rebuild)
    monkeypatch.undo()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == name))
    gc.collect()
    assert first() is None
    for method, call in embedded.calls(component).items():
        await _tolerant(call, embedded.type, method)
    await component.aclose()


async def _down() -> None:
    raise UnavailableError("down")


async def _tolerant(call: Callable[[], Awaitable[object]], type: str, method: str) -> None:
    try:
        await asyncio.wait_for(call(), 10)
    except (NotFoundError, UnavailableError):
        assert (type, method) in {("secretstores.local.env", "get"), ("bindings.http", "invoke")}


@pytest.mark.parametrize(
    ("type", "field", "value"),
    [
        ("state.in-memory", "keyPrefix", "a||b"),
        ("lock.in-memory", "keyPrefix", "||"),
        ("state.sqlite", "keyPrefix", "a||b"),
        ("pubsub.in-memory", "publishingScopes", "nonsense"),
        ("pubsub.sqlite", "subscriptionScopes", "shop=a;=b"),
    ],
)
def test_what_a_kind_reads_from_its_fields_is_validated_offline(
    type: str, field: str, value: str, tmp_path: Path
) -> None:
    more = '  - {name: connectionString, value: "x.db"}\n' if "sqlite" in type else ""
    file = tmp_path / "thing.yaml"
    file.write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: thing\n"
        f'spec:\n  type: {type}\n  version: v1\n  metadata:\n{more}  - name: {field}\n    value: "{value}"\n'
    )
    problems = validate(load_manifests(file), registry=default_registry())
    assert [(problem.field, problem.line is not None, problem.warning) for problem in problems] == [
        (field, True, False)
    ]
