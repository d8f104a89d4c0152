"""Reads the properties of one component against the fields of a settings class, and gathers every problem."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Literal

from ._fields import Entry, convert, show, suggestion
from .errors import InvalidArgumentError, Problem, SettingsError
from .secret import Secret

__all__ = ["UNRESOLVED", "Property", "Reader", "Table"]

_log = logging.getLogger("lapel.settings")


class _Unresolved(Enum):
    UNRESOLVED = "UNRESOLVED"


UNRESOLVED: Final = _Unresolved.UNRESOLVED
"""The value of a property that is given but known only when a secret store is open."""


@dataclass(frozen=True, slots=True)
class Property:
    """One name and value from a component file, and where it stands. The value is not part of the repr.

    A value that came from a secret store is given as `Secret`: no error shows it, and the repr of the settings hides
    it even when the field is an ordinary text.
    """

    name: str
    value: object = field(repr=False)
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """The fields of a class, and for each lower-cased name the field and its rank (0 is the main name)."""

    entries: tuple[Entry, ...]
    names: Mapping[str, tuple[Entry, int]]


class Reader:
    """Collects the values and all problems of one component."""

    def __init__(
        self,
        table: Table,
        component: str | None,
        driver: str | None,
        unknown: Literal["error", "warn"],
        file: str | None = None,
        line: int | None = None,
    ) -> None:
        self.table = table
        self.component, self.driver, self.unknown = component, driver, unknown
        self.file, self.line = file, line
        self.values: dict[str, object] = {}
        self.hidden: set[str] = set()
        self.written: dict[str, Property] = {}
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self.unresolved: list[Property] = []
        self.complete = True

    def read(self, properties: Mapping[str, Any] | Iterable[Property]) -> None:
        """Take over all properties, and note everything that is wrong with each of them."""
        if isinstance(properties, Mapping):
            properties = [Property(name, value) for name, value in properties.items()]
        given: dict[Entry, dict[int, list[Property]]] = {}
        for item in properties:
            known = self.table.names.get(item.name.lower())
            if known is None:
                self._unknown(item)
            elif item.value is not None and not _is_empty(item.value):
                entry, rank = known
                given.setdefault(entry, {}).setdefault(rank, []).append(item)
        for entry in self.table.entries:
            if entry in given:
                self._entry(entry, given[entry])
            elif entry.required:
                self.complete = False
                self._missing(entry)

    def _unknown(self, item: Property) -> None:
        names = [name for entry in self.table.entries for name in (entry.spec.name, *entry.spec.aliases)]
        self._add(item, f"is not a known field{suggestion(item.name, names)}", warning=self.unknown == "warn")

    def _missing(self, entry: Entry) -> None:
        aliases = f" (or {', '.join(entry.spec.aliases)})" if entry.spec.aliases else ""
        place = Property(entry.spec.name, None, self.file, self.line)
        self._add(place, f"is required{aliases}: {entry.spec.doc}")

    def _entry(self, entry: Entry, ranks: dict[int, list[Property]]) -> None:
        best = min(ranks)
        chosen = ranks[best][-1]
        self.written[entry.attribute] = chosen
        for rank, items in ranks.items():
            for item in items:
                if rank != best:
                    self._add(item, f"has no effect, because {chosen.name!r} is given too", warning=True)
                elif item.name != chosen.name:
                    self._add(item, f"is given twice, also as {chosen.name!r}; keep one of them")
                elif item is not chosen:
                    self._add(item, "is given again later; the last one is used", warning=True)
        spec = entry.spec
        if spec.refused is not None:
            self._add(chosen, f"is not supported: {spec.refused}")
        elif spec.ignored is not None:
            self._add(chosen, f"has no effect: {spec.ignored}", warning=True)
        else:
            if spec.deprecated is not None:
                self._add(chosen, f"is deprecated: {spec.deprecated}", warning=True)
            self._convert(entry, chosen)

    def _convert(self, entry: Entry, item: Property) -> None:
        value, hidden = item.value, entry.shape.scalar == "secret"
        if value is UNRESOLVED:
            self.complete = False
            self.unresolved.append(item)
            return
        if isinstance(value, Secret):
            hidden = True
            value = value.reveal()
            self.hidden.add(entry.attribute)
        problem = ""
        try:
            self.values[entry.attribute] = convert(entry.shape, entry.spec, value)
        except InvalidArgumentError as exc:
            problem = exc.message
        if problem:
            self.complete = False
            shown = "the value is secret and not shown" if hidden else f"not {show(value)}"
            self._add(item, f"{problem}; {shown}" if hidden else f"{problem}, {shown}")

    def object_to(self, name: str | None, message: str) -> None:
        """Add a problem of the field with this Python or metadata name, or of the whole component."""
        known = self.table.names.get(name.lower()) if name else None
        place = Property(name or "", None, self.file, self.line)
        if known is not None:
            entry = known[0]
            place = self.written.get(entry.attribute, replace(place, name=entry.spec.name))
        self._add(place, message)

    def finish(self, warnings: list[Problem] | None) -> None:
        """Hand out the warnings, and raise one error when there are problems."""
        for item in self.unresolved:
            self._add(item, "needs a secret that was not read")
        if warnings is not None:
            warnings.extend(self.warnings)
        else:
            for problem in self.warnings:
                _log.warning("%s", problem)
        if self.errors:
            lines = [str(replace(problem, component=None)) for problem in self.errors]
            text = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} settings are wrong:", *lines])
            raise SettingsError(text, problems=self.errors, component=self.component, driver=self.driver)

    def _add(self, item: Property, message: str, *, warning: bool = False) -> None:
        problem = Problem(message, item.name or None, self.component, item.file, item.line, warning)
        (self.warnings if warning else self.errors).append(problem)


def _is_empty(value: object) -> bool:
    text = value.reveal() if isinstance(value, Secret) else value
    return isinstance(text, str) and not text.strip()
