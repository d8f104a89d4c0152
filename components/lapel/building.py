"""From a manifest to components that are checked but not open. No I/O but imports; blocking, so not for the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

from .component import Component, ComponentOptions
from .descriptor import Capability, Descriptor, Kind
from .driver import DriverContext, SharedClients
from .errors import ConfigurationError, DriverLoadError, LapelError, OperationFailedError, SettingsError
from .manifest import Manifest, SecretRef
from .registry import Registry
from .secret import Secret

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["Side", "build", "settings_model", "sides_of"]

Side = Literal["output", "input"]
"""Every kind has the side `output`; bindings may have both."""

_FRONTS: Mapping[Kind, Mapping[Side, str]] = {
    Kind.STATE: {"output": "lapel.state:StateStore"},
    Kind.PUBSUB: {"output": "lapel.pubsub:PubSub"},
    Kind.BINDINGS: {"output": "lapel.bindings:OutputBinding", "input": "lapel.bindings:InputBinding"},
    Kind.SECRETSTORES: {"output": "lapel.secretstores:SecretStore"},
    Kind.CONFIGURATION: {"output": "lapel.configuration:ConfigurationStore"},
    Kind.LOCK: {"output": "lapel.lock:LockStore"},
    Kind.CRYPTO: {"output": "lapel.crypto:CryptoProvider"},
}


def build(
    manifest: Manifest,
    options: ComponentOptions,
    registry: Registry,
    *,
    secrets: Mapping[SecretRef, str | Secret] | None = None,
    values: Mapping[str, Any] | None = None,
    shared: SharedClients | None = None,
    unknown: Literal["error", "warn"] = "error",
) -> dict[str, Component[Any]]:
    """Return the component of each side, not open.

    `values` are settings given in code instead of the manifest's metadata. Raises `ConfigurationError` with every
    problem of the component, and `OperationFailedError` when the driver's own constructor fails. Warnings about a
    manifest are not repeated here: `lapel.validation` gives them.
    """
    try:
        return _build(manifest, options, registry, secrets, values, shared, unknown)
    except LapelError as exc:
        exc.locate(component=manifest.name, driver=manifest.type)
        raise
    except Exception as exc:
        raise OperationFailedError(
            f"the driver raised {type(exc).__name__} while it was built; please report this",
            component=manifest.name,
            driver=manifest.type,
        ) from exc


def settings_model(descriptor: Descriptor) -> type[Settings]:
    """Import and return the settings class. Raises `DriverLoadError` when that does not work."""
    try:
        return descriptor.settings_model()
    except Exception as exc:
        text = f"the settings {descriptor.settings!r} of {descriptor.distribution} do not load: "
        raise DriverLoadError(f"{text}{type(exc).__name__}: {exc}", driver=descriptor.type) from exc


def sides_of(descriptor: Descriptor, settings: Settings) -> list[Side]:
    """Return the sides that the component has. Raises `ConfigurationError` when `direction` asks for another."""
    if descriptor.kind is not Kind.BINDINGS:
        return ["output"]
    wanted = cast("tuple[str, ...]", getattr(settings, "direction", ()))
    offered: list[Side] = []
    if Capability.OUTPUT in descriptor.capabilities:
        offered.append("output")
    if Capability.INPUT in descriptor.capabilities:
        offered.append("input")
    for side in wanted:
        if side not in offered:
            there = " and ".join(offered) or "nothing"
            raise ConfigurationError(f"direction names {side!r}, but {descriptor.type} offers {there}")
    return [side for side in offered if not wanted or side in wanted]


def _build(
    manifest: Manifest,
    options: ComponentOptions,
    registry: Registry,
    secrets: Mapping[SecretRef, str | Secret] | None,
    values: Mapping[str, Any] | None,
    shared: SharedClients | None,
    unknown: Literal["error", "warn"],
) -> dict[str, Component[Any]]:
    descriptor = registry.descriptor(manifest.kind, manifest.driver, manifest.version)
    model = settings_model(descriptor)
    if values is None:
        options = _namespaced(manifest, options)
        resolution = manifest.resolve(secrets or {}, app_id=options.app_id, namespace=options.namespace)
        if errors := [problem for problem in resolution.problems if not problem.warning]:
            lines = [str(replace(problem, component=None)) for problem in errors]
            raise SettingsError("\n  ".join(lines), problems=errors)
        settings = model.parse(
            resolution.properties,
            component=manifest.name,
            driver=descriptor.type,
            file=manifest.file,
            line=manifest.line,
            unknown=unknown,
            warnings=[],
        )
    else:
        settings = model.parse(values, component=manifest.name, driver=descriptor.type)
    sides = sides_of(descriptor, settings)
    driver_class = registry.driver_class(descriptor)
    # Loads the descriptors of the kind here, in a thread: an `UnsupportedError` raised later, on the event loop, names
    # the drivers that could.
    registry.with_capability(manifest.kind, Capability(0))
    context = DriverContext(component=manifest.name, app_id=options.app_id, shared=shared or SharedClients())
    return {side: _front(manifest.kind, side)(driver_class(settings, context), options=options) for side in sides}


def _namespaced(manifest: Manifest, options: ComponentOptions) -> ComponentOptions:
    """Return options that keep the topics of namespaces apart where Dapr does: a pub/sub field has `{namespace}`."""
    if manifest.kind is not Kind.PUBSUB or not options.namespace:
        return options
    tagged = any(isinstance(item.value, str) and "{namespace}" in item.value for item in manifest.metadata)
    return replace(options, topic_prefix=options.namespace) if tagged else options


def _front(kind: Kind, side: Side) -> Any:
    module, _, name = _FRONTS[kind][side].partition(":")
    return getattr(import_module(module), name)
