"""The status page: what runs here and how it is, for people."""

from __future__ import annotations

from .page import StatusPage

__all__ = ["StatusPage"]
