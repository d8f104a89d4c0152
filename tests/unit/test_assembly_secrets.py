"""Assembly with secrets: they come from the stores that are opened with the rest, and no error shows one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.assembly_support import failures, opening, secrets, state
from tests.unit.assembly_support import world as world
from tests.unit.sample_drivers import World

import lapel
from lapel.errors import AssemblyError, ManifestError, PermissionDeniedError, SettingsError
from lapel.manifest import SecretRef


async def test_a_circle_of_secret_stores_is_named(world: World) -> None:
    ring = [
        secrets(name, metadata={"token": SecretRef("s", "k")}, secret_store=store)
        for name, store in (("a", "b"), ("b", "c"), ("c", "a"))
    ]
    with pytest.raises(ManifestError, match=r"in a circle: \w( -> \w){3}") as caught:
        await opening(*ring, state("db"))
    assert len(caught.value.problems) == 1
    assert world.journal == []


async def test_a_secret_store_that_is_not_there_is_named() -> None:
    db = state("db", metadata={"password": SecretRef("s", "k")}, secret_store="absent")
    with pytest.raises(ManifestError, match="there is no secret store 'absent'; there are: vault"):
        await opening(db, secrets("vault"))


async def test_a_secret_without_a_store_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"names no store; set auth\.secretStore"):
        await opening(state("db", metadata={"password": SecretRef("s", "k")}))


@pytest.mark.parametrize("stored", [{}, {"s": {"another": "x"}}])
async def test_a_secret_that_does_not_exist_fails_its_component(
    world: World, stored: dict[str, dict[str, str]]
) -> None:
    world.secrets = stored
    db = state("db", metadata={"password": SecretRef("s", "k")}, secret_store="vault")
    with pytest.raises(AssemblyError) as caught:
        await opening(db, secrets("vault"))
    error = failures(caught)["db"]
    assert isinstance(error, SettingsError)
    assert "field 'password': needs the secret 's' with key 'k'" in str(error)
    assert world.open == []


async def test_a_secret_that_may_not_be_read_names_component_and_store(world: World) -> None:
    world.down.add("s-forbidden")
    db = state("db", metadata={"password": SecretRef("s", "k")}, secret_store="vault")
    with pytest.raises(AssemblyError) as caught:
        await opening(db, secrets("vault"))
    error = failures(caught)["db"]
    assert isinstance(error, PermissionDeniedError)
    assert "cannot read the secret 's': component 'vault'" in str(error)


async def test_no_error_shows_a_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.secrets = {"s": {"k": "canary-4711"}}
    db = state("db", metadata={"size": SecretRef("s", "k")}, secret_store="vault")
    with pytest.raises(AssemblyError) as caught:
        await opening(db, secrets("vault"))
    assert "expected" in str(failures(caught)["db"])
    assert "canary" not in "".join([str(caught.value), *map(str, caught.value.exceptions), caplog.text])


# with the drivers that ship with lapel


async def test_a_secret_from_a_file_opens_a_database(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    (tmp_path / "secrets.json").write_text(json.dumps({"database": {"path": str(database)}}))
    (tmp_path / "components.yaml").write_text(f"""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: statestore}}
spec:
  type: state.sqlite
  version: v1
  metadata:
  - name: connectionString
    secretKeyRef: {{name: "database:path", key: "database:path"}}
auth: {{secretStore: files}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: files}}
spec:
  type: secretstores.local.file
  version: v1
  metadata:
  - {{name: secretsFile, value: "{tmp_path / "secrets.json"}"}}
""")
    for _ in range(2):
        async with lapel.open_components(tmp_path / "components.yaml", app_id="shop") as components:
            store = components.state("statestore")
            if await store.get("key") is None:
                await store.set("key", {"kept": True})
                continue
            item = await store.get("key")
            assert item is not None
            assert item.json() == {"kept": True}
    assert database.exists()
