"""Every public module says what it offers, and `lapel` offers what it says."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import lapel

ROOT = Path(__file__).parents[2]


def public_modules() -> Iterator[tuple[str, Path]]:
    for source in ("components", "contrib"):
        for path in sorted((ROOT / source).rglob("*.py")):
            parts = path.relative_to(ROOT / source).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not any(part.startswith("_") for part in parts):
                yield ".".join(parts), path


MODULES = dict(public_modules())


def sorting(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, as the linter sorts them."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def defined(tree: ast.Module) -> set[str]:
    """Public classes and functions. Hooks belong to pytest, which finds them by name."""
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith(("_", "pytest_"))
    }


@pytest.mark.parametrize("name", MODULES)
def test_public_modules_have_a_sorted_and_complete_all(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text("utf-8"))
    names = exported(tree)
    if names is None:
        assert all(isinstance(node, ast.Expr) for node in tree.body), f"{name} has no __all__"
        return
    assert names == sorted(set(names), key=sorting)
    assert defined(tree) - set(names) == set()


@pytest.mark.parametrize("name", MODULES)
def test_every_exported_name_exists(name: str) -> None:
    module = importlib.import_module(name)
    assert [each for each in getattr(module, "__all__", []) if not hasattr(module, each)] == []


def test_what_lapel_offers_its_table_and_what_type_checkers_see_are_the_same() -> None:
    tree = ast.parse(MODULES["lapel"].read_text("utf-8"))
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    seen: dict[str, set[str]] = {}
    for node in guard.body:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            seen[node.module] = {alias.asname or alias.name for alias in node.names}
    assert seen == {module: set(names) for module, names in lapel._MODULES.items()}
    assert {"__version__", *(name for names in seen.values() for name in names)} == set(lapel.__all__)
    assert list(lapel._MODULES) == sorted(lapel._MODULES)


@pytest.mark.parametrize("name", lapel.__all__)
def test_every_name_of_lapel_comes_from_its_home(name: str) -> None:
    value = getattr(lapel, name)
    if name != "__version__":
        home = importlib.import_module(f"lapel.{lapel._HOME[name]}")
        assert value is getattr(home, name)
        assert name in home.__all__


def test_a_name_that_lapel_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(lapel, "nonsense")  # noqa: B009  # type checkers refuse the plain form
    assert {*lapel.__all__, "blocking"} <= set(dir(lapel))


def test_the_synchronous_facade_is_an_attribute_of_lapel() -> None:
    assert lapel.blocking is importlib.import_module("lapel.blocking")


@pytest.mark.parametrize("name", ["lapel", "lapel_contrib"])
def test_the_packages_are_marked_as_typed(name: str) -> None:
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    assert (Path(found.origin).parent / "py.typed").exists()
