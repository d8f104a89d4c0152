"""The class that authors of binding drivers subclass."""

from __future__ import annotations

from ..delivery import Backoff, Consumer
from ..driver import Driver, SettingsT
from ..errors import UnsupportedError
from ..policy import Effect
from .types import BindingResponse, InvokeRequest, ReadRequest

__all__ = ["SAFE_OPERATIONS", "BindingDriver"]

SAFE_OPERATIONS = frozenset({"get", "head", "list", "options", "query"})
"""Operations that only read unless a driver says otherwise; all others may have an effect and are sent once."""


class BindingDriver(Driver[SettingsT]):
    """A connection to an outside system: `OUTPUT` implements `invoke`, `INPUT` implements `read`.

    A component that does both is opened as two drivers, one for each direction.
    """

    content_operations: frozenset[str] = frozenset()
    """Operations whose payload is the content of a file or object. A host, which has its data as JSON, hands them a
    JSON string as the bare text."""

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations that `invoke` takes, in lower case unless the reference writes them otherwise."""
        return self.descriptor.operations

    @property
    def max_attempts(self) -> int | None:
        """How often an event is handed to a handler, from the component's own field; None for no limit."""
        return None

    @property
    def backoff(self) -> Backoff | None:
        """The pauses between attempts, from the component's own fields; None for the default."""
        return None

    def effect(self, operation: str) -> Effect:
        """Return what sending one of `operations` twice would do. The default knows the names in `SAFE_OPERATIONS`."""
        return Effect.SAFE if operation.lower() in SAFE_OPERATIONS else Effect.UNSAFE

    async def invoke(self, request: InvokeRequest) -> BindingResponse:
        """Carry out one of `operations`; bytes go out as they came, nothing is guessed or re-encoded.

        `request.operation` is spelled as in `operations`. A reply of more than about 256 KiB should be a stream,
        smaller ones bytes: a stream has a deadline for each chunk, and is not asked for again when it breaks.
        A stream of the caller is read from the task that called `invoke`.

        Raises `NotFoundError` for a target that is not there, `InvalidArgumentError` for missing metadata. Only
        called with `OUTPUT` and an operation that is offered.
        """
        raise UnsupportedError("is declared but not implemented", driver=self.descriptor.type, operation="invoke")

    async def read(self, request: ReadRequest) -> Consumer:
        """Return an armed source of events. Only called with `INPUT`.

        A settlement of RETRY hands the event back; `Settled.reply` is a `BindingResponse` for sources with `REPLY`.
        """
        raise UnsupportedError("is declared but not implemented", driver=self.descriptor.type, operation="read")
