"""Which tests carry which rows: `python -m lapel.testing.rows --check` (or `--write`), run in the repository.

Tests are found by reading source text, so nothing is imported that a test needs. A row needs a test or a written
waiver, a waived row must not have a test, and the page `docs/conformance-rows.md` must be what `--write` would write.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

__all__ = ["KINDS", "ROWS", "Row", "carriers", "main", "page", "problems"]

KINDS = ("state", "pubsub", "bindings", "secretstores", "configuration", "lock", "crypto", "general")
PAGE = Path("docs/conformance-rows.md")

_TITLES = {
    "state": "State stores",
    "pubsub": "Publish/subscribe",
    "bindings": "Bindings",
    "secretstores": "Secret stores",
    "configuration": "Configuration stores",
    "lock": "Locks",
    "crypto": "Cryptography",
    "general": "Every kind",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One promise of the suite. `waiver` is the reason why no test carries it, or None."""

    id: str
    kind: str
    title: str
    waiver: str | None = None


def _read() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for kind in KINDS:
        module = import_module(f".rowdata.{kind}", __package__)
        for line in module.ROWS.strip().splitlines():
            id_, _, title = line.partition(" | ")
            if id_ in rows:
                raise ValueError(f"row {id_} is there twice")
            rows[id_] = Row(id_, kind, title, module.WAIVED.get(id_))
        if unknown := set(module.WAIVED) - set(rows):
            raise ValueError(f"waived rows that do not exist: {', '.join(sorted(unknown))}")
    return rows


ROWS: Mapping[str, Row] = _read()
"""Every row by its id."""


def carriers(root: Path) -> dict[str, list[str]]:
    """Return for each row id named in a `@row(...)` the tests that carry it, as `path::test`, paths from `root`."""
    package = Path(__file__).parent
    found: dict[str, list[str]] = {}
    for file in sorted([*package.rglob("*.py"), *(root / "tests").rglob("*.py")]):
        shown = f"lapel/testing/{file.relative_to(package).as_posix()}" if file.is_relative_to(package) else ""
        text = file.read_text("utf-8")
        if "@row(" in text or ".row(" in text:
            for test, ids in _marked(ast.parse(text)):
                for id_ in ids:
                    found.setdefault(id_, []).append(f"{shown or file.relative_to(root).as_posix()}::{test}")
    return found


def problems(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what is wrong with rows and tests, one line each."""
    lines = [f"{test}: no such row: {id_}" for id_, tests in found.items() if id_ not in ROWS for test in tests]
    for row in ROWS.values():
        if row.waiver is None and row.id not in found:
            lines.append(f"{row.id} has neither a test nor a waiver: {row.title}")
        elif row.waiver is not None and row.id in found:
            lines.append(f"{row.id} is waived and has a test: {', '.join(found[row.id])}")
    return lines


def page(found: Mapping[str, Sequence[str]]) -> str:
    """Return the page that maps every row to its tests."""
    waived = sum(row.waiver is not None for row in ROWS.values())
    lines = [
        "# Rows of the conformance suite",
        "",
        "Written by `python -m lapel.testing.rows --write`; do not edit.",
        "Ids with two letters are the scenarios of the reference suite, `stricter-NNN` go beyond it.",
        f"{len(ROWS)} rows, {waived} of them waived.",
    ]
    for kind in KINDS:
        lines += ["", f"## {_TITLES[kind]}", "", "| Row | What it shows | Carried by |", "|---|---|---|"]
        for row in ROWS.values():
            if row.kind == kind:
                tests = "<br>".join(f"`{test}`" for test in found.get(row.id, ()))
                carried = tests or (f"waived: {row.waiver}" if row.waiver else "nothing yet")
                lines.append(f"| {row.id} | {row.title} | {carried} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the table, or write the page; return 0 when all is well and 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m lapel.testing.rows", description="Rows of the conformance suite")
    parser.add_argument("--check", action="store_true", help="fail if a row has no test or the page is stale")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    found = carriers(root)
    wrong = problems(found)
    if options.write:
        (root / PAGE).write_text(page(found), "utf-8")
    elif not (root / PAGE).exists() or (root / PAGE).read_text("utf-8") != page(found):
        wrong.append(f"{PAGE} is stale; run: python -m lapel.testing.rows --write")
    for line in wrong:
        sys.stderr.write(line + "\n")
    return 1 if wrong else 0


def _marked(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).rpartition(".")[2] == "row":
                    ids = [one.value for one in decorator.args if isinstance(one, ast.Constant)]
                    yield node.name, [id_ for id_ in ids if isinstance(id_, str)]


if __name__ == "__main__":
    sys.exit(main())
