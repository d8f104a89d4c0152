"""Run the benchmarks, each in a fresh process, and print one table: `python tests/benchmarks/run.py [--json] [names]`.

The exit code is 0 also when a target is missed, because a busy machine is no fault; it is 1 when a benchmark fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tests.benchmarks.rows import Row

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOT_BENCHMARKS = {"redis_server", "rows", "run"}


def names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem.isidentifier() and not path.stem.startswith("_"))


def measure_here(name: str) -> None:
    """Measure in this process and print the rows as JSON in the last line."""
    sys.path.insert(0, str(ROOT))
    rows = asyncio.run(import_module(f"tests.benchmarks.{name}").run())
    print(json.dumps(rows))


def measure(name: str) -> list[Row]:
    """Measure in a fresh process."""
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), "--here", name], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return rows


def number(value: float | None, places: int = 2) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.{places}f}"


def verdict(row: Row) -> str:
    if row["target"].startswith("none"):
        return ""
    return "met" if row["ok"] else "MISSED"


def show(rows: list[Row]) -> None:
    """Print the table, and what is missed once more below it."""
    console = Console()
    if not console.is_terminal:
        console.width = 170
    table = Table(title=f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs")
    for heading in ("what", "unit", "ours", "baseline", "ratio", "overhead", "target", ""):
        table.add_column(heading, justify="right" if heading in ("ours", "baseline", "ratio", "overhead") else "left")
    for row in rows:
        table.add_row(
            row["name"],
            row["unit"],
            number(row["ours"]),
            number(row.get("baseline")),
            number(row.get("ratio")),
            number(row.get("overhead")),
            row["target"],
            verdict(row),
            style="bold red" if verdict(row) == "MISSED" else None,
        )
    console.print(table)
    aimed = [row for row in rows if verdict(row)]
    missed = [row["name"] for row in aimed if not row["ok"]]
    console.print(f"{len(aimed) - len(missed)} of {len(aimed)} targets met" + "".join(f"\nMISSED: {n}" for n in missed))


def main() -> int:
    choices = [name for name in names() if name not in NOT_BENCHMARKS]
    parser = argparse.ArgumentParser(description="Run the benchmarks.")
    parser.add_argument("names", nargs="*", help=f"which to run: {', '.join(choices)}; all unless given")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON instead of a table")
    parser.add_argument("--here", action="store_true", help="run one in this process and print its rows as JSON")
    arguments = parser.parse_args()
    chosen = arguments.names or choices
    if unknown := set(chosen) - set(choices):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are: {', '.join(choices)}")
    if arguments.here:
        measure_here(chosen[0])
        return 0
    rows, failed = [], []
    for name in chosen:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            rows += measure(name)
        except subprocess.CalledProcessError:
            failed.append(name)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)
    for name in failed:
        print(f"FAILED: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
