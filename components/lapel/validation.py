"""What can be said about component files without opening anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .building import settings_model, sides_of
from .descriptor import Kind
from .errors import ConfigurationError, ManifestError, Problem
from .manifest import Manifest, Manifests
from .ordering import opening_order
from .registry import Registry, default_registry
from .resiliency.documents import read_resiliency
from .settings import UNRESOLVED

__all__ = ["examine", "refuse", "validate"]


def validate(
    loaded: Manifests,
    *,
    app_id: str | None = None,
    namespace: str | None = None,
    unknown: Literal["error", "warn"] = "error",
    registry: Registry | None = None,
    present: Iterable[str] = (),
) -> list[Problem]:
    """Return every problem of component files that can be seen offline, warnings included.

    `unknown="warn"` turns unknown fields into warnings. `present` names secret stores that are open already. None for
    `registry` means the installed drivers. Blocks on imports of descriptors; needs no SDK.
    """
    registry = registry or default_registry()
    problems = list(loaded.problems)
    for manifest in loaded.components:
        problems += examine(manifest, registry, app_id=app_id, namespace=namespace, unknown=unknown)
    _, order_problems = opening_order(loaded.components, present)
    _, policy_problems = read_resiliency(loaded.others, app_id=app_id, namespace=namespace)
    return problems + order_problems + policy_problems


def examine(
    manifest: Manifest,
    registry: Registry,
    *,
    app_id: str | None = None,
    namespace: str | None = None,
    unknown: Literal["error", "warn"] = "error",
) -> list[Problem]:
    """Return every problem of a component that can be seen offline, without its SDK and without its secrets."""

    def problem(text: str, field: str) -> Problem:
        return Problem(text, field, manifest.name, manifest.file, manifest.line)

    try:
        descriptor = registry.descriptor(manifest.kind, manifest.driver, manifest.version)
        model = settings_model(descriptor)
    except ConfigurationError as exc:
        return [problem(f"{manifest.type} {manifest.version}: {exc.message}", "spec.type")]
    resolution = manifest.resolve(None, app_id=app_id, namespace=namespace)
    problems = list(resolution.problems)
    if manifest.secret_refs() and not manifest.secret_store:
        text = "uses secretKeyRef but names no store; set auth.secretStore to a secret store component"
        problems.append(problem(text, "auth.secretStore"))
    problems += model.examine(
        resolution.properties,
        component=manifest.name,
        driver=descriptor.type,
        file=manifest.file,
        line=manifest.line,
        unknown=unknown,
    )
    known = all(item.value is not UNRESOLVED for item in resolution.properties)
    if manifest.kind is Kind.BINDINGS and known and all(found.warning for found in problems):
        settings = model.parse(resolution.properties, component=manifest.name, unknown="warn", warnings=[])
        try:
            sides_of(descriptor, settings)
        except ConfigurationError as exc:
            problems.append(problem(exc.message, "direction"))
    return problems


def refuse(problems: Iterable[Problem]) -> None:
    """Raise one `ManifestError` that lists the problems that are not warnings, if there are any."""
    problems = list(problems)
    errors = [str(problem) for problem in problems if not problem.warning]
    if errors:
        text = errors[0] if len(errors) == 1 else "\n  ".join([f"{len(errors)} problems:", *errors])
        raise ManifestError(text, problems=problems)
