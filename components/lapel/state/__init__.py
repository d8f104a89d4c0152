"""State: keys and values with etags, lifetimes, transactions and queries."""

from .driver import StateDriver
from .settings import StateSettings
from .store import StateStore
from .types import (
    BulkGetOutcome,
    BulkOutcome,
    Concurrency,
    Consistency,
    DeleteOperation,
    DeletePrefixRequest,
    DeleteRequest,
    GetRequest,
    IfAbsent,
    IfMatch,
    KeysPage,
    KeysRequest,
    QueryItem,
    QueryRequest,
    QueryResult,
    SetOperation,
    SetRequest,
    StateItem,
    TransactionRequest,
)

__all__ = [
    "BulkGetOutcome",
    "BulkOutcome",
    "Concurrency",
    "Consistency",
    "DeleteOperation",
    "DeletePrefixRequest",
    "DeleteRequest",
    "GetRequest",
    "IfAbsent",
    "IfMatch",
    "KeysPage",
    "KeysRequest",
    "QueryItem",
    "QueryRequest",
    "QueryResult",
    "SetOperation",
    "SetRequest",
    "StateDriver",
    "StateItem",
    "StateSettings",
    "StateStore",
    "TransactionRequest",
]
