"""A driver as its author writes it. A type checker reads it; nobody runs it."""

from __future__ import annotations

from typing import assert_type

from lapel import Capability, Descriptor, Kind, Secret, setting
from lapel.errors import EtagMismatchError
from lapel.state import DeleteRequest, GetRequest, IfAbsent, SetRequest, StateDriver, StateItem, StateSettings

ACME = Descriptor(
    kind=Kind.STATE,
    name="acme",
    driver="acme:AcmeState",
    settings="acme:AcmeSettings",
    summary="Keys and values at Acme.",
    capabilities=Capability.ETAG,
    distribution="lapel-acme",
)


class AcmeSettings(StateSettings):
    """Settings of state.acme."""

    host: str = setting("host", doc="Where Acme listens.")
    password: Secret | None = setting("password", default=None, doc="What Acme asks for.")


class AcmeState(StateDriver[AcmeSettings]):
    """Keeps everything in a dictionary."""

    descriptor = ACME

    async def open(self) -> None:
        assert_type(self.settings, AcmeSettings)
        assert_type(self.settings.host, str)
        self._items: dict[str, StateItem] = {}

    async def close(self) -> None:
        self._items.clear()

    async def get(self, request: GetRequest) -> StateItem | None:
        return self._items.get(request.key)

    async def set(self, request: SetRequest) -> str | None:
        if isinstance(request.precondition, IfAbsent) and request.key in self._items:
            raise EtagMismatchError("exists already")
        self._items[request.key] = StateItem(data=request.value, etag="1")
        return "1"

    async def delete(self, request: DeleteRequest) -> None:
        self._items.pop(request.key, None)


class Wrong(AcmeState):
    """Breaks the contract in ways that a type checker must find."""

    async def get(self, request: str) -> StateItem | None:  # type: ignore[override]
        return None

    async def delete(self, request: DeleteRequest) -> int:  # type: ignore[override]
        return 1


def mistakes() -> None:
    Descriptor(kind="state", name="a", driver="b:C", settings="d:E", summary="")  # type: ignore[arg-type]
    Descriptor(kind=Kind.STATE, name="a")  # type: ignore[call-arg]
