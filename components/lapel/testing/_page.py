"""The report as an HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from .rows import ROWS

if TYPE_CHECKING:
    from .report import ComponentReport, Report, Result

__all__ = ["render"]

_STYLE = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #cf222e; --dim: #6e7781; --line: #d0d7de55; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
code, pre { font: 13px ui-monospace, monospace; } pre { overflow-x: auto; white-space: pre-wrap; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; list-style: none; }
.tiles li { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem 1rem; }
.tiles b { display: block; font-size: 1.4rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .dim { color: var(--dim); }
"""
_COLOURS = {"failed": "bad", "proved": "good", "refused as it should": "good"}


def render(report: Report) -> str:
    """Return the whole page."""
    verdict = '<span class="good">conforms</span>' if report.ok else '<span class="bad">does not conform</span>'
    parts = [f"<h1>Conformance: {verdict}</h1>"]
    if report.problem:
        parts.append(f"<pre>{escape(report.problem)}</pre>")
    for component in report.components.values():
        parts += _component(component)
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Conformance report</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _component(component: ComponentReport) -> Iterator[str]:
    from .report import Status

    kind = f"{component.type} {component.version}" if component.type else "did not open"
    yield f"<h2>{escape(component.name)} <span class=dim>{escape(kind)}</span></h2><ul class=tiles>"
    for status in Status:
        if found := component.of(status):
            yield f'<li class="{_COLOURS.get(status.value, "dim")}"><b>{len(found)}</b>{status.value}</li>'
    yield "</ul><table><tr><th>Capability</th><th>State</th></tr>"
    for flag in component.declared:
        shown = sum(flag in result.needs for result in component.of(Status.PROVED))
        state = f"<span class=good>proved by {shown} tests</span>" if shown else "declared, not proved"
        yield f"<tr><td><code>{escape(flag)}</code></td><td>{state}</td></tr>"
    for flag, reason in component.withdrawn.items():
        yield f"<tr><td><code>{escape(flag)}</code></td><td>withdrawn at open: {escape(reason)}</td></tr>"
    yield "</table><table><tr><th>Rows</th><th>Test</th><th>Outcome</th></tr>"
    order = {status: number for number, status in enumerate(Status)}
    for result in sorted(component.results, key=lambda one: order[one.status]):
        yield _result(result)
    yield "</table>"


def _result(result: Result) -> str:
    rows = "<br>".join(f'<span title="{escape(ROWS[row].title)}">{escape(row)}</span>' for row in result.rows)
    outcome = f'<span class="{_COLOURS.get(result.status.value, "dim")}">{result.status.value}</span>'
    if result.detail.count("\n"):
        outcome += f"<details open><summary>details</summary><pre>{escape(result.detail)}</pre></details>"
    elif result.detail:
        outcome += f": {escape(result.detail)}"
    return f"<tr><td>{rows}</td><td><code>{escape(result.test)}</code></td><td>{outcome}</td></tr>"
