"""Open single components without component files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .building import build
from .component import Component, ComponentOptions, unsupported
from .descriptor import Capability, Kind
from .errors import ConfigurationError
from .manifest import DEFAULT_INIT_TIMEOUT, Manifest
from .policy import RetryPolicy
from .registry import Registry, default_registry

if TYPE_CHECKING:
    from .bindings import InputBinding, OutputBinding
    from .configuration import ConfigurationStore
    from .crypto import CryptoProvider
    from .lock import LockStore
    from .pubsub import PubSub
    from .secretstores import SecretStore
    from .state import StateStore

__all__ = [
    "Opening",
    "open_configuration",
    "open_crypto",
    "open_input_binding",
    "open_lock",
    "open_output_binding",
    "open_pubsub",
    "open_secret_store",
    "open_state",
]

C = TypeVar("C")


class Opening(Generic[C]):
    """Something about to be opened: `async with` it, or `await` it and call `aclose` on the result yourself."""

    def __init__(self, open_: Callable[[], Awaitable[C]], close: Callable[[C], Awaitable[None]]) -> None:
        self._open = open_
        self._close = close
        self._result: C | None = None

    def __await__(self) -> Generator[Any, None, C]:
        return self._open().__await__()

    async def __aenter__(self) -> C:
        self._result = await self._open()
        return self._result

    async def __aexit__(self, *exc_info: object) -> None:
        if self._result is not None:
            await self._close(self._result)


def open_state(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Opening[StateStore]:
    """Open a state store: `async with lapel.open_state("sqlite", connection_string="app.db") as store`.

    `driver` is the type without its kind. Settings are given by `settings` or as keyword arguments, under the names of
    component files or their Python names. The keywords `name`, `version`, `app_id`, `namespace`, `require`, `retries`,
    `call_timeout`, `init_timeout`, `envelope` and `registry` are not settings but shape the component: `name` defaults
    to the driver's, `require` lists capabilities without which opening fails with `UnsupportedError`, and the others
    are those of `ComponentOptions`. A setting of such a name goes into `settings`.

    Raises `DriverNotFoundError`, `MissingExtraError`, `SettingsError`, or what opening raises.
    """
    return _opening(Kind.STATE, "output", driver, settings, options)


def open_pubsub(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Opening[PubSub]:
    """Open a pub/sub component. Arguments as for `open_state`."""
    return _opening(Kind.PUBSUB, "output", driver, settings, options)


def open_output_binding(
    driver: str, settings: Mapping[str, Any] | None = None, **options: Any
) -> Opening[OutputBinding]:
    """Open the output side of a binding. Arguments as for `open_state`."""
    return _opening(Kind.BINDINGS, "output", driver, settings, options)


def open_input_binding(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Opening[InputBinding]:
    """Open the input side of a binding. Arguments as for `open_state`."""
    return _opening(Kind.BINDINGS, "input", driver, settings, options)


def open_secret_store(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Opening[SecretStore]:
    """Open a secret store. Arguments as for `open_state`."""
    return _opening(Kind.SECRETSTORES, "output", driver, settings, options)


def open_configuration(
    driver: str, settings: Mapping[str, Any] | None = None, **options: Any
) -> Opening[ConfigurationStore]:
    """Open a configuration store. Arguments as for `open_state`."""
    return _opening(Kind.CONFIGURATION, "output", driver, settings, options)


def open_lock(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Opening[LockStore]:
    """Open a lock store. Arguments as for `open_state`."""
    return _opening(Kind.LOCK, "output", driver, settings, options)


def open_crypto(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Opening[CryptoProvider]:
    """Open a crypto provider. Arguments as for `open_state`."""
    return _opening(Kind.CRYPTO, "output", driver, settings, options)


def _opening(
    kind: Kind, side: str, driver: str, settings: Mapping[str, Any] | None, arguments: dict[str, Any]
) -> Opening[Any]:
    name: str = arguments.pop("name", None) or driver
    version: str = arguments.pop("version", "v1")
    require: Capability = arguments.pop("require", Capability(0))
    registry: Registry = arguments.pop("registry", None) or default_registry()
    retries: RetryPolicy | None = arguments.pop("retries", None)
    init_timeout: timedelta = arguments.pop("init_timeout", DEFAULT_INIT_TIMEOUT)
    options = ComponentOptions(
        app_id=arguments.pop("app_id", None),
        namespace=arguments.pop("namespace", None),
        retries=retries,
        call_timeout=arguments.pop("call_timeout", None),
        init_timeout=init_timeout,
        envelope=arguments.pop("envelope", True),
    )
    values = {**(settings or {}), **arguments}

    async def open_() -> Component[Any]:
        manifest = Manifest.of(name, f"{kind.value}.{driver}", version=version, init_timeout=init_timeout)
        built = await asyncio.to_thread(build, manifest, options, registry, values=values)
        component = built.get(side)
        if component is None:
            raise ConfigurationError(f"has no {side} side", component=name, driver=f"{kind.value}.{driver}")
        await _demand(component, require)
        await component.open()
        try:
            await _demand(component, require)
        except BaseException:
            await component.aclose()
            raise
        return component

    return Opening(open_, lambda component: component.aclose())


async def _demand(component: Component[Any], require: Capability) -> None:
    missing = require & ~component.capabilities
    if missing:
        # To name drivers that could, it loads their descriptors.
        raise await asyncio.to_thread(unsupported, component.driver, missing, "open")
