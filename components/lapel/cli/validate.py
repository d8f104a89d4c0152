"""`lapel validate`: component files, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import Problem
from ..manifest import Manifest, Manifests, load_manifests
from ..registry import Registry
from ..validation import validate
from .output import counted, print_json, print_problems, problem_data

__all__ = ["component_data", "examined", "validate_files"]


def validate_files(
    registry: Registry,
    paths: Sequence[Path],
    *,
    app_id: str | None,
    namespace: str | None,
    lenient: bool,
    as_json: bool,
) -> int:
    """Print every problem of component files and return the exit code: 1 when one of them is an error."""
    loaded, problems = examined(registry, paths, app_id=app_id, namespace=namespace, lenient=lenient)
    errors = [problem for problem in problems if not problem.warning]
    if as_json:
        print_json(
            {
                "ok": not errors,
                "components": [component_data(manifest) for manifest in loaded.components],
                "problems": [problem_data(problem) for problem in problems],
            }
        )
    else:
        print_problems(problems)
        warnings = counted(len(problems) - len(errors), "warning")
        print(f"{counted(len(loaded.components), 'component')}: {counted(len(errors), 'error')}, {warnings}")
    return int(bool(errors))


def examined(
    registry: Registry, paths: Sequence[Path], *, app_id: str | None, namespace: str | None, lenient: bool
) -> tuple[Manifests, list[Problem]]:
    """Return what the files hold, and every problem, in the order of files and lines."""
    loaded = load_manifests(paths, app_id=app_id, namespace=namespace)
    problems = validate(
        loaded, app_id=app_id, namespace=namespace, unknown="warn" if lenient else "error", registry=registry
    )
    return loaded, sorted(problems, key=lambda problem: (problem.file or "", problem.line or 0))


def component_data(manifest: Manifest) -> dict[str, Any]:
    """Return what identifies a component as JSON data."""
    return {
        "name": manifest.name,
        "type": manifest.type,
        "version": manifest.version,
        "file": manifest.file,
        "line": manifest.line,
    }
