"""Which drivers are installed, by kind, name and version.

Drivers are entry points of the groups `lapel.state` to `lapel.crypto`. The entry's name is the type without
its kind, followed by `/v2` for a later version; it leads to a `Descriptor`. There is one scan per process. A
descriptor is loaded when it is asked for, and a broken one concerns only those who ask.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module, invalidate_caches
from typing import TYPE_CHECKING, Any

from ._discovery import Registration, Scan, normal_version, other_api
from .descriptor import DRIVER_API, Capability, Descriptor, Kind
from .errors import DriverLoadError, DriverNotFoundError, LapelError, MissingExtraError

if TYPE_CHECKING:
    from .driver import Driver

__all__ = ["Entry", "Registry", "default_registry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One registered driver as a listing shows it, whether it works or not.

    `distribution` and `distribution_version` name what brought it. `descriptor` is None when the entry is
    broken; `error` then says why (`DriverLoadError` or `DriverConflictError`). `loadable` is False when it is broken or
    when packages of its extra are not installed; in the second case `error` is None and `command` is the
    line to type.
    """

    kind: Kind
    name: str
    version: str
    distribution: str
    distribution_version: str
    descriptor: Descriptor | None
    error: LapelError | None
    loadable: bool
    command: str | None
    registry: Registry = field(repr=False, compare=False)

    @property
    def type(self) -> str:
        """The type as component files write it, for example `state.sqlite`."""
        return f"{self.kind.value}.{self.name}"

    def check(self) -> Entry:
        """Import the driver class, and with it the SDK, and return the entry with what came of it.

        Blocks while importing. Never raises for a broken driver: the entry returned has the `error`.
        """
        if self.descriptor is None:
            return self
        try:
            self.registry.driver_class(self.descriptor)
        except MissingExtraError as exc:
            return replace(self, error=None, loadable=False, command=exc.command)
        except DriverLoadError as exc:
            return replace(self, error=exc, loadable=False, command=None)
        return replace(self, error=None, loadable=True, command=None)


class Registry:
    """The drivers of all installed distributions, and `descriptors` registered by the program itself.

    Nothing is scanned until the first question; `installed=False` leaves the installed ones out. Methods may be
    called from any thread; they block on files and imports. A driver that failed to load is tried again by the
    next call that needs it.
    """

    def __init__(self, *descriptors: Descriptor, installed: bool = True) -> None:
        self._own = descriptors
        self._installed = installed
        self._lock = threading.Lock()
        self._scan: Scan | None = None

    def names(self, kind: Kind) -> list[str]:
        """Return the registered names of a kind, sorted, without aliases. Imports no driver module."""
        return sorted(self._scanned().drivers[kind])

    def entries(self, kind: Kind | None = None) -> list[Entry]:
        """Return every registered driver of a kind, or of all, by kind, name and version.

        Loads the descriptors and no SDK. Broken drivers and every side of a conflict are included; nothing
        is raised for them.
        """
        scan = self._scanned()
        return [
            self._entry(scan, registration, claims)
            for each in ([kind] if kind else Kind)
            for _, versions in sorted(scan.drivers[each].items())
            for version in sorted(versions, key=_version_order)
            for claims in [versions[version]]
            for registration in claims
        ]

    def descriptor(self, kind: Kind, name: str, version: str = "v1") -> Descriptor:
        """Return the descriptor of a type, loading that one entry point.

        Case does not matter. The versions `""` and `v0` mean `v1`. A registered name wins over another driver's
        alias; only to find an alias are all descriptors of the kind loaded.

        Raises `DriverNotFoundError` (its text lists the names or versions there are), `DriverConflictError` or
        `DriverLoadError`.
        """
        scan = self._scanned()
        versions = scan.drivers[kind].get(name.lower()) or _by_alias(scan, kind, name.lower())
        if not versions:
            raise _unknown_name(scan, kind, name)
        claims = versions.get(normal_version(version))
        if claims is None:
            raise DriverNotFoundError(
                f"version {version!r} is not installed; there is {', '.join(sorted(versions, key=_version_order))}",
                driver=f"{kind.value}.{name}",
            )
        if len(claims) > 1:
            raise scan.conflict(claims, f"{kind.value}.{name}")
        return scan.load(claims[0])

    def driver_class(self, descriptor: Descriptor) -> type[Driver[Any]]:
        """Import and return the driver class, and with it the SDK. Slow: not for the event loop.

        Raises `MissingExtraError` when packages of the descriptor's extra are missing, and `DriverLoadError` when the
        module does not import for another reason or the class and the descriptor disagree.
        """
        from .driver import Driver  # listing drivers does not need the contract they fulfil

        scan = self._scanned()

        def failure(text: str) -> DriverLoadError:
            where = f"driver {descriptor.driver!r} of {_owner(scan, descriptor)}"
            return DriverLoadError(f"{where} {text}", driver=descriptor.type)

        if descriptor.driver_api != DRIVER_API:
            raise failure(other_api(descriptor))
        module, _, name = descriptor.driver.partition(":")
        try:
            found = getattr(import_module(module), name)
        except ModuleNotFoundError as exc:
            missing = exc.name or str(exc)
            text = f"needs the module {missing!r}, which is not installed"
            if descriptor.extra is None or missing.partition(".")[0] == module.partition(".")[0]:
                raise failure(text) from exc
            command = _command(descriptor)
            if scan.absent_packages(descriptor.distribution, descriptor.extra) == []:
                text += f", although the packages of the extra {descriptor.extra!r} are; to repair them: {command}"
                raise failure(text) from exc
            raise MissingExtraError(
                f"needs the extra {descriptor.extra!r} (module {missing!r} is not installed); type: {command}",
                command=command,
                driver=descriptor.type,
            ) from exc
        except (Exception, SystemExit) as exc:
            raise failure(f"does not load: {type(exc).__name__}: {exc}") from exc
        if not (isinstance(found, type) and issubclass(found, Driver)):
            raise failure("is not a subclass of lapel.driver.Driver")
        if getattr(found, "descriptor", None) is not descriptor:
            raise failure("has another `descriptor` than its entry point; the class must name that very object")
        return found

    def with_capability(self, kind: Kind, flag: Capability) -> list[str]:
        """Return the names of the drivers that declare every flag in `flag`, sorted; broken ones are left out."""
        loading = self._scanned().loading(kind)
        return sorted({item.name for item, loaded in loading if loaded and flag in loaded.capabilities})

    def refresh(self) -> None:
        """Forget the scan, so that distributions installed or removed since are seen.

        Modules that are imported already stay as they are; a changed driver needs a new process.
        """
        invalidate_caches()
        with self._lock:
            self._scan = None

    def _scanned(self) -> Scan:
        with self._lock:
            if self._scan is None:
                self._scan = Scan(self._own, installed=self._installed)
            return self._scan

    def _entry(self, scan: Scan, registration: Registration, claims: list[Registration]) -> Entry:
        distribution, distribution_version = scan.identity(registration)
        descriptor: Descriptor | None = None
        error: LapelError | None = None
        command: str | None = None
        if len(claims) > 1:
            error = scan.conflict(claims, registration.type)
        else:
            try:
                descriptor = scan.load(registration)
            except DriverLoadError as exc:
                error = exc
        if descriptor and descriptor.extra and scan.absent_packages(descriptor.distribution, descriptor.extra):
            command = _command(descriptor)
        return Entry(
            kind=registration.kind,
            name=registration.name,
            version=registration.version,
            distribution=distribution,
            distribution_version=distribution_version,
            descriptor=descriptor,
            error=error,
            loadable=error is None and command is None,
            command=command,
            registry=self,
        )


def default_registry() -> Registry:
    """Return the registry of this process: one scan, shared by all who ask."""
    return _DEFAULT


_DEFAULT = Registry()


def _by_alias(scan: Scan, kind: Kind, name: str) -> Mapping[str, list[Registration]]:
    found: defaultdict[str, list[Registration]] = defaultdict(list)
    for registration, descriptor in scan.loading(kind):
        if descriptor and name in (alias.lower() for alias in descriptor.aliases):
            found[registration.version].append(registration)
    return found


def _unknown_name(scan: Scan, kind: Kind, name: str) -> DriverNotFoundError:
    from difflib import get_close_matches

    loading = list(scan.loading(kind))
    known = {item.name for item, _ in loading}
    aliases = {alias.lower() for _, descriptor in loading if descriptor for alias in descriptor.aliases}
    parts = [f"no installed distribution has a {kind.value} driver of this name"]
    if close := get_close_matches(name.lower(), sorted(known | aliases), n=1):
        parts.append(f"did you mean {close[0]!r}?")
    parts.append(f"known: {', '.join(sorted(known)) or 'none'}")
    if broken := sorted({item.name for item, descriptor in loading if descriptor is None}):
        parts.append(f"of these, not loading: {', '.join(broken)}")
    return DriverNotFoundError("; ".join(parts), driver=f"{kind.value}.{name}")


def _owner(scan: Scan, descriptor: Descriptor) -> str:
    owners = [scan.owner(item) for item in scan.registrations(descriptor.kind) if item.descriptor is descriptor]
    return owners[0] if owners else descriptor.distribution


def _command(descriptor: Descriptor) -> str:
    return f'pip install "{descriptor.distribution}[{descriptor.extra}]"'


def _version_order(version: str) -> tuple[int, str]:
    return len(version), version
