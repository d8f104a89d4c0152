"""Where the key set comes from, and when it is read again."""

from __future__ import annotations

import asyncio
import binascii
import logging
import os
from base64 import b64decode
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

from lapel.errors import ClosedError, ConfigurationError, LapelError, NotFoundError, UnavailableError
from lapel_contrib.http.transport import is_local
from lapel_contrib.local.keyfiles import readable_by_others
from lapel_contrib.local.keyring import KeySource
from lapel_contrib.local.keys import LocalKey
from lapel_contrib.local.parsed_file import MalformedError, ParsedFile

from .fetching import Fetcher
from .keyset import KeySet, parse_key_set
from .settings import JwksSettings, is_url

__all__ = ["FileKeys", "FixedKeys", "UrlKeys", "open_keys"]

PATIENCE: Final = 1.0
"""Seconds for which the use of a known key waits for a refresh; then it goes on with the key as it was."""


async def open_keys(settings: JwksSettings, logger: logging.Logger) -> KeySource:
    """Return the keys that the field `jwks` tells of, read for the first time.

    Raises `ConfigurationError`, `UnavailableError`, `PermissionDeniedError` or `StorageError`; none of them holds a
    value of the field.
    """
    text = settings.jwks.reveal().strip()
    if is_url(text):
        source = UrlKeys(Fetcher(text, settings.fetch_seconds), settings.interval_seconds, logger)
        parts = urlsplit(text)
        if parts.scheme.lower() == "http" and not is_local(parts.hostname or ""):
            logger.warning("the key set comes from %s without TLS: whoever is in between can change it", source.place)
        try:
            await source.open()
        except BaseException:
            await source.aclose()
            raise
        return source
    # JSON is never taken for a path, so that no private key is handed to the file system as a name.
    if not text.startswith("{") and await asyncio.to_thread(_is_file, text):
        keys = FileKeys(Path(text), logger)
        await keys.open()
        return keys
    return FixedKeys(await asyncio.to_thread(_inline, text))


class FixedKeys:
    """Keys that never change."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys
        self._closed = False

    async def load(self, name: str) -> LocalKey:
        """Return a key. Raises `NotFoundError` and `ClosedError`."""
        if self._closed:
            raise ClosedError("the key set is closed")
        return _found(self._keys, name)

    async def check(self) -> None:
        """Do nothing: they are always there."""

    async def aclose(self) -> None:
        """Forget the keys."""
        self._closed = True
        self._keys = KeySet({}, {})


class FileKeys:
    """Keys of one file, which each `load` looks at.

    A version that cannot be used is logged, while the last good one stays; so is a file with private keys that group or
    others may read.
    """

    def __init__(self, path: Path, logger: logging.Logger) -> None:
        self._path = path
        self._logger = logger
        self._warned = False
        self._file = ParsedFile(path, self._parse, field="jwks", logger=logger)
        self._closed = False

    async def open(self) -> None:
        """Read the file. Raises `ConfigurationError`, `PermissionDeniedError` or `StorageError`."""
        await self._file.open()

    async def load(self, name: str) -> LocalKey:
        """Return a key of the newest usable version. Raises `NotFoundError` and `ClosedError`."""
        if self._closed:
            raise ClosedError("the key set is closed")
        return _found(await self._file.current(), name)

    async def check(self) -> None:
        """Raise `StorageError` when the newest version is not in use."""
        await self._file.check()

    async def aclose(self) -> None:
        """Forget the keys."""
        self._closed = True
        self._file = ParsedFile(self._path, self._parse, field="jwks", logger=self._logger)

    def _parse(self, text: str) -> KeySet:
        keys = parse_key_set(text, strict=True)
        if not self._warned and any(key.private for key in keys.keys.values()):
            try:
                status = os.stat(self._path)
            except OSError:
                return keys
            if readable_by_others(status):
                self._warned = True
                self._logger.warning("key file %s may be read by group or others: make it 0600", self._path)
        return keys


class UrlKeys:
    """Keys from a URL, fetched again when they are used and `interval` seconds have passed since the last try.

    All callers share one fetch, and a cancelled one disturbs nobody. The use of a known key waits for a fetch for at
    most `PATIENCE` seconds; an unknown one waits for its end. A failed fetch is logged, and the last good set stays; so
    are keys of a set that cannot be used or chosen, and the others stay in use.
    """

    def __init__(self, fetcher: Fetcher, interval: float, logger: logging.Logger) -> None:
        self._fetcher = fetcher
        self._interval = interval
        self._logger = logger
        self._keys = KeySet({}, {})
        self._flight: asyncio.Task[None] | None = None
        self._tried = 0.0
        self._problem: str | None = None
        self._closed = False
        self.place = fetcher.place

    async def open(self) -> None:
        """Fetch the set for the first time. Raises what fails."""
        self._tried = monotonic()
        self._take(await self._fetch())

    async def load(self, name: str) -> LocalKey:
        """Return a key.

        Raises `NotFoundError` for one that the newest set does not have, `UnavailableError` when the last fetch failed
        and the set before it does not have the key, `KeyTypeError` for one that cannot be used, and `ClosedError`.
        """
        if self._closed:
            raise ClosedError("the key set is closed")
        flight = self._refresh_if_due()
        if flight is not None:
            patience = self._tried + PATIENCE - monotonic() if name in self._keys.keys else None
            if patience is None or patience > 0:
                await asyncio.wait([flight], timeout=patience)
        key = self._keys.find(name)
        if key is not None:
            return key
        if self._closed:
            raise ClosedError("the key set is closed")
        if self._problem is not None:
            raise UnavailableError(f"key {name!r} is not in the last good key set, and {self._problem}")
        wait = max(0.0, self._tried + self._interval - monotonic())
        raise NotFoundError(
            f"key {name!r} is not in the key set of {self.place}, which is not fetched again for {wait:.0f} s"
        )

    async def check(self) -> None:
        """Raise `UnavailableError` when the last fetch failed; makes a new one if it is time."""
        flight = self._refresh_if_due()
        if flight is not None:
            await asyncio.wait([flight])
        if self._problem is not None:
            raise UnavailableError(f"{self._problem}; the last good key set stays in use")

    async def aclose(self) -> None:
        """Stop a fetch under way, close the connections and forget the keys."""
        self._closed = True
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])
        await self._fetcher.close()
        self._keys = KeySet({}, {})

    def _refresh_if_due(self) -> asyncio.Task[None] | None:
        """Return the fetch under way, begun now if it is time; None when there is none."""
        if self._flight is None and not self._closed and monotonic() - self._tried >= self._interval:
            self._tried = monotonic()
            self._flight = asyncio.create_task(self._refresh(), name="lapel key set")
            self._flight.add_done_callback(self._landed)
        return self._flight

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flight = None

    async def _refresh(self) -> None:
        try:
            keys = await self._fetch()
        except LapelError as exc:
            if exc.message != self._problem:
                self._logger.warning("%s; the last good key set stays in use", exc.message)
            self._problem = exc.message
            return
        if self._problem is not None:
            self._logger.info("the key set of %s is fetched again", self.place)
        self._problem = None
        self._take(keys)

    def _take(self, keys: KeySet) -> None:
        for name, reason in keys.unusable.items():
            if name not in self._keys.unusable:
                self._logger.warning("in the key set of %s: %s", self.place, reason)
        for reason in keys.left_out:
            if reason not in self._keys.left_out:
                self._logger.warning("the key set of %s %s", self.place, reason)
        self._keys = keys

    async def _fetch(self) -> KeySet:
        body = await self._fetcher.fetch()
        try:
            return await asyncio.to_thread(parse_key_set, body, strict=False)
        except MalformedError as exc:
            message = exc.message
        raise ConfigurationError(f"the key set of {self.place} {message}")


def _found(keys: KeySet, name: str) -> LocalKey:
    key = keys.find(name)
    if key is None:
        raise NotFoundError(f"key {name!r} is not in the key set; a key's name is its kid")
    return key


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _inline(text: str) -> KeySet:
    if not text.startswith("{"):
        text = _decoded(text)
    try:
        return parse_key_set(text, strict=True)
    except MalformedError as exc:
        message = exc.message
    raise ConfigurationError(f"the field 'jwks' {message}")


def _decoded(text: str) -> str:
    """Return the JSON that is there in base64, of the standard or the URL-safe alphabet, with or without padding."""
    compact = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        decoded = b64decode(compact + "=" * (-len(compact) % 4), validate=True).decode("utf-8-sig").strip()
    except (binascii.Error, ValueError):
        decoded = ""
    if decoded.startswith("{"):
        return decoded
    raise ConfigurationError(
        "the field 'jwks' is no http or https URL, no existing file, no JSON and no base64 of JSON; a relative path"
        " starts at the working directory"
    )
