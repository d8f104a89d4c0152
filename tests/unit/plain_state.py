"""The smallest state driver there can be: three methods, no flag."""

from __future__ import annotations

from lapel.descriptor import Descriptor, Kind
from lapel.state import DeleteRequest, GetRequest, SetRequest, StateDriver, StateItem, StateSettings

PLAIN = Descriptor(
    kind=Kind.STATE,
    name="plain",
    driver="tests.unit.plain_state:PlainState",
    settings="lapel.state:StateSettings",
    summary="A dictionary.",
)


class PlainState(StateDriver[StateSettings]):
    descriptor = PLAIN

    async def open(self) -> None:
        self.items: dict[str, bytes] = {}

    async def close(self) -> None:
        pass

    async def get(self, request: GetRequest) -> StateItem | None:
        data = self.items.get(request.key)
        return None if data is None else StateItem(data=data)

    async def set(self, request: SetRequest) -> str | None:
        self.items[request.key] = request.value
        return None

    async def delete(self, request: DeleteRequest) -> None:
        self.items.pop(request.key, None)
