"""Drivers whose backends live in this module, so that tests decide what works and see what was opened and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lapel.bindings.driver import BindingDriver
from lapel.bindings.settings import BindingSettings
from lapel.bindings.types import BindingResponse, InvokeRequest
from lapel.descriptor import Capability, Descriptor, Kind, Limits
from lapel.errors import NotFoundError, PermissionDeniedError, UnavailableError
from lapel.registry import Registry
from lapel.secretstores import GetSecretRequest, SecretStoreDriver
from lapel.settings import Secret, Settings, setting
from lapel.state import DeleteRequest, GetRequest, SetRequest, StateDriver, StateItem, StateSettings

__all__ = ["BINDING", "SECRETS", "STATE", "STATE_V2", "World", "registry", "world"]

HERE = "tests.unit.sample_drivers"


@dataclass
class World:
    """What the backends do, and what happened to them."""

    journal: list[str] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    """Backends that cannot be reached."""
    hanging: dict[str, asyncio.Event] = field(default_factory=dict)
    """Backends that answer to `open` only when the event is set."""
    arrived: dict[str, asyncio.Event] = field(default_factory=dict)
    """Set when a hanging backend is asked."""
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    clients: int = 0
    """How many clients are connected right now."""
    seen: dict[str, Settings] = field(default_factory=dict)
    """The settings with which each component opened last."""

    def hang(self, backend: str) -> asyncio.Event:
        self.hanging[backend] = asyncio.Event()
        self.arrived[backend] = asyncio.Event()
        return self.arrived[backend]

    @property
    def open(self) -> list[str]:
        """Names of components that opened and did not close."""
        names: list[str] = []
        for line in self.journal:
            verb, name = line.split()
            if verb == "open":
                names.append(name)
            elif name in names:
                names.remove(name)
        return names


world = World()


async def connect(backend: str) -> None:
    if backend in world.hanging:
        world.arrived[backend].set()
        await world.hanging[backend].wait()
    if backend in world.down:
        raise UnavailableError(f"the backend {backend!r} does not answer")


class StateFields(StateSettings):
    """Settings of state.sample."""

    backend: str = setting("backend", aliases=("host",), doc="Which backend to use.", example="b1")
    password: Secret | None = setting("password", default=None, doc="What the backend asks for.")
    size: int = setting("size", default=10, minimum=1, doc="How much.")
    old: str | None = setting("old", refused="the sample never had it")
    knob: str | None = setting("knob", ignored="there is nothing to tune")


STATE = Descriptor(
    kind=Kind.STATE,
    name="sample",
    driver=f"{HERE}:SampleState",
    settings=f"{HERE}:StateFields",
    summary="Keys and values for tests.",
    capabilities=Capability.ETAG | Capability.TTL,
    limits=Limits(key_bytes=100),
    aliases=("specimen",),
)


class SampleState(StateDriver[StateFields]):
    """Keeps values until it closes."""

    descriptor = STATE

    async def open(self) -> None:
        async def create() -> dict[str, StateItem]:
            await connect(self.settings.backend)
            world.clients += 1
            return {}

        async def close(client: object) -> None:
            world.clients -= 1

        self._items = await self.context.shared.acquire(self.settings.backend, create, close)
        world.journal.append(f"open {self.context.component}")
        world.seen[self.context.component] = self.settings

    async def close(self) -> None:
        if hasattr(self, "_items"):
            world.journal.append(f"close {self.context.component}")
            await self.context.shared.release(self.settings.backend)

    async def ping(self) -> None:
        if f"{self.settings.backend}-ping" in world.down:
            raise UnavailableError("no pong")

    async def get(self, request: GetRequest) -> StateItem | None:
        return self._items.get(request.key)

    async def set(self, request: SetRequest) -> str | None:
        self._items[request.key] = StateItem(data=request.value, etag="1")
        return "1"

    async def delete(self, request: DeleteRequest) -> None:
        self._items.pop(request.key, None)


class SecretFields(Settings):
    """Settings of secretstores.sample."""

    backend: str = setting("backend", default="vault", doc="Which backend to use.")
    token: Secret | None = setting("token", default=None, doc="What the backend asks for.")


SECRETS = Descriptor(
    kind=Kind.SECRETSTORES,
    name="sample",
    driver=f"{HERE}:SampleSecrets",
    settings=f"{HERE}:SecretFields",
    summary="Secrets for tests.",
)


class SampleSecrets(SecretStoreDriver[SecretFields]):
    """Answers from `world.secrets`."""

    descriptor = SECRETS

    async def open(self) -> None:
        await connect(self.settings.backend)
        self._opened = True
        world.journal.append(f"open {self.context.component}")
        world.seen[self.context.component] = self.settings

    async def close(self) -> None:
        if hasattr(self, "_opened"):
            world.journal.append(f"close {self.context.component}")

    async def get(self, request: GetSecretRequest) -> Mapping[str, str]:
        if f"{request.name}-forbidden" in world.down:
            raise PermissionDeniedError("not for you")
        if request.name not in world.secrets:
            raise NotFoundError(f"no secret {request.name!r}")
        return world.secrets[request.name]


class BindingFields(BindingSettings):
    """Settings of bindings.sample."""

    backend: str = setting("backend", default="outside", doc="Which backend to use.")


BINDING = Descriptor(
    kind=Kind.BINDINGS,
    name="sample",
    driver=f"{HERE}:SampleBinding",
    settings=f"{HERE}:BindingFields",
    summary="An outside system for tests.",
    capabilities=Capability.OUTPUT,
    operations=("create",),
)


class SampleBinding(BindingDriver[BindingFields]):
    """Answers with what it was given."""

    descriptor = BINDING

    async def open(self) -> None:
        await connect(self.settings.backend)
        world.journal.append(f"open {self.context.component}")

    async def close(self) -> None:
        world.journal.append(f"close {self.context.component}")

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        return BindingResponse(data=request.data if isinstance(request.data, bytes) else None)


class FieldsV2(StateSettings):
    """Settings of state.sample/v2, whose constructor fails."""


STATE_V2 = Descriptor(
    kind=Kind.STATE,
    name="sample",
    version="v2",
    driver=f"{HERE}:UnbuildableState",
    settings=f"{HERE}:FieldsV2",
    summary="A driver that cannot be built.",
)


class UnbuildableState(SampleState):
    """Fails in its constructor."""

    descriptor: ClassVar[Descriptor] = STATE_V2

    def __init__(self, *arguments: Any) -> None:
        raise ZeroDivisionError("a fault of the driver")


def registry(*more: Descriptor) -> Registry:
    """Return a registry of the sample drivers alone."""
    return Registry(STATE, STATE_V2, SECRETS, BINDING, *more, installed=False)
