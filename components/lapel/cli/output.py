"""What commands print: plain text that needs neither colour nor a terminal, or JSON."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Problem

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["WIDTH", "console", "counted", "print_json", "print_problems", "print_table", "problem_data", "wrapped"]

WIDTH = 120
"""Columns of output that does not go to a terminal, so that it is the same everywhere."""


def console() -> Console:
    """Return a console on standard output, as wide as the terminal or `WIDTH`."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def print_json(data: Any) -> None:
    """Print JSON for programs. Field names are stable."""
    print(json.dumps(data, indent=2))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, fold: int | None = None) -> None:
    """Print a table without lines. Columns are never cut; the column `fold` may be broken into several lines."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, no_wrap=index != fold, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out = console()
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def print_problems(problems: Iterable[Problem]) -> None:
    """Print one line for each problem, as compilers do: `file:line: error: ...`."""
    for problem in problems:
        place = f"{problem.file}:{problem.line}: " if problem.file and problem.line else ""
        place = place or (f"{problem.file}: " if problem.file else "")
        component = f"component {problem.component!r}" if problem.component else ""
        field = f"field {problem.field!r}" if problem.field else ""
        subject = " ".join(filter(None, (component, field)))
        severity = "warning" if problem.warning else "error"
        print(
            f"{place}{severity}: {subject}: {problem.message}" if subject else f"{place}{severity}: {problem.message}"
        )


def problem_data(problem: Problem) -> dict[str, Any]:
    """Return a problem as JSON data."""
    return {
        "severity": "warning" if problem.warning else "error",
        "message": problem.message,
        "component": problem.component,
        "field": problem.field,
        "file": problem.file,
        "line": problem.line,
    }


def wrapped(text: str, indent: int) -> str:
    """Break text into lines of a readable length, each indented."""
    margin = " " * indent
    return textwrap.fill(
        text, 100, initial_indent=margin, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
    )


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, for example `1 error` or `2 errors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
