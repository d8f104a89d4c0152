"""The suite of crypto providers."""

from __future__ import annotations

from ..lifecycle import ComponentSuite
from .ciphers import CipherTests
from .documents import DocumentTests
from .keys import KeyTests

__all__ = ["CryptoSuite"]


class CryptoSuite(CipherTests, DocumentTests, KeyTests, ComponentSuite):
    """Everything that a crypto provider promises."""
