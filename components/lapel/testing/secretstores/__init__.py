"""The suite of secret stores."""

from __future__ import annotations

from ..lifecycle import ComponentSuite
from .reading import ReadingTests
from .secrecy import SecrecyTests
from .writers import SecretWriter

__all__ = ["SecretStoreSuite", "SecretWriter"]


class SecretStoreSuite(ReadingTests, SecrecyTests, ComponentSuite):
    """What every secret store must show.

    The secrets `conftestsecret` with the value `abcd` and `secondsecret` with `efgh` must be there, or a writer that
    puts them. Options of the Conformance document: `writer`, as `module:Class`, a `SecretWriter` without which
    everything is skipped that changes secrets; `hidden`, names that are hidden on purpose, separated by commas;
    `refresh: "false"` for a store that reads its source only when it opens; `emptyValues: "false"` for one that
    cannot hold them.
    """
