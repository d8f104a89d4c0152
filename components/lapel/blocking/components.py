"""Open components for synchronous programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Literal, Self, TypeVar

from .. import assembly, bindings, configuration, crypto, lock, opening, pubsub, secretstores, state
from ..errors import LapelError
from ..manifest import Document, Manifest
from ..policy import RetryPolicy
from ..registry import Registry
from .crypto import CryptoProvider
from .facade import Component, Facade, blocking
from .messaging import InputBinding, OutputBinding, PubSub
from .runner import Runner, awaited
from .stores import ConfigurationStore, LockStore, SecretStore, StateStore

__all__ = [
    "Components",
    "open_components",
    "open_configuration",
    "open_crypto",
    "open_input_binding",
    "open_lock",
    "open_output_binding",
    "open_pubsub",
    "open_secret_store",
    "open_state",
]

T = TypeVar("T")
F = TypeVar("F")
Source = str | os.PathLike[str] | Manifest

_FACADES: Mapping[type[Any], type[Component[Any]]] = {
    state.StateStore: StateStore,
    pubsub.PubSub: PubSub,
    bindings.OutputBinding: OutputBinding,
    bindings.InputBinding: InputBinding,
    secretstores.SecretStore: SecretStore,
    configuration.ConfigurationStore: ConfigurationStore,
    lock.LockStore: LockStore,
    crypto.CryptoProvider: CryptoProvider,
}


class Components(Facade[assembly.Components]):
    """Open components by name, as `lapel.Components`. A `with` block closes them at its end."""

    health = blocking(assembly.Components.health)
    add = blocking(assembly.Components.add)
    replace = blocking(assembly.Components.replace)
    remove = blocking(assembly.Components.remove)

    def load(self, source: Source | Iterable[Source]) -> None:
        """Open every component of `source` beside those that are open, as `lapel.Components.load`."""
        self._runner.run(self._inner.load(_sources(source)))

    def state(self, name: str) -> StateStore:
        """Return the state store of this name.

        Like its siblings it raises `NotFoundError` when there is none, `UnavailableError` when it was left out
        (`ignoreErrors`), and `ClosedError` after `close`.
        """
        return StateStore(self._inner.state(name), self._runner)

    def pubsub(self, name: str) -> PubSub:
        """Return the pub/sub component of this name."""
        return PubSub(self._inner.pubsub(name), self._runner)

    def output_binding(self, name: str) -> OutputBinding:
        """Return the output side of the binding of this name."""
        return OutputBinding(self._inner.output_binding(name), self._runner)

    def input_binding(self, name: str) -> InputBinding:
        """Return the input side of the binding of this name."""
        return InputBinding(self._inner.input_binding(name), self._runner)

    def secret_store(self, name: str) -> SecretStore:
        """Return the secret store of this name."""
        return SecretStore(self._inner.secret_store(name), self._runner)

    def configuration(self, name: str) -> ConfigurationStore:
        """Return the configuration store of this name."""
        return ConfigurationStore(self._inner.configuration(name), self._runner)

    def lock(self, name: str) -> LockStore:
        """Return the lock store of this name."""
        return LockStore(self._inner.lock(name), self._runner)

    def crypto(self, name: str) -> CryptoProvider:
        """Return the crypto provider of this name."""
        return CryptoProvider(self._inner.crypto(name), self._runner)

    @property
    def app_id(self) -> str | None:
        """The application that the components were opened for."""
        return self._inner.app_id

    @property
    def namespace(self) -> str | None:
        """The namespace that the components were opened for."""
        return self._inner.namespace

    @property
    def manifests(self) -> Mapping[str, Manifest]:
        """What each component was made from, by name; those that were left out are included."""
        return self._inner.manifests

    @property
    def documents(self) -> tuple[Document, ...]:
        """The documents that are not components, of every file that was loaded, whatever their scope."""
        return self._inner.documents

    @property
    def failures(self) -> Mapping[str, LapelError]:
        """Components with `ignoreErrors` that could not even be built, each with its error."""
        return self._inner.failures

    def close(self) -> None:
        """Close everything in reverse order of opening, secret stores last, and end the background thread.

        Idempotent and bounded. Called by a handler of one of the components it returns at once, and the closing goes on
        in the background. Does nothing in a forked child.
        """
        self._runner.close(self._inner.aclose)

    def __iter__(self) -> Iterator[Component[Any]]:
        for component in self._inner:
            yield _FACADES[type(component)](component, self._runner)

    def __len__(self) -> int:
        return len(self._inner)

    def __contains__(self, name: object) -> bool:
        return name in self._inner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_components(
    source: Source | Iterable[Source],
    *,
    app_id: str | None = None,
    namespace: str | None = None,
    retries: RetryPolicy | None = None,
    call_timeout: timedelta | None = None,
    envelope: bool = True,
    unknown: Literal["error", "warn"] = "error",
    registry: Registry | None = None,
) -> Components:
    """Open every component of a folder, of files, or of manifests made in code, as `lapel.open_components`.

    Use the result with `with`, or call its `close`. Arguments and errors are those of the asynchronous function; in a
    running event loop it raises `WrongLoopError`. When it raises, nothing is left behind.
    """
    making = assembly.open_components(
        _sources(source),
        app_id=app_id,
        namespace=namespace,
        retries=retries,
        call_timeout=call_timeout,
        envelope=envelope,
        unknown=unknown,
        registry=registry,
    )
    return _open(making, Components)


def open_state(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> StateStore:
    """Open a state store, as `lapel.open_state`: `with blocking.open_state("sqlite", ...) as store`, or `close` it."""
    return _open(opening.open_state(driver, settings, **options), partial(StateStore, alone=True))


def open_pubsub(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> PubSub:
    """Open a pub/sub component. Arguments as for `open_state`."""
    return _open(opening.open_pubsub(driver, settings, **options), partial(PubSub, alone=True))


def open_output_binding(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> OutputBinding:
    """Open the output side of a binding. Arguments as for `open_state`."""
    return _open(opening.open_output_binding(driver, settings, **options), partial(OutputBinding, alone=True))


def open_input_binding(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> InputBinding:
    """Open the input side of a binding. Arguments as for `open_state`."""
    return _open(opening.open_input_binding(driver, settings, **options), partial(InputBinding, alone=True))


def open_secret_store(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> SecretStore:
    """Open a secret store. Arguments as for `open_state`."""
    return _open(opening.open_secret_store(driver, settings, **options), partial(SecretStore, alone=True))


def open_configuration(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> ConfigurationStore:
    """Open a configuration store. Arguments as for `open_state`."""
    return _open(opening.open_configuration(driver, settings, **options), partial(ConfigurationStore, alone=True))


def open_lock(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> LockStore:
    """Open a lock store. Arguments as for `open_state`."""
    return _open(opening.open_lock(driver, settings, **options), partial(LockStore, alone=True))


def open_crypto(driver: str, settings: Mapping[str, Any] | None = None, **options: Any) -> CryptoProvider:
    """Open a crypto provider. Arguments as for `open_state`."""
    return _open(opening.open_crypto(driver, settings, **options), partial(CryptoProvider, alone=True))


def _open(making: opening.Opening[T], facade: Callable[[T, Runner], F]) -> F:
    runner = Runner()
    try:
        return facade(runner.run(awaited(making)), runner)
    except BaseException:
        runner.stop()
        raise


def _sources(source: Source | Iterable[Source]) -> Source | Iterable[Source]:
    return list(source) if isinstance(source, Iterator) else source
