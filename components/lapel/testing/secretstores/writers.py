"""Ways to change what secret stores read, for the suite."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["EnvironmentWriter", "JsonFileWriter", "SecretWriter"]

Fields = Mapping[str, str]


class SecretWriter(ABC):
    """Changes the secrets of one store from outside. Built with the settings of the driver, anew for each test.

    The methods may block: no test measures time while they run.
    """

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def put(self, secrets: Mapping[str, Fields]) -> Mapping[str, str]:
        """Add or change secrets; return their version ids by name, or nothing where there are no versions.

        Also called before the component was ever opened, and then has to make the store usable.
        """

    @abstractmethod
    def remove(self, names: Iterable[str]) -> None:
        """Remove secrets that were put."""

    def spoilt(self, secret: str) -> Iterable[tuple[str, AbstractContextManager[None]]]:
        """Return ways to make the source malformed for a while, each with a name and with `secret` as its values."""
        return ()


class EnvironmentWriter(SecretWriter):
    """Writes environment variables, with the setting `prefix` in front."""

    def put(self, secrets: Mapping[str, Fields]) -> Mapping[str, str]:
        for name, fields in secrets.items():
            (os.environ[self.settings.prefix + name],) = fields.values()
        return {}

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            os.environ.pop(self.settings.prefix + name, None)


class JsonFileWriter(SecretWriter):
    """Writes the JSON file of the setting `secretsFile`, always by renaming."""

    @property
    def _path(self) -> Path:
        path: Path = self.settings.secrets_file
        return path

    def put(self, secrets: Mapping[str, Fields]) -> Mapping[str, str]:
        data = self._read()
        for name, fields in secrets.items():
            data[name] = dict(fields) if self.settings.multi_valued and set(fields) != {name} else fields[name]
        self._write(json.dumps(data))
        return {}

    def remove(self, names: Iterable[str]) -> None:
        gone = set(names)
        self._write(json.dumps({name: value for name, value in self._read().items() if name not in gone}))

    def spoilt(self, secret: str) -> Iterable[tuple[str, AbstractContextManager[None]]]:
        value = json.dumps(secret)
        separator = self.settings.nested_separator
        yield "unfinished", self._replaced(f'{{"a": {value},\n"b": ')
        yield "a list", self._replaced(f"[{value}]")
        yield "empty", self._replaced("")
        yield "a key twice", self._replaced(f'{{"a": {value}, "a": {value}}}')
        two_ways = f'{{"a{separator}b": {value}, "a": {{"b": {value}}}}}'
        yield "two ways to one name", self._replaced(f'{{"z": {two_ways}}}')
        yield "missing", self._replaced(None)

    @contextmanager
    def _replaced(self, text: str | None) -> Iterator[None]:
        kept = self._path.read_text("utf-8")
        if text is None:
            self._path.unlink()
        else:
            self._write(text)
        try:
            yield
        finally:
            self._write(kept)

    def _read(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self._path.read_text("utf-8")) if self._path.exists() else {}
        return data

    def _write(self, text: str) -> None:
        other = self._path.with_name(f"{self._path.name}.new")
        other.write_text(text, "utf-8")
        other.replace(self._path)
