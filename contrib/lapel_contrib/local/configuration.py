"""Configuration from a YAML or JSON file: `configuration.local.file`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lapel._yaml import parse_yaml
from lapel.configuration import (
    ConfigurationDriver,
    ConfigurationItem,
    GetConfigurationRequest,
    Watcher,
    WatchRequest,
)
from lapel.driver import DriverContext

from . import CONFIGURATION
from .json_text import parse_object, plain_text
from .parsed_file import MalformedError, ParsedFile
from .settings import FileConfigurationSettings
from .watching import FileWatch

__all__ = ["FileConfiguration"]

Items = Mapping[str, ConfigurationItem]

_FIELDS = frozenset({"metadata", "value", "version"})


class FileConfiguration(ConfigurationDriver[FileConfigurationSettings]):
    """A mapping of keys to values, read again when the file has changed.

    An entry is `key: value`, or `key: {value: ..., version: ..., metadata: {name: text}}` of which `value` is required.
    Every scalar is the text that was written; null is the empty text. A file named `*.json` is read as JSON, any
    other as YAML. A version of the file that is broken, empty or gone is logged, and the last good one stays in
    use: a file that vanished is an outage, not a deletion. Write `{}` for no items. Replace the file by renaming,
    since one that is written in place may be read half. Other machines' writes on a network file system, and those
    behind a symbolic link, are noticed within a second, all others at once.
    """

    descriptor = CONFIGURATION

    def __init__(self, settings: FileConfigurationSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        is_json = settings.path.suffix.lower() == ".json"
        self._file: ParsedFile[Items] = ParsedFile(
            settings.path, _parse_json if is_json else _parse_yaml, field="path", logger=context.logger
        )
        self._watch = FileWatch(settings.path, context.logger)

    async def open(self) -> None:
        await self._file.open()

    async def close(self) -> None:
        await self._watch.close()

    async def ping(self) -> None:
        await self._file.check()

    async def get(self, request: GetConfigurationRequest) -> Items:
        items = await self._file.current()
        return {
            key: ConfigurationItem(item.value, item.version, dict(item.metadata))
            for key in request.keys or items
            if (item := items.get(key)) is not None
        }

    async def watch(self, request: WatchRequest) -> Watcher:
        return self._watch.watcher()


def _parse_json(text: str) -> Items:
    return _items(parse_object(text))


def _parse_yaml(text: str) -> Items:
    documents, problems = parse_yaml(text)
    for problem in problems:
        raise MalformedError(problem.message, problem.line)
    if not documents:
        raise MalformedError("is empty; write {} for no items")
    if len(documents) > 1:
        raise MalformedError("has several documents; it must have one", documents[1].line)
    return _items(documents[0].data())


def _items(data: Any) -> Items:
    if not isinstance(data, dict):
        raise MalformedError("must be a mapping of keys to values")
    return {key: _item(key, value) for key, value in data.items()}


def _item(key: str, value: Any) -> ConfigurationItem:
    if not key:
        raise MalformedError("has an empty key")
    if not isinstance(value, dict):
        return ConfigurationItem(_scalar(value, key))
    for name in value:
        if name not in _FIELDS:
            raise MalformedError(f"has the unknown field {name!r} in key {key!r}; known: {', '.join(sorted(_FIELDS))}")
    if "value" not in value:
        raise MalformedError(f"has no field 'value' in key {key!r}")
    metadata = value.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise MalformedError(f"has 'metadata' in key {key!r} that is not a mapping of names to texts")
    return ConfigurationItem(
        _scalar(value["value"], key),
        _scalar(value.get("version"), key),
        {name: _scalar(text, key) for name, text in metadata.items()},
    )


def _scalar(value: Any, key: str) -> str:
    if isinstance(value, dict | list):
        raise MalformedError(f"has a mapping or list where key {key!r} needs a text; quote it to store it as text")
    return plain_text(value, key)
