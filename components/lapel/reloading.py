"""Bring open components up to date with changed files, one at a time, so that the others serve on."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .assembly import Components
from .descriptor import Kind
from .errors import AssemblyError, LapelError
from .manifest import Document, Manifest, load_manifests
from .resiliency import ComponentPolicies, read_resiliency
from .validation import refuse

__all__ = ["Reloaded", "reload_components"]

_log = logging.getLogger("lapel.assembly")


@dataclass(slots=True)
class Reloaded:
    """What a reload did, by name of component. `documents` tells that other documents changed."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: dict[str, LapelError | AssemblyError] = field(default_factory=dict)
    documents: bool = False

    @property
    def changed(self) -> list[str]:
        """The components that are not what they were."""
        return [*self.added, *self.replaced, *self.removed]


async def reload_components(
    components: Components,
    source: str | os.PathLike[str] | Manifest | Iterable[str | os.PathLike[str] | Manifest],
    *,
    check: Callable[[Manifest], None] | None = None,
) -> Reloaded:
    """Read `source` again and add, replace and remove what differs; a component that did not change is left alone.

    A replaced component takes over once it is open and healthy. One that fails stays as it was and is in `failed`.
    Components are also replaced when a resiliency document gives them other policies. `check` is called with each
    manifest before anything is changed; what it raises ends the reload. Raises one `ManifestError`
    for files with a mistake that can be seen offline, and then nothing has changed.
    """
    loaded = await asyncio.to_thread(load_manifests, source, app_id=components.app_id, namespace=components.namespace)
    resiliency, problems = read_resiliency(loaded.others, app_id=components.app_id, namespace=components.namespace)
    refuse([*loaded.problems, *problems])
    if check is not None:
        for manifest in loaded.components:
            check(manifest)
    before, policies = components.manifests, _policies(components)
    result = Reloaded(documents=_differ(components.documents, loaded.others))
    wanted = {manifest.name: manifest for manifest in loaded.components}
    if result.documents:
        components._use_documents(loaded.others)
    for name in before:
        if name not in wanted:
            await _attempt(result, result.removed, name, components.remove(name))
    for manifest in sorted(wanted.values(), key=lambda manifest: manifest.kind is not Kind.SECRETSTORES):
        name = manifest.name
        if name not in before:
            await _attempt(result, result.added, name, components.add(manifest))
        elif _content(before[name]) != _content(manifest) or policies[name] != resiliency.component(
            name, manifest.kind
        ):
            await _attempt(result, result.replaced, name, components.replace(manifest))
    return result


async def _attempt(result: Reloaded, done: list[str], name: str, change: Any) -> None:
    try:
        await change
    except (LapelError, AssemblyError) as exc:
        _log.error("component %s stays as it was: %s", name, exc)
        result.failed[name] = exc
    else:
        done.append(name)


def _policies(components: Components) -> Mapping[str, ComponentPolicies]:
    return {
        name: components.resiliency.component(name, manifest.kind) for name, manifest in components.manifests.items()
    }


def _content(manifest: Manifest) -> Any:
    """Return what a component is made from, without the place where it is written."""
    metadata = [(item.name, item.value, item.secret_ref, item.env_ref) for item in manifest.metadata]
    options = (manifest.init_timeout, manifest.ignore_errors, manifest.secret_store, manifest.namespace)
    return manifest.kind, manifest.driver, manifest.version, metadata, options


def _differ(before: Iterable[Document], after: Iterable[Document]) -> bool:
    def content(documents: Iterable[Document]) -> list[Any]:
        return [(document.kind, document.api_version, document.data) for document in documents]

    return content(before) != content(after)
