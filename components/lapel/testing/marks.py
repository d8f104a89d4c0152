"""What a suite test says about itself: the rows it carries and the capabilities it is about."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from ..descriptor import Capability
from .rows import ROWS

__all__ = ["TEST_SECONDS", "contract", "lacks", "needs", "row"]

TEST_SECONDS = 60.0
"""How long one suite test may take before it is cancelled and fails."""

_F = TypeVar("_F", bound=Callable[..., Any])


def row(*ids: str) -> Callable[[_F], _F]:
    """Mark a test as carrying rows of the table, and give a coroutine a deadline of `TEST_SECONDS`.

    Raises `ValueError` for an id that the table does not have.
    """
    if unknown := [one for one in ids if one not in ROWS]:
        raise ValueError(f"no such row: {', '.join(unknown)}; the table is in lapel.testing.rowdata")

    def mark(function: _F) -> _F:
        bounded = _with_deadline(function) if inspect.iscoroutinefunction(function) else function
        marked: _F = pytest.mark.lapel_row(*ids)(bounded)
        return marked

    return mark


def needs(*capabilities: Capability) -> pytest.MarkDecorator:
    """Run the test only against components that declare every argument; of flags joined by `|` one is enough."""
    return pytest.mark.lapel_needs(*capabilities)


def lacks(*capabilities: Capability) -> pytest.MarkDecorator:
    """Run the test only against components that declare none of the flags; it shows that they are refused."""
    return pytest.mark.lapel_lacks(*capabilities)


def contract(function: _F) -> _F:
    """Run the test through the application's class and again on the bare driver (fixture `via`)."""
    twice: _F = pytest.mark.parametrize("via", ["front", "driver"], indirect=True)(function)
    return twice


def _with_deadline(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    async def bounded(*args: Any, **kwargs: Any) -> Any:
        async with asyncio.timeout(TEST_SECONDS):
            return await function(*args, **kwargs)

    return bounded
