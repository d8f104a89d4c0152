"""What is known of the keys of a transit engine: their kind, their versions, their public parts."""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lapel.errors import InvalidArgumentError, KeyTypeError, NotFoundError, OperationFailedError

from .client import VaultClient, path_of
from .errors import failed

__all__ = ["KeyName", "TransitKey", "TransitKeys"]

KEEP_SECONDS = 60.0
"""How long a description is used before it is read again. Kind and name of a key never change; versions are added."""

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class KeyName(msgspec.Struct, frozen=True):
    """The name of a key, and a version of it; None for the latest, or for whichever fits."""

    name: str
    version: int | None

    @classmethod
    def parse(cls, text: str) -> KeyName:
        """Read `name` or `name/version`. Raises `InvalidArgumentError`."""
        name, slash, version = text.partition("/")
        if not _NAME.fullmatch(name) or (slash and not _VERSION.fullmatch(version)):
            raise InvalidArgumentError(
                f"{text!r} cannot be a key of Vault: expected a name of letters, digits, dots, dashes and underscores, "
                "and possibly a slash and the number of a version"
            )
        return cls(name, int(version) if slash else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitKey:
    """One key. `versions` are those that can be used to decrypt and verify, the latest first."""

    name: str
    type: str
    derived: bool
    imported: bool
    versions: tuple[int, ...]
    public: Mapping[int, str]
    """Public parts by version, as Vault gives them; empty for a symmetric key."""

    def chosen(self, version: int | None) -> tuple[int, ...]:
        """Return the version asked for, or all. Raises `NotFoundError`."""
        if version is None:
            return self.versions
        if version not in self.versions:
            raise NotFoundError(f"key {self.name!r} has no version {version} that may be used")
        return (version,)

    def pem(self, version: int | None) -> str:
        """Return the public part as PKIX PEM. Raises `NotFoundError` for a symmetric key, which has none."""
        number = self.chosen(version)[0]
        text = self.public.get(number, "")
        if not text:
            raise NotFoundError(f"key {self.name!r} is symmetric: it has no public part")
        if text.startswith("-----"):
            return text if text.endswith("\n") else f"{text}\n"
        try:
            key = Ed25519PublicKey.from_public_bytes(b64decode(text))
        except ValueError:
            raise KeyTypeError(f"key {self.name!r} is of type {self.type}, which has no name as JSON Web Key") from None
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class _Version(msgspec.Struct):
    public_key: str = ""


class _Data(msgspec.Struct):
    type: str
    keys: dict[int, int | _Version]
    derived: bool = False
    imported_key: bool = False


class _Body(msgspec.Struct):
    data: _Data


class TransitKeys:
    """Descriptions of keys, each read when it is first used and again after `KEEP_SECONDS`.

    Many first uses at once share one request. Belongs to one event loop.
    """

    def __init__(self, client: VaultClient, engine: str) -> None:
        self._client = client
        self._engine = engine
        self._known: dict[str, tuple[float, TransitKey]] = {}

    async def get(self, name: str, *, fresh: bool = False) -> TransitKey:
        """Return a key; with `fresh` as it is now.

        Raises `NotFoundError`, `PermissionDeniedError`, `UnavailableError`.
        """
        now = asyncio.get_running_loop().time()
        read_at, key = self._known.get(name, (0.0, None))
        if key is not None and not fresh and now < read_at + KEEP_SECONDS:
            return key
        reply = await self._client.read("GET", path_of(self._engine, "keys", name))
        if not reply.ok:
            self._known.pop(name, None)
            raise failed(reply, self._client.place, f"key {name!r} in {self._engine}")
        key = _described(name, reply.content)
        self._known[name] = (now, key)
        return key

    def forget(self, name: str) -> None:
        """Read the key again when it is next used."""
        self._known.pop(name, None)


def _described(name: str, content: bytes) -> TransitKey:
    try:
        data = msgspec.json.decode(content, type=_Body).data
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = None
    if data is None or not data.keys:
        raise OperationFailedError(f"key {name!r} is not described as a transit engine does; check vaultTransitPath")
    return TransitKey(
        name=name,
        type=data.type,
        derived=data.derived,
        imported=data.imported_key,
        versions=tuple(sorted(data.keys, reverse=True)),
        public={number: entry.public_key for number, entry in data.keys.items() if isinstance(entry, _Version)},
    )
