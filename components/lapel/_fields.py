"""One field of a settings class: what was declared, which type it has, how a given value becomes that type."""

from __future__ import annotations

import difflib
import json
import os
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from .errors import InvalidArgumentError
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
    "Entry",
    "FieldInfo",
    "Shape",
    "Spec",
    "convert",
    "schema_of",
    "show",
    "suggestion",
    "to_text",
]

_SCALARS: dict[Any, str] = {
    str: "string",
    int: "int",
    float: "float",
    bool: "bool",
    timedelta: "duration",
    ByteSize: "bytesize",
    Secret: "secret",
    Path: "path",
}
_JSON_TYPES: dict[str, Any] = {
    "int": ["integer", "string"],
    "float": ["number", "string"],
    "bool": ["boolean", "string"],
    "json": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What `setting` was told about a field."""

    name: str
    aliases: tuple[str, ...] = ()
    doc: str = ""
    unit: DurationUnit = "s"
    minimum: Any = None
    maximum: Any = None
    choices: tuple[str, ...] = ()
    ignore_case: bool = True
    pattern: re.Pattern[str] | None = None
    example: str | None = None
    refused: str | None = None
    ignored: str | None = None
    deprecated: str | None = None
    separator: str = ","

    def __call__(self, schema: dict[str, Any]) -> None:
        """Do nothing: this lets pydantic carry the object as `json_schema_extra`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A supported annotation: the scalar type, and the container when there may be several values."""

    scalar: str
    many: type[Any] | None = None
    choices: tuple[str, ...] = ()
    enum: type[Enum] | None = field(default=None, compare=False)
    is_object: bool = False

    @property
    def label(self) -> str:
        """The type as documentation names it."""
        scalar = "string" if self.scalar in ("secret", "path", "enum") else self.scalar
        if self.many is None:
            return scalar
        return "list" if scalar == "string" else f"list of {scalar}"

    @classmethod
    def of(cls, annotation: Any) -> Shape:
        """Read an annotation. Raises `TypeError` for one that settings do not support."""
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return cls.of(arguments[0])
        if origin in (Union, types.UnionType):
            members = [argument for argument in arguments if argument is not type(None)]
            if len(members) == 1:
                return cls.of(members[0])
            raise TypeError(f"settings cannot have the type {annotation}")
        if origin is Literal and all(isinstance(argument, str) for argument in arguments):
            return cls("enum", choices=arguments)
        if origin in (list, tuple, frozenset):
            inner = cls.of(arguments[0])
            if inner.many is None and (origin is not tuple or arguments[1:] == (...,)):
                return cls(inner.scalar, origin, inner.choices, inner.enum)
        if annotation is Any:
            return cls("json")
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return cls("json", is_object=True)
        if annotation in _SCALARS:
            return cls(_SCALARS[annotation])
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            return cls("enum", choices=tuple(str(member.value) for member in annotation), enum=annotation)
        raise TypeError(f"settings cannot have the type {annotation}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldInfo:
    """What documentation and `describe` say about a field.

    `type` is one of `string int float bool duration bytesize json`, `list`, or `list of <type>`; `secret` marks text
    that is never shown. Texts are as a component file would write them; `default` is None when there is none.
    `unit` is None except for durations.
    """

    attribute: str
    name: str
    aliases: tuple[str, ...]
    type: str
    required: bool
    default: str | None
    doc: str
    secret: bool
    choices: tuple[str, ...]
    unit: DurationUnit | None
    minimum: str | None
    maximum: str | None
    pattern: str | None
    example: str | None
    refused: str | None
    ignored: str | None
    deprecated: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A field of a class, with its default when it is not required."""

    attribute: str
    spec: Spec
    shape: Shape
    required: bool
    default: Any

    def info(self) -> FieldInfo:
        """Describe the field."""
        spec, shape = self.spec, self.shape
        return FieldInfo(
            attribute=self.attribute,
            name=spec.name,
            aliases=spec.aliases,
            type=shape.label,
            required=self.required,
            default=None if self.required else to_text(self.default),
            doc=spec.doc,
            secret=shape.scalar == "secret",
            choices=spec.choices or shape.choices,
            unit=spec.unit if shape.scalar == "duration" else None,
            minimum=to_text(spec.minimum),
            maximum=to_text(spec.maximum),
            pattern=spec.pattern.pattern if spec.pattern else None,
            example=spec.example,
            refused=spec.refused,
            ignored=spec.ignored,
            deprecated=spec.deprecated,
        )


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of `known`, or nothing."""
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower()[:200], folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def show(value: object) -> str:
    """Write a value that is not secret for an error, shortened."""
    text = repr(value)
    return text if len(text) <= 64 else f"{text[:50]}... ({len(text)} characters)"


def to_text(value: object) -> str | None:
    """Write a typed value as a component file would, or None for no value. Secrets are not revealed."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case timedelta():
            return format_duration(value)
        case ByteSize():
            return format_size(value)
        case Enum():
            return str(value.value)
        case tuple() | list() | frozenset():
            return ",".join(to_text(item) or "" for item in value)
        case Mapping():
            return json.dumps(value, default=str)
        case _:
            return str(value)


def convert(shape: Shape, spec: Spec, value: object) -> object:
    """Turn text or a typed value into the field's type.

    Raises `InvalidArgumentError` saying what is allowed; its text never holds the value.
    """
    if shape.many is None:
        return _one(shape, spec, value)
    if isinstance(value, str):
        items: Iterable[object] = _split(value, spec.separator)
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = value
    else:
        items = (value,)
    return shape.many(_one(shape, spec, item) for item in items)


def _split(text: str, separator: str) -> list[str]:
    # A YAML list arrives as JSON text; splitting that at commas would leave brackets and quotes in the items.
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            items = None
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return [item for item in items if item]
    return [item for part in text.split(separator) if (item := part.strip())]


def _one(shape: Shape, spec: Spec, value: object) -> object:
    match shape.scalar:
        case "string":
            return _choose(spec.choices, spec, _matching(spec, _text(value)))
        case "secret":
            return Secret(_matching(spec, value.reveal() if isinstance(value, Secret) else _text(value)))
        case "path":
            return Path(_matching(spec, _text(value)))
        case "enum":
            if shape.enum is not None and isinstance(value, shape.enum):
                return value
            choice = _choose(shape.choices, spec, _text(value).strip())
            return choice if shape.enum is None else next(m for m in shape.enum if str(m.value) == choice)
        case "json":
            return _json(shape, value)
        case "bool":
            if isinstance(value, bool):
                return value
            return parse_bool(_text(value))
        case _:
            return _bounded(spec, shape.scalar, _number(shape.scalar, spec, value))


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case Enum():
            return str(value.value)
        case str() | int() | float():
            return str(value)
        case os.PathLike():
            return os.fsdecode(value)
        case _:
            raise InvalidArgumentError(f"expected text, not {type(value).__name__}")


def _matching(spec: Spec, text: str) -> str:
    if spec.pattern is not None and not spec.pattern.fullmatch(text):
        example = f", for example {spec.example!r}" if spec.example else ""
        raise InvalidArgumentError(f"must match {spec.pattern.pattern}{example}")
    return text


def _choose(choices: tuple[str, ...], spec: Spec, text: str) -> str:
    if not choices or text in choices:
        return text
    if spec.ignore_case:
        for choice in choices:
            if choice.lower() == text.strip().lower():
                return choice
    raise InvalidArgumentError(f"expected one of {', '.join(choices)}")


def _json(shape: Shape, value: object) -> object:
    problem = ""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as exc:
            problem = f"expected JSON: {exc.msg} at character {exc.pos + 1}"
        except (ValueError, RecursionError):
            problem = "expected JSON that is not nested so deeply and has no number of thousands of digits"
    if problem:
        # Raised out here because a JSONDecodeError holds the whole text.
        raise InvalidArgumentError(problem)
    if shape.is_object and not isinstance(value, Mapping):
        raise InvalidArgumentError("expected a JSON object")
    return value


def _number(scalar: str, spec: Spec, value: object) -> Any:
    if isinstance(value, bool):
        raise InvalidArgumentError("expected a number, not a truth value")
    match scalar:
        case "duration":
            if isinstance(value, timedelta):
                return value
            return parse_duration(_text(value), spec.unit)
        case "bytesize":
            return ByteSize(value) if isinstance(value, int) else parse_size(_text(value))
        case "int":
            return value if isinstance(value, int) else parse_int(_text(value))
        case _:
            return float(value) if isinstance(value, int) else parse_float(_text(value))


def _bounded(spec: Spec, scalar: str, number: Any) -> Any:
    minimum = spec.minimum
    if minimum is None and scalar in ("duration", "bytesize"):
        minimum = type(number)(0)
    if minimum is not None and number < minimum:
        raise InvalidArgumentError(f"must be at least {to_text(minimum)}")
    if spec.maximum is not None and number > spec.maximum:
        raise InvalidArgumentError(f"must be at most {to_text(spec.maximum)}")
    return number


def schema_of(info: FieldInfo) -> dict[str, Any]:
    """Return the JSON Schema of one field."""
    kind = _JSON_TYPES.get(info.type, "string")
    schema: dict[str, Any] = {"description": info.doc or info.ignored, "x-lapel-type": info.type}
    schema |= {"type": kind} if kind else {}
    schema |= {"enum": list(info.choices)} if info.choices and not info.type.startswith("list") else {}
    schema |= {"default": info.default} if info.default is not None else {}
    schema |= {"pattern": f"^(?:{info.pattern})$"} if info.pattern else {}
    schema |= {"examples": [info.example]} if info.example else {}
    schema |= {"writeOnly": True} if info.secret else {}
    schema |= {"deprecated": True} if info.deprecated else {}
    return schema
