"""`lapel drivers`: the catalogue."""

from __future__ import annotations

import sys
from typing import Any

from ..descriptor import Kind, capability_names
from ..registry import Entry, Registry
from .output import print_json, print_table

__all__ = ["entry_data", "list_drivers"]


def list_drivers(registry: Registry, *, kind: Kind | None, check: bool, as_json: bool) -> int:
    """Print the drivers of a kind, or all, and return the exit code: 1 when one of them is broken."""
    entries = registry.entries(kind)
    if check:
        entries = [entry.check() for entry in entries]
    if as_json:
        print_json([entry_data(entry) for entry in entries])
    elif not entries:
        print("no drivers are installed")
    else:
        rows = [
            (entry.type, entry.version, _origin(entry), _status(entry), ", ".join(_capabilities(entry)) or "-")
            for entry in entries
        ]
        print_table(["TYPE", "VERSION", "FROM", "STATUS", "CAPABILITIES"], rows, fold=4)
        for entry in entries:
            if entry.command:
                print(f"{entry.type} {entry.version} needs: {entry.command}")
    for entry in entries:
        if entry.error:
            print(f"error: {entry.type} {entry.version}: {entry.error.message}", file=sys.stderr)
    return int(any(entry.error for entry in entries))


def entry_data(entry: Entry) -> dict[str, Any]:
    """Return one entry of the catalogue as JSON data."""
    descriptor = entry.descriptor
    return {
        "type": entry.type,
        "kind": entry.kind.value,
        "name": entry.name,
        "version": entry.version,
        "aliases": list(descriptor.aliases) if descriptor else [],
        "summary": descriptor.summary if descriptor else None,
        "capabilities": _capabilities(entry),
        "operations": list(descriptor.operations) if descriptor else [],
        "distribution": entry.distribution,
        "distribution_version": entry.distribution_version,
        "extra": descriptor.extra if descriptor else None,
        "loadable": entry.loadable,
        "command": entry.command,
        "error": entry.error.message if entry.error else None,
    }


def _capabilities(entry: Entry) -> list[str]:
    return capability_names(entry.descriptor.capabilities) if entry.descriptor else []


def _origin(entry: Entry) -> str:
    return f"{entry.distribution} {entry.distribution_version}".strip()


def _status(entry: Entry) -> str:
    if entry.error:
        return "broken"
    return "ready" if entry.loadable else "needs extra"
