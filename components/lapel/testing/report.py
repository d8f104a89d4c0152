"""What a run of the suite found, as text, JSON and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pytest

from ..descriptor import capability_names
from .plugin import DECLARED, NOT_DECLARED
from .rows import ROWS

if TYPE_CHECKING:
    from .subject import Subject

__all__ = ["SUBJECT", "ComponentReport", "Report", "Result", "Status"]

SUBJECT: pytest.StashKey[Subject] = pytest.StashKey()
"""Where a test item keeps the component that it ran on."""


class Status(StrEnum):
    """What became of a test."""

    FAILED = "failed"
    KNOWN_FAULT = "known fault"
    PROVED = "proved"
    REFUSED = "refused as it should"
    NOT_DECLARED = "not declared"
    DOES_NOT_APPLY = "does not apply"
    SKIPPED = "skipped"


@dataclass(slots=True, kw_only=True)
class Result:
    """The outcome of one test. `detail` is the failure, or the reason of a skip; `seconds` counts all its phases."""

    test: str
    rows: tuple[str, ...]
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    status: Status = Status.PROVED
    seconds: float = 0.0
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class ComponentReport:
    """The outcome of one component.

    `declared` are the flags after `open`, `withdrawn` those that it took back, with reasons.
    """

    name: str
    type: str = ""
    version: str = ""
    declared: list[str] = field(default_factory=list)
    withdrawn: dict[str, str] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    def of(self, status: Status) -> list[Result]:
        """Return the results of one status."""
        return [result for result in self.results if result.status is status]

    def rows(self, status: Status) -> list[str]:
        """Return the rows that tests of one status carry, in the order of the table."""
        found = {row for result in self.of(status) for row in result.rows}
        return [row for row in ROWS if row in found]

    @property
    def unproved(self) -> list[str]:
        """Declared flags that no test showed to work."""
        shown = {flag for result in self.of(Status.PROVED) for flag in result.needs}
        return [flag for flag in self.declared if flag not in shown]

    @property
    def ok(self) -> bool:
        """Whether something was proved and nothing failed."""
        return bool(self.of(Status.PROVED)) and not self.of(Status.FAILED)


@dataclass(slots=True)
class Report:
    """The outcome of a run. `problem` says why there was no proper run, None when there was one."""

    components: dict[str, ComponentReport] = field(default_factory=dict)
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every component passed; a run that executed nothing did not."""
        return self.problem is None and bool(self.components) and all(one.ok for one in self.components.values())

    def note(self, item: pytest.Item, owner: pytest.Class, outcome: pytest.TestReport) -> None:
        """Take in one phase of a test of the suite class `owner`."""
        subject = item.stash.get(SUBJECT, None)
        component = self.components.get(owner.nodeid)
        if component is None:
            name = subject.name if subject else owner.nodeid
            component = self.components[owner.nodeid] = ComponentReport(name=name)
        if subject is not None and subject.probed and not component.type:
            descriptor = subject.descriptor
            component.name, component.type, component.version = subject.name, descriptor.type, descriptor.version
            component.declared = capability_names(subject.flags)
            component.withdrawn = {str(flag.name): reason for flag, reason in subject.withdrawn.items()}
        result = next((one for one in reversed(component.results) if one.test == item.name), None)
        if result is None:
            result = Result(
                test=item.name,
                rows=tuple(
                    id_ for id_ in _arguments(item, "lapel_row") if ROWS[id_].kind in (owner.obj.kind, "general")
                ),
                needs=tuple(name for flag in _arguments(item, "lapel_needs") for name in capability_names(flag)),
                lacks=tuple(name for flag in _arguments(item, "lapel_lacks") for name in capability_names(flag)),
            )
            result.status = Status.REFUSED if result.lacks else Status.PROVED
            component.results.append(result)
        result.seconds += outcome.duration
        _judge(result, outcome)

    def lines(self) -> Iterator[str]:
        """Yield the report as plain text."""
        if self.problem:
            yield self.problem
        for component in self.components.values():
            yield f"{component.name} ({component.type or 'did not open'} {component.version}".rstrip() + ")"
            yield f"  declared             {', '.join(component.declared) or 'no optional capability'}"
            for flag, reason in component.withdrawn.items():
                yield f"  withdrawn            {flag}: {reason}"
            proved = component.of(Status.PROVED)
            yield f"  proved               {len(proved)} tests, {len(component.rows(Status.PROVED))} rows"
            yield f"  refused as it should {len(component.of(Status.REFUSED))} tests"
            absent = sorted({result.detail for result in component.of(Status.NOT_DECLARED)})
            yield f"  not declared         {', '.join(absent) or 'nothing'}"
            if component.unproved:
                yield f"  declared, not proved {', '.join(component.unproved)}"
            for status in (Status.SKIPPED, Status.KNOWN_FAULT):
                for result in component.of(status):
                    yield f"  {status.value:<20} {result.test} [{', '.join(result.rows)}]: {result.detail}"
            failed = component.of(Status.FAILED)
            yield f"  failed               {len(failed)} tests"
            for result in failed:
                yield f"    {result.test} [{', '.join(result.rows)}]: {_last_line(result.detail)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data; field names are stable."""
        return {
            "ok": self.ok,
            "problem": self.problem,
            "components": [
                {
                    "name": component.name,
                    "type": component.type,
                    "version": component.version,
                    "ok": component.ok,
                    "declared": component.declared,
                    "withdrawn": component.withdrawn,
                    "declared_not_proved": component.unproved,
                    "counts": {status.value: len(component.of(status)) for status in Status},
                    "results": [_plain(result) for result in component.results],
                }
                for component in self.components.values()
            ],
        }

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_html(self) -> str:
        """Return the report as one HTML page without outside assets."""
        from ._page import render

        return render(self)


def _judge(result: Result, outcome: pytest.TestReport) -> None:
    if outcome.failed:
        result.status, result.detail = Status.FAILED, str(outcome.longreprtext or outcome.longrepr)
    elif outcome.skipped and result.status is not Status.FAILED:
        if hasattr(outcome, "wasxfail"):
            result.status, result.detail = Status.KNOWN_FAULT, outcome.wasxfail.removeprefix("reason: ")
            return
        reason = outcome.longrepr[2] if isinstance(outcome.longrepr, tuple) else str(outcome.longrepr)
        reason = reason.removeprefix("Skipped: ")
        for prefix, status in ((NOT_DECLARED, Status.NOT_DECLARED), (DECLARED, Status.DOES_NOT_APPLY)):
            if reason.startswith(prefix):
                result.status, result.detail = status, reason.removeprefix(prefix)
                return
        result.status, result.detail = Status.SKIPPED, reason


def _arguments(item: pytest.Item, mark: str) -> tuple[Any, ...]:
    return tuple(argument for found in item.iter_markers(mark) for argument in found.args)


def _plain(result: Result) -> Mapping[str, Any]:
    return {
        "test": result.test,
        "rows": list(result.rows),
        "needs": list(result.needs),
        "lacks": list(result.lacks),
        "status": result.status.value,
        "seconds": round(result.seconds, 4),
        "detail": result.detail,
    }


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("E  ")] or text.splitlines() or [""]
    return lines[0].removeprefix("E").strip()
