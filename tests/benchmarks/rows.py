"""What a benchmark reports.

Every other module of this folder except `run` measures one thing: `async def run()` returns a list of `Row`. It runs in
a process of its own. Numbers are medians of seven pairs of ours and baseline, one after the other, so that a machine
that slows down for a while slows both.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

__all__ = ["PAIRS", "Row"]

PAIRS = 7


class Row(TypedDict):
    """One line of the table. A row whose `target` is `none` is there for information, and `ok`."""

    name: str
    unit: str
    """Of `ours` and `baseline`: a time or a rate."""
    ours: float
    baseline: NotRequired[float]
    """The same work done the ordinary way."""
    ratio: NotRequired[float]
    """Ours divided by baseline."""
    overhead: NotRequired[float]
    """Ours minus baseline, in `unit`."""
    target: str
    ok: bool
