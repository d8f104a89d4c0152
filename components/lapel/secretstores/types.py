"""What goes between an application, `SecretStore` and a `SecretStoreDriver`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

__all__ = ["BulkSecretsRequest", "GetSecretRequest", "SecretValues"]

NO_METADATA: Mapping[str, str] = {}


class GetSecretRequest(msgspec.Struct, frozen=True):
    """Read one secret. Metadata `version_id` asks for an older version where the store has them."""

    name: str
    metadata: Mapping[str, str] = NO_METADATA


def _nothing() -> None:
    pass


class BulkSecretsRequest(msgspec.Struct, frozen=True):
    """Read every secret that the identity may read."""

    metadata: Mapping[str, str] = NO_METADATA
    step: Callable[[], None] = _nothing
    """To be called for each page or batch that has arrived: the deadline holds for each of them, not for the whole."""


class SecretValues(Mapping[str, str]):
    """The fields of one secret, read-only. Neither `repr` nor `str` shows a value."""

    __slots__ = ("_fields", "name")

    def __init__(self, name: str, fields: Mapping[str, str]) -> None:
        self.name = name
        self._fields = dict(fields)

    @property
    def value(self) -> str:
        """The value of a secret with a single field. Raises `ValueError` when it has several."""
        if len(self._fields) != 1:
            raise ValueError(f"secret {self.name!r} has {len(self._fields)} fields; name the one you want")
        return next(iter(self._fields.values()))

    def __getitem__(self, field: str) -> str:
        return self._fields[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<SecretValues {self.name!r} fields={sorted(self._fields)}>"
