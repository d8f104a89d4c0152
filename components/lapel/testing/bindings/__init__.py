"""The suite of bindings."""

from __future__ import annotations

from ..lifecycle import ComponentSuite
from .calls import CallTests
from .events import EventTests
from .objects import ObjectTests

__all__ = ["BindingSuite"]


class BindingSuite(CallTests, ObjectTests, EventTests, ComponentSuite):
    """What every binding must show.

    Options of the Conformance document: `target` is the request metadata that names an object, for bindings that keep
    objects under names (none by default: the tests of objects are left out); `required` the metadata, separated by
    commas, without which `get` and `delete` are refused; `root` the folder of a binding on files, which no name may
    leave; `cause` the operation of the same binding that makes an event of its data, for bindings with both sides.
    Without `cause` events are expected to come by themselves within a few seconds.
    """
