"""The component under test: where it comes from and what its author expects of it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..component import Component
from ..descriptor import Capability, Descriptor, capability_names
from ..driver import Driver, DriverContext
from ..errors import ManifestError
from ..manifest import Document, Manifest, Manifests, MetadataItem, load_manifests, parse_manifests

__all__ = ["CONFORMANCE_API", "Pins", "Subject", "read_components"]

CONFORMANCE_API = "lapel.dev/v1alpha1"
"""The `apiVersion` of documents of kind `Conformance`."""

_PIN_KEYS = {"apiversion", "kind", "component", "flags", "knownfaults", "options"}


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What the author of a component file expects, from a document of kind `Conformance` beside the component.

    `flags` are those expected after `open`; None when nothing was pinned. `known_faults` maps a row id or the name of a
    test to the reason why it fails; such a test must fail. `options` are the knobs of the suite.
    """

    flags: Capability | None = None
    known_faults: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Document) -> Pins:
        """Read one document. Raises `ManifestError` for a name it does not know."""
        data = {key.lower(): value for key, value in document.data.items()}
        if unknown := set(data) - _PIN_KEYS:
            raise _wrong(document, f"has unknown fields: {', '.join(sorted(unknown))}")
        faults, options = data.get("knownfaults") or {}, data.get("options") or {}
        if not isinstance(faults, Mapping) or not all(faults.values()):
            raise _wrong(document, "needs a reason for every entry of knownFaults")
        if not isinstance(options, Mapping):
            raise _wrong(document, "needs a mapping as options")
        flags = None
        if (names := data.get("flags")) is not None:
            if not isinstance(names, Sequence) or isinstance(names, str):
                raise _wrong(document, "needs a list as flags")
            if bad := [name for name in names if name not in Capability.__members__]:
                raise _wrong(document, f"pins flags that do not exist: {', '.join(map(str, bad))}")
            flags = Capability(0)
            for name in names:
                flags |= Capability[name]
        return cls(flags=flags, known_faults=dict(faults), options=dict(options))


class Subject:
    """Builds drivers of one component, all on the same backend. Building does no I/O.

    `make` returns a new, unopened driver. `manifest` is None unless it comes from a component file. `flags` and
    `withdrawn` are known after `probe`.
    """

    def __init__(self, name: str, make: Callable[[DriverContext], Driver[Any]], *, pins: Pins | None = None) -> None:
        self.name = name
        self.pins = pins or Pins()
        self._make = make
        self.manifest: Manifest | None = None
        self._replacement: type[Driver[Any]] | None = None
        self._probed: tuple[Capability, Mapping[Capability, str]] | BaseException | None = None

    @classmethod
    def from_manifest(cls, manifest: Manifest, pins: Pins, *, driver: type[Driver[Any]] | None = None) -> Subject:
        """Take settings and, unless `driver` is given, the driver's class from a component document.

        Raises what the registry and the settings raise.
        """
        from ..registry import default_registry

        registry = default_registry()
        descriptor = registry.descriptor(manifest.kind, manifest.driver, manifest.version)
        resolved = manifest.resolve()
        if manifest.secret_refs() or any(not problem.warning for problem in resolved.problems):
            text = "; ".join(map(str, resolved.problems)) or "uses secretKeyRef; name the value with envRef instead"
            raise ManifestError(text, problems=resolved.problems, component=manifest.name)
        settings = descriptor.settings_model().parse(
            resolved.properties, component=manifest.name, driver=manifest.type, file=manifest.file, line=manifest.line
        )
        driver_class = driver or registry.driver_class(descriptor)
        subject = cls(manifest.name, lambda context: driver_class(settings, context), pins=pins)
        subject.manifest, subject._replacement = manifest, driver
        return subject

    def variant(self, properties: Mapping[str, str]) -> Subject | None:
        """Return the same component with other properties, None when it does not come from a component file.

        Raises `ConfigurationError` when the properties are wrong.
        """
        if self.manifest is None:
            return None
        others = {name.lower() for name in properties}
        kept = tuple(item for item in self.manifest.metadata if item.name.lower() not in others)
        changed = tuple(MetadataItem(name, value) for name, value in properties.items())
        changed_manifest = replace(self.manifest, metadata=kept + changed)
        return Subject.from_manifest(changed_manifest, self.pins, driver=self._replacement)

    def driver(self, **context: Any) -> Driver[Any]:
        """Return a new, unopened driver; `context` are further fields of its `DriverContext`."""
        return self._make(DriverContext(component=self.name, **context))

    @property
    def descriptor(self) -> Descriptor:
        """The catalogue entry of the driver."""
        return self.driver().descriptor

    @property
    def probed(self) -> bool:
        """Whether the component was opened once, so that its flags are known."""
        return isinstance(self._probed, tuple)

    @property
    def flags(self) -> Capability:
        """What the component offers after `open`."""
        assert isinstance(self._probed, tuple)
        return self._probed[0]

    @property
    def withdrawn(self) -> Mapping[Capability, str]:
        """What `open` took back, with the driver's reasons."""
        assert isinstance(self._probed, tuple)
        return self._probed[1]

    async def probe(self, build: Callable[[], Component[Any]]) -> None:
        """Open the component once and note its flags. A failure is remembered and raised each time."""
        if self._probed is None:
            component = build()
            try:
                async with component:
                    self._probed = component.capabilities, component.withdrawn
            except Exception as exc:
                self._probed = exc
        if isinstance(self._probed, BaseException):
            raise self._probed

    def flag_difference(self) -> str:
        """Return how the flags after `open` differ from those pinned, with the driver's reasons; empty for no way."""
        if self.pins.flags is None:
            return ""
        lines = [
            f"{flag.name}: withdrawn at open: {self.withdrawn[flag]}"
            if flag in self.withdrawn
            else f"{flag.name}: pinned, but the driver does not declare it"
            for flag in self.pins.flags & ~self.flags
        ]
        if surplus := capability_names(self.flags & ~self.pins.flags):
            lines.append(f"{', '.join(surplus)}: declared, but not pinned")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Subject {self.name!r}>"


def read_components(source: str | os.PathLike[str], tmp: Path | None = None) -> list[tuple[Manifest, Pins]]:
    """Read component documents, each with its pins, from a file or from YAML text (anything with a line break).

    `${TMP}` becomes the folder `tmp`, `${UUID}` a new id, the same throughout the file. Raises `ManifestError` for
    everything that is wrong with it, also for pins of a component that is not there.
    """
    if isinstance(source, str) and "\n" in source:
        loaded = parse_manifests(_filled(source, tmp))
    else:
        loaded = load_manifests(str(source))
        path = Path(source)
        if not loaded.errors and path.is_file():
            loaded = parse_manifests(_filled(path.read_text("utf-8-sig"), tmp), file=str(path))
    _raise_errors(loaded)
    pins: dict[str, Pins] = {}
    names = [manifest.name for manifest in loaded.components]
    for document in loaded.others:
        if document.kind == "Conformance":
            if document.api_version != CONFORMANCE_API:
                raise _wrong(document, f"needs apiVersion {CONFORMANCE_API}")
            name = str(document.data.get("component") or (names[0] if len(names) == 1 else ""))
            if name not in names:
                raise _wrong(document, f"names the component {name!r}; the file has {', '.join(names) or 'none'}")
            pins[name] = Pins.of(document)
    return [(manifest, pins.get(manifest.name, Pins())) for manifest in loaded.components]


def _filled(text: str, tmp: Path | None) -> str:
    return text.replace("${TMP}", str(tmp or "/nonexistent")).replace("${UUID}", uuid.uuid4().hex)


def _raise_errors(loaded: Manifests) -> None:
    if errors := loaded.errors:
        raise ManifestError("\n".join(map(str, errors)), problems=loaded.problems)


def _wrong(document: Document, text: str) -> ManifestError:
    place = f"{document.file}:{document.line}: " if document.file else ""
    return ManifestError(f"{place}the Conformance document {text}")
