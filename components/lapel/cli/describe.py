"""`lapel describe`: one driver in full."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, NamedTuple

from ..building import settings_model
from ..descriptor import Capability, Descriptor, Kind
from ..errors import DriverNotFoundError, InvalidArgumentError
from ..registry import Entry, Registry
from ..settings import FieldInfo
from .drivers import entry_data
from .output import console, print_json, wrapped

__all__ = [
    "AlgorithmFacts",
    "algorithm_facts",
    "describe_driver",
    "description",
    "example",
    "field_notes",
    "find",
    "limits_of",
]

_SAMPLES = {"int": "1", "float": "1", "bool": "true", "duration": "10s", "bytesize": "1Mi", "json": "{}"}


def describe_driver(registry: Registry, type: str, *, as_json: bool, schema: bool) -> int:
    """Print what there is to know about a type such as `state.sqlite` or `state.redis/v2`."""
    entry, descriptor = find(registry, type)
    if schema:
        print_json(settings_model(descriptor).json_schema())
    elif as_json:
        print_json(description(entry, descriptor))
    else:
        _print(entry, descriptor)
    return 0


def find(registry: Registry, type: str) -> tuple[Entry, Descriptor]:
    """Return the entry and descriptor of a type; aliases and case are as in component files.

    Raises `InvalidArgumentError` for text that is not a type, else as `Registry.descriptor` does.
    """
    name, _, version = type.strip().partition("/")
    prefix, _, name = name.partition(".")
    kind = next((kind for kind in Kind if kind.value == prefix.lower()), None)
    if kind is None or not name:
        kinds = ", ".join(kind.value for kind in Kind)
        raise InvalidArgumentError(f"{type!r} is not a type; write for example state.sqlite; kinds: {kinds}")
    descriptor = registry.descriptor(kind, name, version)
    for entry in registry.entries(kind):
        if entry.descriptor is descriptor:
            return entry, descriptor
    raise DriverNotFoundError("the driver disappeared while it was described", driver=descriptor.type)


def description(entry: Entry, descriptor: Descriptor) -> dict[str, Any]:
    """Return everything about a driver as JSON data."""
    return {
        **entry_data(entry),
        "driver": descriptor.driver,
        "limits": asdict(descriptor.limits),
        "algorithms": {operation: list(names) for operation, names in descriptor.algorithms.items()},
        "algorithmKeys": {name: fact.key for name, fact in algorithm_facts(descriptor).items() if fact.key},
        "fields": [asdict(info) for info in settings_model(descriptor).fields()],
        "example": example(descriptor),
    }


def example(descriptor: Descriptor) -> str:
    """Return a component file with every required field and every field that has an example."""
    name = descriptor.name.replace(".", "-")
    lines = [
        "apiVersion: dapr.io/v1alpha1",
        "kind: Component",
        "metadata:",
        f"  name: my-{name}",
        "spec:",
        f"  type: {descriptor.type}",
        f"  version: {descriptor.version}",
    ]
    shown = [
        info
        for info in settings_model(descriptor).fields()
        if info.required or (info.example and not (info.refused or info.ignored or info.deprecated))
    ]
    lines += ["  metadata:"] if shown else []
    secret = False
    for info in shown:
        lines.append(f"  - name: {info.name}")
        if info.secret:
            secret = True
            lines += ["    secretKeyRef:", f"      name: my-{name}", f"      key: {info.name}"]
        else:
            value = info.example or (info.choices[0] if info.choices else _SAMPLES.get(info.type, "text"))
            lines.append(f"    value: {json.dumps(value, ensure_ascii=False)}")
    lines += ["auth:", "  secretStore: my-secrets"] if secret else []
    return "\n".join(lines) + "\n"


class AlgorithmFacts(NamedTuple):
    """What a driver does with an algorithm, which keys fit it, and its sizes; empty where that is not known."""

    operations: list[str]
    key: str
    nonce: str
    tag: str


def algorithm_facts(descriptor: Descriptor) -> dict[str, AlgorithmFacts]:
    """Return the algorithms of a crypto driver, in the order in which it lists them."""
    # Few describe a crypto driver, and what is imported with this is as much as all the rest.
    from ..crypto.algorithms import ALGORITHMS

    facts: dict[str, AlgorithmFacts] = {}
    for operation, names in descriptor.algorithms.items():
        for name in names:
            info = ALGORITHMS.get(name)
            sizes = (str(info.nonce_size or ""), str(info.tag_size or "")) if info else ("", "")
            fact = facts.setdefault(name, AlgorithmFacts([], info.key if info else "", *sizes))
            fact.operations.append(operation)
    return facts


def limits_of(descriptor: Descriptor) -> dict[str, int]:
    """Return the limits that the backend imposes, by name; that of lifetimes only where things can expire."""
    limits = {name: value for name, value in asdict(descriptor.limits).items() if value is not None}
    if not descriptor.capabilities & (Capability.TTL | Capability.MESSAGE_TTL):
        del limits["ttl_seconds"]
    return limits


def field_notes(info: FieldInfo) -> list[str]:
    """Return what restricts the values of a field, in words."""
    notes = []
    # Durations that may be negative have a bound only so that it is not 0.
    lowest = None if info.unit and (info.minimum or "").startswith("-") else info.minimum
    if info.choices:
        notes.append(f"One of {', '.join(info.choices)}.")
    if lowest is not None and info.maximum is not None:
        notes.append(f"From {lowest} to {info.maximum}.")
    elif lowest is not None:
        notes.append(f"At least {lowest}.")
    elif info.maximum is not None:
        notes.append(f"At most {info.maximum}.")
    if info.unit:
        notes.append(f"A bare number is in {info.unit}.")
    if info.example:
        notes.append(f"Example: `{info.example}`.")
    if info.aliases:
        notes.append(f"Also: {', '.join(info.aliases)}.")
    if info.deprecated:
        notes.append(f"Deprecated: {info.deprecated}.")
    return notes


def _print(entry: Entry, descriptor: Descriptor) -> None:
    out = console()

    def heading(text: str) -> None:
        out.print(f"\n{text}", style="bold")

    out.print(f"{entry.type} {entry.version}", style="bold", end="")
    print(f"  ({entry.distribution} {entry.distribution_version}".rstrip() + ")")
    print(wrapped(descriptor.summary, 0))
    if entry.command:
        print(f"Not installed here; type: {entry.command}")
    facts = {
        "Aliases": ", ".join(f"{descriptor.kind.value}.{alias}" for alias in descriptor.aliases),
        "Capabilities": ", ".join(entry_data(entry)["capabilities"]) or "none beyond the minimum",
        "Limits": ", ".join(f"{name} {value}" for name, value in limits_of(descriptor).items()),
        "Operations": ", ".join(descriptor.operations),
    }
    for title, text in facts.items():
        if text:
            heading(title)
            print(wrapped(text, 2))
    if descriptor.algorithms:
        heading("Algorithms, by the keys that fit them")
        facts_of = algorithm_facts(descriptor)
        for operation in descriptor.algorithms:
            print(f"  {operation}")
            by_key: dict[str, list[str]] = {}
            for name, fact in facts_of.items():
                if operation in fact.operations:
                    by_key.setdefault(fact.key, []).append(name)
            for key, names in by_key.items():
                print(wrapped(f"{key}: {', '.join(names)}" if key else ", ".join(names), 4))
    fields = settings_model(descriptor).fields()
    usable = [info for info in fields if not (info.refused or info.ignored)]
    if usable:
        heading("Fields")
    for info in usable:
        state = "required" if info.required else f"default {info.default}" if info.default is not None else "optional"
        print(f"  {info.name}  ({', '.join([info.type, state, *(['secret'] if info.secret else [])])})")
        print(wrapped(" ".join([info.doc, *field_notes(info)]), 6))
    for title, reasons in (
        ("Fields that are refused", {info.name: info.refused for info in fields if info.refused}),
        ("Fields without effect", {info.name: info.ignored for info in fields if info.ignored}),
    ):
        if reasons:
            heading(title)
        for name, reason in reasons.items():
            print(f"  {name}")
            print(wrapped(reason or "", 6))
    heading("Example")
    print("\n".join(f"  {line}" for line in example(descriptor).splitlines()))
