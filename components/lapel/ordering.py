"""In which order components open: a component after the secret store that it takes secrets from."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

from .descriptor import Kind
from .errors import Problem
from .manifest import Manifest

__all__ = ["opening_order"]


def opening_order(
    manifests: Iterable[Manifest], present: Iterable[str] = ()
) -> tuple[list[list[Manifest]], list[Problem]]:
    """Return waves of components that may open together, secret stores before all others, and what is wrong.

    `present` names secret stores that are open already.
    """
    by_name = {manifest.name: manifest for manifest in manifests}
    stores = {name for name, manifest in by_name.items() if manifest.kind is Kind.SECRETSTORES}
    present = set(present)
    problems: list[Problem] = []
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for manifest in by_name.values():
        needs = manifest.secret_store if manifest.secret_refs() else None
        if needs is not None and needs not in stores and needs not in present:
            there = ", ".join(sorted(stores | present)) or "none"
            problems.append(_problem(manifest, f"there is no secret store {needs!r}; there are: {there}"))
            needs = None
        if manifest.kind is Kind.SECRETSTORES:
            sorter.add(manifest.name, *([needs] if needs in stores else []))
    waves: list[list[Manifest]] = []
    try:
        sorter.prepare()
        while sorter.is_active():
            ready = sorter.get_ready()
            waves.append([by_name[name] for name in ready])
            sorter.done(*ready)
    except CycleError as exc:
        ring: list[str] = exc.args[1]
        text = f"secret stores take their secrets from each other in a circle: {' -> '.join(ring)}"
        problems.append(_problem(by_name[ring[0]], text))
    others = [manifest for manifest in by_name.values() if manifest.kind is not Kind.SECRETSTORES]
    return [*waves, *([others] if others else [])], problems


def _problem(manifest: Manifest, text: str) -> Problem:
    return Problem(text, "auth.secretStore", manifest.name, manifest.file, manifest.line)
