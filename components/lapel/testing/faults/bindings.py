"""The fault suite of bindings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from ...bindings import OutputBinding
from ...component import Component
from ...errors import LapelError
from ..bindings.base import BindingBase
from .base import Request
from .cancellation import CancellationTests
from .connection import ConnectionTests

__all__ = ["BindingFaultSuite"]


class BindingFaultSuite(ConnectionTests, CancellationTests, BindingBase):
    """What every output binding must show when something breaks. Override the fixture `backend`.

    The option `target` of the Conformance document names the request metadata that an object is called by; without it
    only the first operation is tried, and its effect is not looked at.
    """

    def requests(self, component: Component[Any], behind: Component[Any], name: str) -> Sequence[Request]:
        """Return the calls that make, read and remove an object."""
        binding, other = cast("OutputBinding", component), cast("OutputBinding", behind)
        create = "create" if "create" in binding.operations else binding.operations[0]
        effect = binding.driver.effect
        if not self._target:
            return [
                Request(
                    name=create, effect=effect(create), mark=name, send=lambda: binding.invoke(create, name.encode())
                )
            ]

        def about(operation: str) -> dict[str, str]:
            return {self._target: f"{name}{operation}"}

        def making(operation: str) -> Callable[[], Awaitable[object]]:
            return lambda: other.invoke(create, f"data of {name}".encode(), metadata=about(operation))

        async def exists(operation: str) -> bool:
            try:
                reply = await (await other.invoke("get", metadata=about(operation))).read()
            except LapelError:
                return False
            return reply == f"data of {name}".encode()

        async def is_created() -> int:
            return int(await exists(create))

        async def is_deleted() -> int:
            return int(not await exists("delete"))

        async def get() -> None:
            reply = await binding.invoke("get", metadata=about("get"))
            assert await reply.read() == f"data of {name}".encode()

        readable = "get" in binding.operations
        offered = [
            Request(
                name=create,
                effect=effect(create),
                mark=f"{name}{create}",
                send=lambda: binding.invoke(create, f"data of {name}".encode(), metadata=about(create)),
                done=is_created if readable else None,
            )
        ]
        if readable:
            offered.append(
                Request(
                    name="get",
                    effect=effect("get"),
                    mark=f"{name}get",
                    prepare=making("get"),
                    send=get,
                    reads=True,
                )
            )
        if "delete" in binding.operations:
            offered.append(
                Request(
                    name="delete",
                    effect=effect("delete"),
                    mark=f"{name}delete",
                    prepare=making("delete"),
                    send=lambda: binding.invoke("delete", metadata=about("delete")),
                    done=is_deleted if readable else None,
                )
            )
        return offered
