"""Open components by name, each handed out as the class of its kind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from .component import Component, Health, HealthState
from .descriptor import Kind
from .errors import ClosedError, LapelError, NotFoundError, UnavailableError
from .manifest import Manifest

if TYPE_CHECKING:
    from .bindings import InputBinding, OutputBinding
    from .configuration import ConfigurationStore
    from .crypto import CryptoProvider
    from .lock import LockStore
    from .pubsub import PubSub
    from .secretstores import SecretStore
    from .state import StateStore

__all__ = ["Members"]


class Members:
    """What is open, by name. Nothing here waits, except `health`."""

    def __init__(self) -> None:
        # In the order of opening; a binding may have two sides.
        self._members: dict[str, dict[str, Component[Any]]] = {}
        self._manifests: dict[str, Manifest] = {}
        self._failed: dict[str, LapelError] = {}
        self._closed = False

    def state(self, name: str) -> StateStore:
        """Return the state store of this name.

        Like its siblings it raises `NotFoundError` when there is none, `UnavailableError` when it was left out
        (`ignoreErrors`), and `ClosedError` after `aclose`.
        """
        return cast("StateStore", self._get(name, Kind.STATE))

    def pubsub(self, name: str) -> PubSub:
        """Return the pub/sub component of this name."""
        return cast("PubSub", self._get(name, Kind.PUBSUB))

    def output_binding(self, name: str) -> OutputBinding:
        """Return the output side of the binding of this name."""
        return cast("OutputBinding", self._get(name, Kind.BINDINGS, "output"))

    def input_binding(self, name: str) -> InputBinding:
        """Return the input side of the binding of this name."""
        return cast("InputBinding", self._get(name, Kind.BINDINGS, "input"))

    def secret_store(self, name: str) -> SecretStore:
        """Return the secret store of this name."""
        return cast("SecretStore", self._get(name, Kind.SECRETSTORES))

    def configuration(self, name: str) -> ConfigurationStore:
        """Return the configuration store of this name."""
        return cast("ConfigurationStore", self._get(name, Kind.CONFIGURATION))

    def lock(self, name: str) -> LockStore:
        """Return the lock store of this name."""
        return cast("LockStore", self._get(name, Kind.LOCK))

    def crypto(self, name: str) -> CryptoProvider:
        """Return the crypto provider of this name."""
        return cast("CryptoProvider", self._get(name, Kind.CRYPTO))

    @property
    def manifests(self) -> Mapping[str, Manifest]:
        """What each component was made from, by name; those that were left out are included."""
        return dict(self._manifests)

    @property
    def failures(self) -> Mapping[str, LapelError]:
        """Components with `ignoreErrors` that could not even be built, each with its error."""
        return dict(self._failed)

    def __iter__(self) -> Iterator[Component[Any]]:
        for sides in list(self._members.values()):
            yield from sides.values()

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    async def health(self) -> dict[str, Health]:
        """Return the health of every component, asked concurrently; the worse side counts for a binding.

        Components that were left out (`failures`) are degraded.
        """
        members = [(name, list(sides.values())) for name, sides in self._members.items()]
        found = await asyncio.gather(*(component.health() for _, sides in members for component in sides))
        answers = iter(found)
        result: dict[str, Health] = {}
        for name, sides in members:
            of_member = [next(answers) for _ in sides]
            result[name] = next((health for health in of_member if not health.ok), of_member[0])
        for name, error in self._failed.items():
            result[name] = Health(state=HealthState.DEGRADED, reason=str(error))
        return result

    def _get(self, name: str, kind: Kind, side: str = "output") -> Any:
        sides = self._members.get(name)
        if sides is None:
            raise self._unknown_name(name)
        component = sides.get(side)
        if component is None or component.descriptor.kind is not kind:
            raise self._other_kind(name, next(iter(sides.values())), kind, side)
        return component

    def _other_kind(self, name: str, component: Component[Any], kind: Kind, side: str) -> LapelError:
        if component.descriptor.kind is not kind:
            return NotFoundError(f"{name!r} is a {component.type}, not of kind {kind.value}")
        return NotFoundError(f"{name!r} ({component.type}) has no {side} side")

    def _unknown_name(self, name: str) -> LapelError:
        if self._closed:
            return ClosedError("the components are closed; open new ones", component=name)
        if name in self._failed:
            return UnavailableError(f"was left out when the components opened: {self._failed[name]}", component=name)
        there = ", ".join(sorted(self._members)) or "none"
        return NotFoundError(f"there is no component {name!r}; there are: {there}")
