"""An object read in steps, each of which is bounded; between them no thread is held."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlencode

import google_crc32c
from google.api_core.exceptions import from_http_response
from requests import Response
from urllib3.connection import HTTPConnection

from lapel.errors import UnavailableError

from .client import StorageClient
from .threads import TIMEOUT
from .transport import current_step, waiting

__all__ = ["EAGER_BYTES", "Base64Text", "Download"]

EAGER_BYTES: Final = 256 * 1024
"""A shorter object is read in one step."""
CHUNK_BYTES: Final = 1024 * 1024

_CHECKED: Final = google_crc32c.implementation == "c"
"""Without its C part the library is slower than any network."""


class Download(AsyncIterator[bytes]):
    """The content of one object, at one generation, checked against its checksum at the end.

    Made by `open`. Read it to the end or call `aclose`; until then it holds a connection. One task reads at a time.
    """

    def __init__(self, client: StorageClient, bucket: str, key: str, query: Mapping[str, str]) -> None:
        self._client = client
        self.place = f"object {key!r} in bucket {bucket!r}"
        path = f"/download/storage/v1/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"
        self._url = f"{client.endpoint}{path}?{urlencode({'alt': 'media', **query})}"
        self._response: Response | None = None
        self._connection: HTTPConnection | None = None
        self._checksum = google_crc32c.Checksum() if _CHECKED else None
        # Whoever is last closes the response: a thread that is still at it, or `aclose`. Each sets its mark first and
        # looks at the other's afterwards.
        self._busy = False
        self._given_up = False
        self.head = b""
        """What opening has read already; the iteration begins with it."""
        self.complete = False
        """Whether that is all there is."""
        self.content_type: str | None = None
        self.generation: str | None = None

    @classmethod
    async def open(
        cls, client: StorageClient, bucket: str, key: str, query: Mapping[str, str] = MappingProxyType({})
    ) -> Download:
        """Ask for the object and read its beginning. `query` is the service's, such as `generation`.

        Raises `NotFoundError`, `PermissionDeniedError`, `EtagMismatchError` and the like.
        """
        download = cls(client, bucket, key, query)
        try:
            await client.run(download._open, place=download.place, writes=False)
        except BaseException:
            await download.aclose()
            raise
        return download

    def _open(self) -> None:
        self._busy = True
        try:
            self._response = response = self._client.session.get(self._url, stream=True, timeout=TIMEOUT)
            step = current_step()
            self._connection = None if step is None else step.connection
            if response.status_code != 200:
                self._given_up = True
                raise from_http_response(response)
            self.content_type = response.headers.get("Content-Type")
            self.generation = response.headers.get("X-Goog-Generation")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                self._checksum = None  # it is that of the compressed content
            self.head = self._take(response, EAGER_BYTES)
            self.complete = len(self.head) < EAGER_BYTES
        finally:
            self._pause()

    def _read(self) -> bytes:
        self._busy = True
        try:
            return b"" if self._response is None or self._given_up else self._take(self._response, CHUNK_BYTES)
        finally:
            self._pause()

    def _pause(self) -> None:
        self._busy = False
        if self._given_up:
            self._close()

    def _take(self, response: Response, size: int) -> bytes:
        with waiting():
            chunk: bytes = response.raw.read(size, decode_content=True)
        if self._checksum is not None:
            self._checksum.update(chunk)
            if len(chunk) < size:
                self._compare(response.headers.get("X-Goog-Hash", ""))
        return chunk

    def _compare(self, hashes: str) -> None:
        """Raise unless what was read is what is stored."""
        assert self._checksum is not None
        stored = next((each.strip()[7:] for each in hashes.split(",") if each.strip().startswith("crc32c=")), "")
        if stored and stored != base64.b64encode(self._checksum.digest()).decode():
            raise UnavailableError(f"{self.place}: what arrived is not what is stored (checksum); read it again")

    async def __anext__(self) -> bytes:
        head, self.head = self.head, b""
        if head:
            return head
        if self.complete:
            raise StopAsyncIteration
        chunk = await self._client.run(self._read, place=self.place, writes=False, connection=self._connection)
        self.complete = len(chunk) < CHUNK_BYTES
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Let go of the connection. Idempotent."""
        self._given_up = self.complete = True
        if not self._busy:
            self._close()

    def _close(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()


class Base64Text(AsyncIterator[bytes]):
    """A stream as base64 text."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._rest = b""

    async def __anext__(self) -> bytes:
        while True:
            try:
                data = self._rest + await anext(self._source)
            except StopAsyncIteration:
                data, self._rest = self._rest, b""
                if not data:
                    raise
                return base64.b64encode(data)
            whole = len(data) - len(data) % 3
            self._rest = data[whole:]
            if whole:
                return binascii.b2a_base64(data[:whole], newline=False)

    async def aclose(self) -> None:
        """Close the source."""
        close: Any = getattr(self._source, "aclose", None)
        if close is not None:
            await close()
