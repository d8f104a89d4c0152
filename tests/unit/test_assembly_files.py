"""Assembly from files and manifests: what they say is what opens, and every fault is told before anything does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit import sample_drivers
from tests.unit.assembly_support import opening, state
from tests.unit.assembly_support import world as world
from tests.unit.sample_drivers import World, registry

from lapel.assembly import open_components
from lapel.errors import ManifestError
from lapel.manifest import Manifest


async def test_files_scopes_environment_and_secrets_work_together(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMPLE_BACKEND", "from-environment")
    world.secrets = {"database": {"password": "hunter2"}}
    (tmp_path / "state.yaml").write_text("""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: db}
spec:
  type: state.sample
  version: v1
  metadata:
  - {name: backend, envRef: SAMPLE_BACKEND}
  - name: password
    secretKeyRef: {name: database, key: password}
auth: {secretStore: vault}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: not-ours}
spec: {type: state.sample, metadata: [{name: backend, value: b9}]}
scopes: [another-app]
""")
    (tmp_path / "vault.yml").write_text("""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.sample}
""")
    async with open_components(tmp_path, app_id="shop", registry=registry()) as components:
        assert set(components.manifests) == {"db", "vault"}
        settings: Any = world.seen["db"]
        assert settings.backend == "from-environment"
        assert settings.password.reveal() == "hunter2"
        assert components.state("db").options.app_id == "shop"


def document(spec: str) -> str:
    return f"{{apiVersion: dapr.io/v1alpha1, kind: Component, metadata: {{name: x}}, spec: {{{spec}}}}}"


BROKEN = {
    "yaml": ("metadata: [unclosed", r"broken\.yaml:\d+"),
    "empty": ("", "is empty"),
    "type": (document("type: state.smaple"), "did you mean 'sample'"),
    "version": (document("type: state.sample, version: v7"), "version 'v7' is not installed; there is v1, v2"),
    "field": (
        document("type: state.sample, metadata: [{name: backend, value: b}, {name: sise, value: '3'}]"),
        "did you mean 'size'",
    ),
    "required": (document("type: state.sample"), "is required"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_faulty_file_is_refused_before_anything_opens(tmp_path: Path, world: World, case: str) -> None:
    text, expected = BROKEN[case]
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(ManifestError, match=expected) as caught:
        await opening(tmp_path, state("good"))
    assert world.journal == []
    assert any(problem.file == str(tmp_path / "broken.yaml") for problem in caught.value.problems)


async def test_all_faults_of_all_files_come_in_one_error(tmp_path: Path) -> None:
    for case, (text, _) in BROKEN.items():
        (tmp_path / f"{case}.yaml").write_text(text.replace("name: x", f"name: {case}"))
    with pytest.raises(ManifestError) as caught:
        await opening(tmp_path)
    assert {Path(problem.file or "").stem for problem in caught.value.problems} == set(BROKEN)


async def test_a_direction_that_a_binding_does_not_have_is_found_offline(world: World) -> None:
    with pytest.raises(
        ManifestError, match=r"'direction': direction names 'input', but bindings\.sample offers output"
    ):
        await opening(Manifest.of("out", "bindings.sample", {"direction": "input"}), state("db"))
    assert world.journal == []


async def test_settings_that_do_not_load_are_found_offline(world: World) -> None:
    odd = replace(sample_drivers.STATE, name="odd", settings="tests.unit.sample_drivers:Absent")
    with pytest.raises(ManifestError, match=r"state\.odd v1: the settings '.*:Absent' of lapel do not load"):
        await opening(Manifest.of("x", "state.odd"), state("db"), registry=registry(odd))
    assert world.journal == []


async def test_two_components_of_one_name_are_refused(world: World) -> None:
    with pytest.raises(ManifestError, match="the name is taken already"):
        await opening(state("db"), state("db", "b2"))
    assert world.journal == []


async def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ManifestError, match="the folder cannot be read: Permission denied"):
        await opening(tmp_path)


async def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"absent: does not exist"):
        await opening(tmp_path / "absent")


async def test_unknown_fields_can_be_tolerated(caplog: pytest.LogCaptureFixture) -> None:
    async with opening(state("db", metadata={"sise": "3"}), unknown="warn") as components:
        assert "db" in components
    assert [record.getMessage() for record in caplog.records if "did you mean 'size'" in record.getMessage()] != []
    assert sum("sise" in record.getMessage() for record in caplog.records) == 1
