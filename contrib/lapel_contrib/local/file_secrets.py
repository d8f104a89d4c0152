"""Secrets from a JSON file: `secretstores.local.file`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lapel.descriptor import Capability
from lapel.driver import DriverContext
from lapel.errors import NotFoundError
from lapel.secretstores import BulkSecretsRequest, GetSecretRequest, SecretStoreDriver

from . import FILE_SECRETS
from .json_text import parse_object, plain_text
from .parsed_file import MalformedError, ParsedFile
from .settings import FileSecretsSettings

__all__ = ["FileSecretStore"]

Secrets = Mapping[str, Mapping[str, str]]


class FileSecretStore(SecretStoreDriver[FileSecretsSettings]):
    """A JSON object of secrets, read again when the file has changed.

    Single-valued: the tree is flattened, names joined by `nestedSeparator`, list items named by their index from 0.
    `multiValued`: each entry at the top is one secret, and an object or list there gives its flattened fields;
    other entries have one field named like the secret. Numbers come out as written, booleans as `true` and
    `false`, null as the empty text. Two names that become one are an error. A version of the file that is broken
    or gone is logged, and the last good one stays in use; health then says why.
    """

    descriptor = FILE_SECRETS

    def __init__(self, settings: FileSecretsSettings, context: DriverContext) -> None:
        super().__init__(settings, context)
        self._file: ParsedFile[Secrets] = ParsedFile(
            settings.secrets_file, self._parse, field="secretsFile", logger=context.logger
        )

    async def open(self) -> None:
        await self._file.open()
        if not self.settings.multi_valued:
            self.withdraw(
                Capability.MULTIPLE_KEY_VALUES_PER_SECRET, "each secret has one field because multiValued is not true"
            )

    async def close(self) -> None:
        pass

    async def ping(self) -> None:
        await self._file.check()

    async def get(self, request: GetSecretRequest) -> Mapping[str, str]:
        fields = (await self._file.current()).get(request.name)
        if fields is None:
            raise NotFoundError(f"there is no secret {request.name!r} in {self._file.path}")
        return fields

    async def bulk_get(self, request: BulkSecretsRequest) -> Secrets:
        return await self._file.current()

    def _parse(self, text: str) -> Secrets:
        data = parse_object(text)
        if self.settings.multi_valued:
            return {
                name: self._flat(value) if isinstance(value, dict | list) else {name: plain_text(value, name)}
                for name, value in data.items()
            }
        return {name: {name: value} for name, value in self._flat(data).items()}

    def _flat(self, tree: dict[str, Any] | list[Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, value in _leaves(tree, "", self.settings.nested_separator):
            if name in found:
                raise MalformedError(
                    f"has two values for {name!r} once it is flattened; rename one or set another nestedSeparator"
                )
            found[name] = plain_text(value, name)
        return found


def _leaves(tree: dict[str, Any] | list[Any], path: str, separator: str) -> Iterator[tuple[str, Any]]:
    entries = tree.items() if isinstance(tree, dict) else ((str(index), item) for index, item in enumerate(tree))
    for key, value in entries:
        if isinstance(value, dict | list):
            yield from _leaves(value, f"{path}{key}{separator}", separator)
        else:
            yield path + key, value
