"""YAML as component files need it: every scalar stays the text that was written, every node knows its line.

Built on PyYAML's event stream, through libyaml where that is there. Building from events and not with a constructor
keeps `0644`, `1.0`, `yes` and `12:30` as they are, and lets size, depth and aliases be bounded before any memory is
spent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from .errors import Problem

__all__ = ["MAX_DEPTH", "MAX_NODES", "YamlList", "YamlMap", "YamlNode", "YamlScalar", "parse_yaml"]

MAX_DEPTH = 64
"""Deepest nesting of maps and lists in a document."""
MAX_NODES = 50_000
"""Most nodes of a file, with every alias counted as what it stands for."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "timestamp"))
_NULL_TAG = "tag:yaml.org,2002:null"
_MAP_TAG = "tag:yaml.org,2002:map"
_LIST_TAG = "tag:yaml.org,2002:seq"
_MARKER = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)
_NO_CONTENT = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\r?\n|%[^\n]*\n)*[ \t]*(?:#[^\n]*)?")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class YamlScalar:
    """A text, or None for `null`, `~` and nothing. `plain` tells text without quotes. The text is not in the repr."""

    value: str | None = field(repr=False)
    line: int
    plain: bool

    def data(self) -> str | None:
        """Return the text."""
        return self.value

    def json(self) -> str:
        """Return JSON: what looks like a JSON number or a truth value and is not quoted is one."""
        text = self.value
        if text is None:
            return "null"
        if self.plain and text in ("true", "True", "TRUE", "false", "False", "FALSE"):
            return text.lower()
        return text if self.plain and _JSON_NUMBER.fullmatch(text) else json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class YamlList:
    """A list of nodes."""

    items: tuple[YamlNode, ...]
    line: int

    def data(self) -> list[Any]:
        """Return the list with every scalar as text or None."""
        return [item.data() for item in self.items]

    def json(self) -> str:
        """Return compact JSON."""
        return f"[{','.join(item.json() for item in self.items)}]"


@dataclass(frozen=True, slots=True)
class YamlMap:
    """A mapping from text to nodes, in the order of the file. `lines` has the line of each key."""

    entries: dict[str, YamlNode]
    lines: dict[str, int]
    line: int

    def data(self) -> dict[str, Any]:
        """Return the mapping with every scalar as text or None."""
        return {key: node.data() for key, node in self.entries.items()}

    def json(self) -> str:
        """Return compact JSON with sorted keys."""
        pairs = (f"{json.dumps(key, ensure_ascii=False)}:{node.json()}" for key, node in sorted(self.entries.items()))
        return f"{{{','.join(pairs)}}}"


YamlNode = YamlScalar | YamlList | YamlMap


class _InvalidError(Exception):
    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message, self.line = message, line


def parse_yaml(text: str, file: str | None = None) -> tuple[list[YamlNode], list[Problem]]:
    """Return the documents of a file that are not empty, and what is wrong with it.

    The file is cut at lines that start with `---`, and a document that does not parse does not touch its neighbours.
    A key that stands twice in a map is a warning and the last one wins; merge keys (`<<`) are followed. No problem
    repeats text from the file other than keys.
    """
    documents: list[YamlNode] = []
    problems: list[Problem] = []
    builder = _Builder(file, problems)
    for start, chunk in _chunks(text):
        invalid: _InvalidError | None = None
        try:
            documents += builder.documents(chunk, start)
        except _InvalidError as exc:
            invalid = exc
        if invalid is not None:
            problems.append(Problem(invalid.message, file=file, line=invalid.line))
    return documents, problems


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """Cut at document markers; give the number of lines before each part. Directives stay with what follows."""
    begin = line = 0
    ends = [match.start() for match in _MARKER.finditer(text) if match.start() > 0]
    for end in (*ends, len(text)):
        chunk = text[begin:end]
        if end < len(text) and _NO_CONTENT.fullmatch(chunk):
            continue
        yield line, chunk
        line += chunk.count("\n")
        begin = end


class _Builder:
    """Builds nodes from events. One builder serves a file, so that its limit on nodes is one for the file."""

    def __init__(self, file: str | None, problems: list[Problem]) -> None:
        self._file = file
        self._problems = problems
        self._nodes = 0
        self._offset = 0
        self._anchors: dict[str, tuple[YamlNode | None, int]] = {}

    def documents(self, chunk: str, offset: int) -> list[YamlNode]:
        self._offset = offset + 1
        found = []
        events = self._events(chunk)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                node = self._node(next(events), events, 0)
                if not isinstance(node, YamlScalar) or node.value is not None:
                    found.append(node)
        return found

    def _events(self, chunk: str) -> Iterator[Any]:
        invalid: _InvalidError
        try:
            yield from yaml.parse(chunk, Loader=_LOADER)
            return
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            # What is missing at the end is reported at the last line with text.
            last = chunk.rstrip().count("\n")
            invalid = _InvalidError(
                f"is not valid YAML: {_harmless(exc.problem)}", self._offset + min(mark.line if mark else 0, last)
            )
        except yaml.YAMLError as exc:
            position = getattr(exc, "position", 0)
            line = chunk.encode("utf-8", "replace")[:position].count(b"\n") if isinstance(position, int) else 0
            invalid = _InvalidError("is not valid YAML: a control character is not allowed here", self._offset + line)
        # Raised out here because the errors of PyYAML hold the text of the file.
        raise invalid

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> YamlNode:
        line = self._offset + event.start_mark.line
        before = self._nodes
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line)
        self._count(1, line)
        if depth > MAX_DEPTH:
            raise _InvalidError(f"is nested deeper than {MAX_DEPTH} levels", line)
        if event.anchor is not None:
            self._anchors[event.anchor] = (None, 0)
        node: YamlNode
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._no_tag(event, _LIST_TAG, line)
            items = []
            while not isinstance(child := next(events), yaml.SequenceEndEvent):
                items.append(self._node(child, events, depth + 1))
            node = YamlList(tuple(items), line)
        else:
            self._no_tag(event, _MAP_TAG, line)
            node = self._map(line, events, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._nodes - before)
        return node

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _InvalidError(f"has more than {MAX_NODES} nodes, aliases counted as what they stand for", line)

    def _alias(self, event: Any, line: int) -> YamlNode:
        # The name is not repeated: a password that starts with an asterisk parses as an alias.
        node, size = self._anchors.get(event.anchor, (None, -1))
        if node is None:
            hint = (
                "is inside what it refers to" if size == 0 else "has no anchor before it; quote text that starts with *"
            )
            raise _InvalidError(f"is not valid YAML: the alias {hint}", line)
        self._count(size, line)
        return node

    def _scalar(self, event: Any, line: int) -> YamlScalar:
        plain = bool(event.implicit[0])
        if event.tag is not None and event.tag != "!" and not plain:
            if event.tag == _NULL_TAG:
                return YamlScalar(None, line, plain)
            if event.tag not in _PLAIN_TAGS:
                raise _InvalidError(
                    "has a YAML tag that component files cannot have; quote text that starts with !", line
                )
        is_null = plain and event.value in _NULLS
        return YamlScalar(None if is_null else event.value, line, plain)

    def _no_tag(self, event: Any, allowed: str, line: int) -> None:
        if event.tag not in (None, "!", allowed):
            raise _InvalidError("has a YAML tag that component files cannot have; quote text that starts with !", line)

    def _map(self, line: int, events: Iterator[Any], depth: int) -> YamlMap:
        entries: dict[str, YamlNode] = {}
        lines: dict[str, int] = {}
        merged: list[YamlNode] = []
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._node(event, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            if not isinstance(key, YamlScalar):
                raise _InvalidError("has a map or list as a key; keys must be text", key.line)
            name = key.value or ""
            if name == "<<" and key.plain:
                merged += value.items if isinstance(value, YamlList) else (value,)
                continue
            if name in entries:
                message = f"key {name!r} stands twice, first in line {lines[name]}; the last one is used"
                self._problems.append(Problem(message, file=self._file, line=key.line, warning=True))
            entries[name] = value
            lines[name] = key.line
        for base in merged:
            if not isinstance(base, YamlMap):
                raise _InvalidError("merges something that is not a map", base.line)
            self._count(len(base.entries), line)
            for name, node in base.entries.items():
                if name not in entries:
                    entries[name] = node
                    lines[name] = base.lines[name]
        return YamlMap(entries, lines, line)


def _harmless(problem: str | None) -> str:
    """Return PyYAML's words without anything it quotes from the file, single characters apart."""
    return re.sub(r"'[^']{2,}'", "'...'", problem or "the text ends too early")
