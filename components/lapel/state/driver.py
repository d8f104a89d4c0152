"""The class that authors of state drivers subclass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from ..driver import Driver, SettingsT
from ..errors import LapelError, UnsupportedError
from .types import (
    DeletePrefixRequest,
    DeleteRequest,
    GetRequest,
    KeysPage,
    KeysRequest,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateItem,
    TransactionRequest,
)

__all__ = ["StateDriver"]


class StateDriver(Driver[SettingsT]):
    """A key-value store. `get`, `set` and `delete` are enough; the rest needs its capability flag.

    Requests are validated: keys are not empty and hold no NUL, a `ttl` or precondition comes only if the flag is
    declared. Keys are distinct by code point; one that the backend cannot hold whole is refused with
    `InvalidArgumentError`, never cut.
    """

    @property
    def default_ttl(self) -> int | None:
        """The lifetime in seconds of writes that name none, from the component's own field; None for ever."""
        return None

    @abstractmethod
    async def get(self, request: GetRequest) -> StateItem | None:
        """Return the item, or None when the key is missing or expired. An empty value is an item."""

    @abstractmethod
    async def set(self, request: SetRequest) -> str | None:
        """Store the value durably and return its new etag, None without `ETAG`.

        The etag changes with every write, also of the same value, and one from before a delete never matches a
        re-created key. Raises `EtagMismatchError` when the precondition does not hold (an `IfMatch` on a missing
        key does not), `EtagInvalidError` when the etag cannot be one, `OutcomeUnknownError` when the reply was lost.
        """

    @abstractmethod
    async def delete(self, request: DeleteRequest) -> None:
        """Remove the key; a missing one is no error unless a precondition is given. Raises as `set` does."""

    async def bulk_get(self, requests: Sequence[GetRequest]) -> Sequence[StateItem | LapelError | None]:
        """Answer each request, in order, duplicates included. Only called with `BULK_STATE`."""
        raise self._missing("bulk_get")

    async def bulk_set(self, requests: Sequence[SetRequest]) -> Sequence[str | LapelError | None]:
        """Write each request and return etag or error of each, in order. Never a transaction: good ones are applied.

        Requests for one key are applied in order. Only called with `BULK_STATE`.
        """
        raise self._missing("bulk_set")

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> Sequence[LapelError | None]:
        """Remove each key and return None or the error of each, in order. Only called with `BULK_STATE`."""
        raise self._missing("bulk_delete")

    async def transaction(self, request: TransactionRequest) -> Sequence[str | None]:
        """Apply all operations in order or none; return the new etag of each set, None for each delete.

        Each operation is checked against the state that the earlier ones leave; the same key may occur twice. The
        error of the operation that is refused is raised and everything stays as it was. Only called with
        `TRANSACTIONAL` or `SAME_SLOT_TRANSACTIONAL`, never empty, within `limits.transaction_operations`.
        """
        raise self._missing("transaction")

    async def keys(self, request: KeysRequest) -> KeysPage:
        """List live keys in code-point order. Keys present throughout a listing appear exactly once.

        Only called with `KEYS_LIKE`.
        """
        raise self._missing("keys")

    async def delete_with_prefix(self, request: DeletePrefixRequest) -> int:
        """Remove the keys directly below the prefix and return how many live ones there were.

        Only called with `DELETE_WITH_PREFIX`.
        """
        raise self._missing("delete_with_prefix")

    async def query(self, request: QueryRequest) -> QueryResult:
        """Return the JSON values that match. Only called with `QUERY_API`."""
        raise self._missing("query")

    def _missing(self, operation: str) -> UnsupportedError:
        return UnsupportedError(
            "is declared by the descriptor but not implemented by the driver class",
            driver=self.descriptor.type,
            operation=operation,
        )
