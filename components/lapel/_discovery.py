"""The scan behind the registry: entry points, their distributions and the packages of their extras.

Entry points are found with `importlib.metadata` and loaded by stevedore's `DriverManager`, whose public
`list_entry_points` is overridden to hand it the entry point that was found. stevedore's own lookup goes through a
file in the user's cache folder. That file stays stale for up to two minutes after a plugin is reinstalled, does not
know which distribution an entry point belongs to, and can only be switched off for all programs of the user
at once. With the override it is neither read nor written.

`importlib.metadata` and stevedore are imported inside functions: each costs more than the rest of `import lapel`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .descriptor import DRIVER_API, Descriptor, Kind
from .errors import DriverConflictError, DriverLoadError

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

_GROUPS = {f"lapel.{kind.value}": kind for kind in Kind}
_REQUIREMENT = re.compile(r"\s*([\w.-]+)\s*(?:\[([^\]]*)\])?")
_EXTRA_MARKER = re.compile(r"\s*\(?\s*extra\s*==\s*['\"]([^'\"]+)['\"]\s*\)?\s*")


@dataclass(slots=True, kw_only=True)
class Registration:
    """One claim to a kind, name and version. `descriptor` is None until the entry point was loaded."""

    kind: Kind
    name: str
    version: str
    source: EntryPoint | Descriptor
    descriptor: Descriptor | None = None

    @property
    def type(self) -> str:
        """The type as component files write it."""
        return f"{self.kind.value}.{self.name}"


class Scan:
    """What one look at the installed distributions found, and what was worked out from it since.

    `drivers` maps kind, name and version to the claims; more than one claim is a conflict.
    """

    def __init__(self, own: Iterable[Descriptor], *, installed: bool) -> None:
        self.drivers: dict[Kind, dict[str, dict[str, list[Registration]]]] = {kind: {} for kind in Kind}
        self._identities: dict[int, tuple[str, str]] = {}
        self._extras: dict[str, dict[str, set[str]]] = {}
        for descriptor in own:
            self._add(descriptor.kind, descriptor.name, descriptor.version, descriptor)
        for entry_point in _entry_points() if installed else ():
            name, _, version = entry_point.name.partition("/")
            self._add(_GROUPS[entry_point.group], name, version, entry_point)

    def _add(self, kind: Kind, name: str, version: str, source: EntryPoint | Descriptor) -> None:
        name, version = name.lower(), normal_version(version)
        claims = self.drivers[kind].setdefault(name, {}).setdefault(version, [])
        claims.append(Registration(kind=kind, name=name, version=version, source=source))

    def registrations(self, kind: Kind) -> Iterator[Registration]:
        """Yield all claims of a kind."""
        for versions in self.drivers[kind].values():
            for claims in versions.values():
                yield from claims

    def identity(self, registration: Registration) -> tuple[str, str]:
        """Return name and version of the distribution that registered it."""
        if isinstance(registration.source, Descriptor):
            return "this program", ""
        distribution = registration.source.dist
        if distribution is None:
            return "unknown distribution", ""
        if id(distribution) not in self._identities:
            self._identities[id(distribution)] = _identity(distribution)
        return self._identities[id(distribution)]

    def owner(self, registration: Registration) -> str:
        """Return the distribution as messages name it."""
        return " ".join(self.identity(registration)).strip()

    def load(self, registration: Registration) -> Descriptor:
        """Return the descriptor; a failure is not remembered. Raises `DriverLoadError`."""
        if registration.descriptor is not None:
            return registration.descriptor
        source = registration.source
        if isinstance(source, Descriptor):
            where = f"the descriptor of {self.owner(registration)}"
            loaded: object = source
        else:
            where = f"entry point '{source.name} = {source.value}' of {self.owner(registration)}"
            try:
                loaded = _load_entry_point(source)
            except (Exception, SystemExit) as exc:
                text = f"{where} does not load: {type(exc).__name__}: {exc}"
                raise DriverLoadError(text, driver=registration.type) from exc
        if not isinstance(loaded, Descriptor):
            text = f"{where} leads to a {type(loaded).__name__} instead of a lapel.descriptor.Descriptor"
            raise DriverLoadError(text, driver=registration.type)
        if wrong := _misfit(registration, loaded):
            raise DriverLoadError(f"{where} {wrong}", driver=registration.type)
        registration.descriptor = loaded
        return loaded

    def loading(self, kind: Kind) -> Iterator[tuple[Registration, Descriptor | None]]:
        """Yield all claims of a kind, each with its descriptor or None if it does not load."""
        for registration in self.registrations(kind):
            try:
                yield registration, self.load(registration)
            except DriverLoadError:
                yield registration, None

    def conflict(self, claims: Sequence[Registration], type: str) -> DriverConflictError:
        """Return the error that names every side."""
        sides = []
        for claim in claims:
            target = claim.type if isinstance(claim.source, Descriptor) else claim.source.value
            sides.append(f"{self.owner(claim)} ({target})")
        return DriverConflictError(
            f"version {claims[0].version} is claimed by {' and by '.join(sides)}; uninstall all but one", driver=type
        )

    def absent_packages(self, distribution: str, extra: str) -> list[str] | None:
        """Return what the extra needs and is not installed, or None if the distribution declares no such extra."""
        if distribution not in self._extras:
            self._extras[distribution] = _extras(distribution)
        needed = self._extras[distribution].get(_normal_name(extra))
        return None if needed is None else sorted(name for name in needed if not _is_installed(name))


def normal_version(version: str) -> str:
    """Return the version in lower case; those that mean the first one as `v1`."""
    version = version.lower()
    return "v1" if version in ("", "v0", "v1") else version


def other_api(descriptor: Descriptor) -> str:
    """Return what to say about a driver made for another driver API."""
    return (
        f"is made for driver API {descriptor.driver_api}, this lapel has {DRIVER_API}; "
        f"install releases of {descriptor.distribution} and lapel that fit each other"
    )


def _misfit(registration: Registration, loaded: Descriptor) -> str | None:
    if loaded.driver_api != DRIVER_API:
        return other_api(loaded)
    said = loaded.kind, loaded.name.lower(), normal_version(loaded.version)
    if said != (registration.kind, registration.name, registration.version):
        return f"leads to the descriptor of {loaded.type} {loaded.version}"
    return None


def _load_entry_point(entry_point: EntryPoint) -> object:
    from stevedore.driver import DriverManager

    class OneEntryPoint(DriverManager[object]):
        def list_entry_points(self) -> list[EntryPoint]:
            return [entry_point]

    return OneEntryPoint(entry_point.group, entry_point.name).driver


def _entry_points() -> list[EntryPoint]:
    from importlib import metadata

    try:
        found = metadata.entry_points()
        return [entry_point for group in _GROUPS for entry_point in found.select(group=group)]
    except Exception:  # a damaged file of any distribution, ours or not, ends the quick scan
        return list(_entry_points_one_by_one(metadata.distributions()))


def _entry_points_one_by_one(distributions: Iterable[Distribution]) -> Iterator[EntryPoint]:
    import logging

    seen: set[str] = set()
    for distribution in distributions:
        name, version = _identity(distribution)
        if _normal_name(name) in seen:
            continue
        seen.add(_normal_name(name))
        try:
            found = [entry_point for entry_point in distribution.entry_points if entry_point.group in _GROUPS]
        except Exception as exc:  # whatever a damaged file causes, the other distributions stay usable
            logging.getLogger("lapel.registry").warning(
                "entry points of distribution %s %s cannot be read, its drivers are ignored: %s", name, version, exc
            )
            continue
        yield from found


def _identity(distribution: Distribution) -> tuple[str, str]:
    try:
        found = distribution.metadata
        return str(found["Name"] or "unknown distribution"), str(found["Version"] or "")
    except Exception:  # damaged metadata must not hide the driver it belongs to
        return "unknown distribution", ""


def _normal_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _is_installed(distribution: str) -> bool:
    from importlib import metadata

    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _extras(distribution: str) -> dict[str, set[str]]:
    """Return the packages that each extra asks for, other extras of the same distribution included.

    Requirements with a further marker (platform, Python version) are left out: whether they apply here
    is found out when the driver is imported.
    """
    from importlib import metadata

    try:
        found = metadata.metadata(distribution)
        requirements = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return {}
    packages: dict[str, set[str]] = {_normal_name(name): set() for name in found.get_all("Provides-Extra", [])}
    included: dict[str, set[str]] = {name: {name} for name in packages}
    for requirement in requirements:
        wanted, _, marker = requirement.rpartition(";")
        extra, package = _EXTRA_MARKER.fullmatch(marker), _REQUIREMENT.match(wanted)
        if not extra or not package or _normal_name(extra[1]) not in packages:
            continue
        if _normal_name(package[1]) == _normal_name(distribution):
            included[_normal_name(extra[1])].update(map(_normal_name, (package[2] or "").split(",")))
        else:
            packages[_normal_name(extra[1])].add(package[1])
    return {name: _closure(name, packages, included) for name in packages}


def _closure(extra: str, packages: dict[str, set[str]], included: dict[str, set[str]]) -> set[str]:
    pending, seen = [extra], set[str]()
    while pending:
        name = pending.pop()
        if name in packages and name not in seen:
            seen.add(name)
            pending.extend(included[name])
    return {package for name in seen for package in packages[name]}
