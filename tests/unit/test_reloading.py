"""Changed files bring open components up to date, and touch nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import lapel
from lapel.assembly import Components
from lapel.errors import ManifestError
from lapel.reloading import reload_components


def store(folder: Path, name: str, **fields: str) -> None:
    lines = "".join(f"    - {{name: {key}, value: '{value}'}}\n" for key, value in fields.items())
    metadata = f"  metadata:\n{lines}" if lines else ""
    (folder / f"{name}.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\n"
        f"metadata: {{name: {name}}}\nspec:\n  type: state.in-memory\n  version: v1\n{metadata}"
    )


@pytest.fixture
async def components(tmp_path: Path) -> AsyncIterator[Components]:
    store(tmp_path, "a")
    store(tmp_path, "b")
    async with lapel.open_components(tmp_path) as components:
        yield components


async def test_what_is_new_is_added_what_is_gone_is_removed_and_the_rest_stays(
    components: Components, tmp_path: Path
) -> None:
    kept = components.state("a")
    (tmp_path / "b.yaml").unlink()
    store(tmp_path, "c")
    result = await reload_components(components, tmp_path)
    assert (result.added, result.replaced, result.removed, result.failed) == (["c"], [], ["b"], {})
    assert set(components.manifests) == {"a", "c"}
    assert components.state("a") is kept


async def test_a_changed_field_replaces_one_component(components: Components, tmp_path: Path) -> None:
    kept, old = components.state("a"), components.state("b")
    store(tmp_path, "b", keyPrefix="none")
    result = await reload_components(components, tmp_path)
    assert result.replaced == ["b"]
    assert components.state("b") is not old
    assert components.state("a") is kept


async def test_a_comment_changes_nothing(components: Components, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"# why\n{path.read_text()}")
    result = await reload_components(components, tmp_path)
    assert not result.changed
    assert not result.documents


async def test_a_mistake_changes_nothing_at_all(components: Components, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").unlink()
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ManifestError):
        await reload_components(components, tmp_path)
    assert set(components.manifests) == {"a", "b"}


async def test_a_component_that_fails_stays_as_it_was_and_the_others_go_on(
    components: Components, tmp_path: Path
) -> None:
    old = components.state("a")
    store(tmp_path, "a", noSuchField="1")
    store(tmp_path, "c")
    result = await reload_components(components, tmp_path)
    assert list(result.failed) == ["a"]
    assert result.added == ["c"]
    assert components.state("a") is old


async def test_other_policies_replace_the_components_that_they_are_for(components: Components, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n"
        "  policies: {timeouts: {quick: 2s}}\n  targets: {components: {b: {outbound: {timeout: quick}}}}\n"
    )
    result = await reload_components(components, tmp_path)
    assert result.documents
    assert result.replaced == ["b"]
    policies = components.state("b").options.resiliency
    assert policies is not None
    assert policies.outbound.timeout is not None
