"""The suite of configuration stores."""

from __future__ import annotations

from ..lifecycle import ComponentSuite
from .reading import ReadingTests
from .watching import WatchingTests
from .writers import ConfigurationWriter

__all__ = ["ConfigurationSuite", "ConfigurationWriter"]


class ConfigurationSuite(ReadingTests, WatchingTests, ComponentSuite):
    """What every configuration store must show.

    Options of the Conformance document: `writer`, as `module:Class`, the `ConfigurationWriter` that changes items from
    outside (required); for a store that cannot hold them, "false" for each of `emptyValues`, `metadata` (of items), and
    `versionBars` (versions with two bars in them).
    """
