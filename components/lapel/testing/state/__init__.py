"""The suite of state stores."""

from __future__ import annotations

from ..lifecycle import ComponentSuite
from .basic import BasicTests
from .bulk import BulkTests
from .etags import EtagTests
from .keys import KeyTests
from .lifetimes import LifetimeTests
from .listing import ListingTests
from .query import QueryTests
from .races import RaceTests
from .transactions import TransactionTests

__all__ = ["StateSuite"]


class StateSuite(
    BasicTests,
    KeyTests,
    EtagTests,
    RaceTests,
    LifetimeTests,
    BulkTests,
    TransactionTests,
    ListingTests,
    QueryTests,
    ComponentSuite,
):
    """What every state store must show.

    Options of the Conformance document: `badEtag`, a well-formed etag that no item has; `shared: "true"` when two
    components with the same settings see the same data (false for stores in memory).
    """
