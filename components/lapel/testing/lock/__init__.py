"""The suite of locks."""

from __future__ import annotations

from ..lifecycle import ComponentSuite
from .basic import BasicTests
from .holding import HoldingTests
from .races import RaceTests

__all__ = ["LockSuite"]


class LockSuite(BasicTests, RaceTests, HoldingTests, ComponentSuite):
    """What every lock store must show.

    Options of the Conformance document: `shared: "true"` when two components with the same settings exclude each
    other (false for locks in memory).
    """
