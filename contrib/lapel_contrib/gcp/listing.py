"""Objects of a bucket, page by page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from google.cloud.storage import Blob

from lapel.errors import InvalidArgumentError

from .arguments import text_of
from .attributes import attributes, prefix_attributes
from .client import StorageClient
from .threads import TIMEOUT

__all__ = ["FILTERS", "JsonPages", "Listing"]

FILTERS: Final = ("prefix", "maxResults", "delimiter")
_PAGE: Final = 1000
"""The service's own limit."""


class Listing:
    """Objects whose names begin with a prefix, in the order of their names; with a delimiter also the prefixes below.

    `most` None: all of them. Made from the document of a request.
    """

    def __init__(self, client: StorageClient, bucket: str, document: Mapping[str, Any], *, most: int | None) -> None:
        self._client = client
        self._place = f"bucket {bucket!r}"
        self._most = _most(document, most)
        size = _PAGE if self._most is None else min(_PAGE, self._most)
        self._iterator = client.sdk.list_blobs(
            bucket,
            prefix=text_of(document, "prefix") or None,
            delimiter=text_of(document, "delimiter") or None,
            page_size=size,
            timeout=TIMEOUT,
            retry=None,
        )
        self._pages = self._iterator.pages
        self._found = 0
        self.complete = False
        """Whether there is nothing more."""

    async def page(self) -> list[Blob | str]:
        """Return the next objects, and the prefixes among them as text. Raises `NotFoundError` for the bucket."""
        found: list[Blob | str] = []
        # A page may be empty although there are more.
        while not found and not self.complete:
            found, more = await self._client.run(self._next, place=self._place, writes=False)
            if self._most is not None:
                found = found[: self._most - self._found]
            self._found += len(found)
            self.complete = not more or self._found == self._most
        return found

    def _next(self) -> tuple[list[Blob | str], bool]:
        page = next(self._pages)
        return [*page, *page.prefixes], self._iterator.next_page_token is not None


class JsonPages(AsyncIterator[bytes]):
    """A listing as one JSON array of attributes, a page at a time. Made by `open`."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._first: bytes | None = None

    @classmethod
    async def open(cls, listing: Listing) -> JsonPages:
        """Read the first page, so that what is wrong is known before the answer begins."""
        pages = cls(listing)
        pages._first = b"[" + await pages._next()
        return pages

    @property
    def whole(self) -> bytes | None:
        """All of it, where that is no more than a page."""
        return self._first if self._listing.complete else None

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first
        if self._listing.complete:
            raise StopAsyncIteration
        text = await self._next()
        return text if text == b"]" else b"," + text

    async def _next(self) -> bytes:
        page = await self._listing.page()
        known = [prefix_attributes(each) if isinstance(each, str) else attributes(each) for each in page]
        return (",".join(json.dumps(each) for each in known) + ("]" if self._listing.complete else "")).encode()


def _most(document: Mapping[str, Any], default: int | None) -> int | None:
    value = document.get("maxResults")
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidArgumentError("'maxResults' must be a whole number from 0; 0 stands for the default")
    return value or default
