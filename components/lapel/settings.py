'''Typed settings of components: one class for each driver, declared once, read from text.

```python
class SqliteStateSettings(StateSettings):
    """Settings of state.sqlite."""

    connection_string: str = setting("connectionString", aliases=("url",), doc="Path, file: URI or :memory:.")
    timeout: timedelta = setting("timeout", default=timedelta(seconds=20), minimum=timedelta(seconds=1), doc="...")
    password: Secret | None = setting("password", default=None, doc="...")
```

Types: `str int float bool timedelta ByteSize Secret Path`, an `Enum` with text values, `Literal` texts, `Any` (JSON)
and mappings (a JSON object), each also optional or in `tuple[X, ...]`, `list[X]`, `frozenset[X]`. Empty text and None
count as not given. Lists are split at commas and trimmed, and empty items dropped; a JSON list of texts is taken too.
'''

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from ._fields import Entry, FieldInfo, Shape, Spec, schema_of
from ._reader import UNRESOLVED, Property, Reader, Table
from .errors import Problem
from .secret import Secret
from .values import (
    ByteSize,
    DurationUnit,
    format_duration,
    format_size,
    parse_bool,
    parse_duration,
    parse_float,
    parse_int,
    parse_size,
)

__all__ = [
    "UNRESOLVED",
    "ByteSize",
    "DurationUnit",
    "FieldInfo",
    "Property",
    "Secret",
    "Settings",
    "format_duration",
    "format_size",
    "parse_bool",
    "parse_duration",
    "parse_float",
    "parse_int",
    "parse_size",
    "setting",
]

_REQUIRED: Any = object()


def setting(
    name: str,
    *,
    aliases: Sequence[str] = (),
    default: Any = _REQUIRED,
    doc: str = "",
    unit: DurationUnit = "s",
    minimum: Any = None,
    maximum: Any = None,
    choices: Sequence[str] = (),
    ignore_case: bool = True,
    pattern: str | None = None,
    example: str | None = None,
    refused: str | None = None,
    ignored: str | None = None,
    deprecated: str | None = None,
    separator: str = ",",
) -> Any:
    """Declare a field of a `Settings` class.

    `name` is the name in component files, `aliases` further ones, the first of which that is given wins when `name`
    is not. Without `default` the field is required. `unit` is what a bare number means where a duration is expected.
    `minimum` and `maximum` are inclusive and hold for each item of a list; durations and sizes have the minimum 0
    unless another is given. `choices` are the texts allowed, matched without regard to case unless `ignore_case` is
    false, and stored as declared here. `pattern` must match the whole text. `refused` marks a field that exists
    elsewhere and is not supported here: any value is an error that gives this reason. `ignored` marks a tuning knob
    without a meaning here: a value is a warning with this reason. Both make the field optional. `deprecated` warns
    and says what to use instead. `example` is shown in documentation.
    """
    if not doc and not refused and not ignored:
        raise TypeError(f"setting {name!r} needs a doc")
    if default is _REQUIRED and (refused is not None or ignored is not None):
        default = None
    spec = Spec(
        name=name,
        aliases=tuple(aliases),
        doc=doc,
        unit=unit,
        minimum=minimum,
        maximum=maximum,
        choices=tuple(choices),
        ignore_case=ignore_case,
        pattern=None if pattern is None else re.compile(pattern),
        example=example,
        refused=refused,
        ignored=ignored,
        deprecated=deprecated,
        separator=separator,
    )
    if default is _REQUIRED:
        return Field(json_schema_extra=spec)
    return Field(default=default, json_schema_extra=spec)


class Settings(BaseModel):
    """Base of all settings classes. Immutable, compared by value.

    Construct one with `parse`, or with keyword arguments under the Python names; both check in the same way and raise
    `SettingsError`. A subclass adds fields with `setting` and rules over several fields with `check`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        defer_build=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )

    _hidden: frozenset[str] = PrivateAttr(default=frozenset())

    def __init__(self, **values: Any) -> None:
        reader = Reader(_table(type(self)), None, None, "error")
        reader.read(values)
        self._fill(reader)
        reader.finish(None)

    @classmethod
    def parse(
        cls,
        properties: Mapping[str, Any] | Iterable[Property],
        *,
        component: str | None = None,
        driver: str | None = None,
        file: str | None = None,
        line: int | None = None,
        unknown: Literal["error", "warn"] = "error",
        warnings: list[Problem] | None = None,
    ) -> Self:
        """Read settings from text, from typed values or from both.

        Names match without regard to case: the name in component files, the aliases and the Python name. The main
        name wins over aliases. The same spelling twice: the last one wins; two spellings of one name are an error.
        `file` and `line` place a missing field. With `unknown="warn"` an unknown name is only a warning. Warnings are
        appended to `warnings`, or logged when that is None.

        Raises one `SettingsError` with all problems. It holds no value of a secret field, in no part of it.
        """
        reader = Reader(_table(cls), component, driver, unknown, file, line)
        reader.read(properties)
        self = cls.__new__(cls)
        self._fill(reader)
        reader.finish(warnings)
        return self

    @classmethod
    def examine(
        cls,
        properties: Mapping[str, Any] | Iterable[Property],
        *,
        component: str | None = None,
        driver: str | None = None,
        file: str | None = None,
        line: int | None = None,
        unknown: Literal["error", "warn"] = "error",
    ) -> list[Problem]:
        """Return what `parse` would complain about, errors and then warnings, without raising.

        A value may be `UNRESOLVED`: the field counts as given and is not looked at; `check` is then left out.
        """
        reader = Reader(_table(cls), component, driver, unknown, file, line)
        reader.read(properties)
        cls.__new__(cls)._fill(reader)
        return [*reader.errors, *reader.warnings]

    def check(self) -> Iterable[str | tuple[str, str]]:
        """Yield what is wrong about the fields taken together: a message, or the field's name and a message.

        Called once, when each field for itself is right. Messages must not hold secret values. None by default.
        """
        return ()

    @classmethod
    def fields(cls) -> list[FieldInfo]:
        """Describe all fields in the order of declaration, those of base classes first."""
        return [entry.info() for entry in _table(cls).entries]

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return a JSON Schema (draft 2020-12) of the metadata as a mapping of names to values.

        It knows main names and aliases in their documented spelling; `x-lapel-type` is the type of `FieldInfo`.
        """
        properties: dict[str, Any] = {}
        required: list[str] = []
        for info in cls.fields():
            if info.refused is None:
                properties[info.name] = schema_of(info)
                properties |= {alias: schema_of(info) | {"deprecated": True} for alias in info.aliases}
                required += [info.name] if info.required and not info.aliases else []
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": cls.__name__,
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def _fill(self, reader: Reader) -> None:
        """Build this object from what was read, and add what pydantic and `check` find to the reader."""
        if not reader.complete:
            return
        invalid: list[tuple[str, str]] = []
        try:
            BaseModel.__init__(self, **reader.values)
        except ValidationError as exc:
            details = exc.errors(include_url=False, include_context=False, include_input=False)
            invalid = [(".".join(map(str, detail["loc"])), detail["msg"]) for detail in details]
        if invalid:
            for place, message in invalid:
                reader.object_to(place.partition(".")[0], message)
            return
        self._hidden = frozenset(reader.hidden)
        for finding in self.check():
            name, message = finding if isinstance(finding, tuple) else (None, finding)
            reader.object_to(name, message)

    def __getstate__(self) -> dict[Any, Any]:
        if self._hidden:
            raise TypeError("settings that hold secrets cannot be pickled")
        return super().__getstate__()

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, Secret("") if name in self._hidden else value

    def __eq__(self, other: object) -> bool:
        # Where a value came from makes no difference; pydantic would compare private attributes too.
        if not isinstance(other, Settings):
            return NotImplemented
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.__dict__.values())))


@cache
def _table(cls: type[Settings]) -> Table:
    if not cls.__pydantic_fields_complete__:
        cls.model_rebuild()
    entries = []
    names: dict[str, tuple[Entry, int]] = {}
    for attribute, info in cls.model_fields.items():
        spec = info.json_schema_extra
        if not isinstance(spec, Spec):
            raise TypeError(f"{cls.__name__}.{attribute} is not declared with setting()")
        shape = Shape("json") if spec.refused or spec.ignored else Shape.of(info.annotation)
        entry = Entry(attribute, spec, shape, info.is_required(), info.default)
        entries.append(entry)
        for rank, name in enumerate((spec.name, *spec.aliases)):
            other, _ = names.setdefault(name.lower(), (entry, rank))
            if other is not entry:
                raise TypeError(f"{cls.__name__}: {name!r} names both {other.attribute} and {attribute}")
    for entry in entries:
        names.setdefault(entry.attribute.lower(), (entry, 0))
    return Table(tuple(entries), MappingProxyType(names))
